"""A signer over HTTP in which single rules can be switched off: what a check of signers must find."""

import json
import struct
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nacl.signing import SigningKey

from enclave_signer.protocol.messages import KeyType, Signature
from enclave_signer.tezos import ConsensusMessage, encode_signature
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import parse_message
from tests.doubles.known_keys import KEYS

KEY = KEYS["tz1alias"]
#: What can be wrong with it.
LEVEL_WRAPS = "levels wrap at 32 bits"
NO_MARK_FOR_DAL = "attestations with DAL have no mark"
TRAILING_BYTES = "bytes after the message are not looked at"
NO_MARK_FOR_ROUND = "rounds are not compared, only distinguished"
ONE_CHAIN = "all chains share their marks"
NO_REPEATS = "the same message is refused when it comes again"
ONE_MARK_PER_TAG = "each form of a message has marks of its own"
WRONG_SIGNATURE = "another message is signed"
NO_OPERATIONS = "the policy refuses operations"
AUTHENTICATED = "requests must be authenticated"
SILENT = "what cannot be read ends the connection"
UNAVAILABLE = "nothing is signed for now"

_SIGN_BIT = 0x80000000


class Refused(Exception):
    """Status and text of a refusal."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _int32(number: int) -> int:
    return number - (number & _SIGN_BIT) * 2


class BrokenSigner:
    """The marks and the key of such a signer."""

    def __init__(self, wrong: Collection[str]) -> None:
        self.wrong = wrong
        self._marks: dict[tuple[str, ...], tuple[int, int, bytes]] = {}
        self._lock = threading.Lock()

    def sign(self, message: bytes) -> str:
        if AUTHENTICATED in self.wrong:
            raise Refused(401, "missing authentication")
        if UNAVAILABLE in self.wrong:
            raise Refused(503, "the enclave is away")
        parsed, level = self._read(message)
        if isinstance(parsed, ConsensusMessage):
            with self._lock:
                self._judge(parsed, level, message)
        elif NO_OPERATIONS in self.wrong:
            raise Refused(403, "request kind `generic' is not allowed")
        digest = blake2b(message + b"!" * (WRONG_SIGNATURE in self.wrong), digest_size=32).digest()
        signed = SigningKey(KEY.secret_bytes).sign(digest).signature
        return encode_signature(Signature(KeyType.ED25519, signed))

    def _read(self, message: bytes) -> tuple[object, int]:
        """Return a message, and the level as it was asked for."""
        readable, level = message, 0
        if LEVEL_WRAPS in self.wrong and message[0] in {0x11, 0x12, 0x13}:
            at = 5 if message[0] == 0x11 else 40
            level = int.from_bytes(message[at : at + 4], "big")
            low = struct.pack(">I", level & ~_SIGN_BIT)
            readable = message[:at] + low + message[at + 4 :]
            if message[0] == 0x11 and message[96:100] == message[at : at + 4]:
                readable = readable[:96] + low + readable[100:]
        surplus = range(3) if TRAILING_BYTES in self.wrong else range(1)
        for count in surplus:
            try:
                parsed = parse_message(readable[: len(readable) - count])
            except MalformedRequest as error:
                if count == surplus[-1]:
                    raise Refused(400, str(error)) from error
            else:
                return parsed, level if level & _SIGN_BIT else getattr(parsed, "level", 0)
        raise AssertionError

    def _judge(self, parsed: ConsensusMessage, level: int, message: bytes) -> None:
        kind = parsed.kind.value
        if NO_MARK_FOR_DAL in self.wrong and kind == "attestation_with_dal":
            return
        place: tuple[str, ...] = ("" if ONE_CHAIN in self.wrong else parsed.chain_id, parsed.kind.right.value)
        if ONE_MARK_PER_TAG in self.wrong and parsed.kind.right.value != "block":
            place += (str(message[37]),)
        round_ = parsed.round
        digest = blake2b(message, digest_size=32).digest()
        if place in self._marks:
            marked_level, marked_round, marked = self._marks[place]
            if digest == marked and NO_REPEATS not in self.wrong:
                return
            used = level < marked_level or (level == marked_level and round_ <= marked_round)
            if NO_MARK_FOR_ROUND in self.wrong:
                used = level < marked_level or (level, round_) == (marked_level, marked_round)
            if used:
                raise Refused(409, "watermark validation failed")
        self._marks[place] = (_int32(level) if LEVEL_WRAPS in self.wrong else level, round_, digest)


class _Server(ThreadingHTTPServer):
    # The end of the server waits for those who answer.
    daemon_threads = False
    request_queue_size = 64
    signer: BrokenSigner


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # One packet for each answer.
    wbufsize = -1
    timeout = 60

    def do_GET(self) -> None:
        found = self.path == f"/keys/{KEY.pkh}"
        self._answer(200, {"public_key": KEY.public_key}) if found else self._refuse(404, "this key is not here")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            self._answer(200, {"signature": self.server.signer.sign(bytes.fromhex(json.loads(body)))})
        except Refused as refused:
            self._refuse(refused.status, str(refused))
        except ValueError as error:
            if SILENT in self.server.signer.wrong:
                self.close_connection = True
            else:
                self._refuse(400, str(error))

    def _refuse(self, status: int, text: str) -> None:
        self._answer(status, [{"id": "failure", "kind": "temporary", "msg": text}])

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def broken_signer(*wrong: str) -> Iterator[str]:
    """Serve such a signer; give its URL."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.signer = BrokenSigner(wrong)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
