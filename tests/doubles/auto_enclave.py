"""An enclave that answers by itself, over real sockets; a test can hold its answers, change them, and cut it off.

Each connection is served in order, as tee-signer does. Handles of a connection begin at a number of its own, so that one
of another connection is never right by accident.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import (
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    ProvePossession,
    ProvePossessionOf,
    Request,
    Result,
    SealedKey,
    Sign,
    SigningVersion,
)
from tests.doubles.asyncio_server import AsyncioServer

#: How far apart the first handles of two connections are.
HANDLES_APART = 1000

#: What a test says instead of the enclave, to a call on a connection: an answer, a refusal, or nothing special (None).
Answer = Callable[[int, Request], Result | WireError]


class AutoEnclave:
    """Takes any number of connections, numbered from 1."""

    def __init__(self, blobs: Mapping[bytes, SigningKey]) -> None:
        self.blobs = dict(blobs)
        #: Calls in the order in which they came, each with the number of its connection.
        self.calls: list[tuple[int, Request]] = []
        self.connections = 0
        self.port = 0
        #: How many connections may be open at a time; more are closed at once. None for any number.
        self.granted: int | None = None
        #: Asked first.
        self.instead: Answer = lambda _, __: None
        #: What follows the answer to such a call, in the same write.
        self.trailing: dict[tuple[int, type[Request]], bytes] = {}
        #: The key that is made next.
        self.next_key: SigningKey | None = None
        self._gates: dict[tuple[int, type[Request]], asyncio.Event] = {}
        self._held_calls: dict[Request, asyncio.Event] = {}
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._keys: dict[int, SigningKey] = {}
        self._server = AsyncioServer(self._serve)

    def hold(self, connection: int, call: type[Request]) -> asyncio.Event:
        """Keep back the answer of such calls, and all after it on that connection, until the event is set."""
        return self._gates.setdefault((connection, call), asyncio.Event())

    def hold_call(self, request: Request) -> asyncio.Event:
        """Keep back the answer of this very call, and all after it, on every connection, until the event is set."""
        return self._held_calls.setdefault(request, asyncio.Event())

    def asked(self, call: type[Request]) -> list[tuple[int, Request]]:
        return [(number, request) for number, request in self.calls if isinstance(request, call)]

    async def wait_until(self, true: Callable[[], bool]) -> None:
        """Return when something is so; looked at in every turn of the event loop."""
        while not true():
            await _turn()

    async def wait_for(self, call: type[Request], count: int = 1) -> None:
        await self.wait_until(lambda: len(self.asked(call)) >= count)

    def hang_up(self, connection: int | None = None) -> None:
        """End one connection, or all."""
        for number in list(self._writers) if connection is None else [connection]:
            self._writers.pop(number).transport.abort()

    @property
    def open_connections(self) -> set[int]:
        return set(self._writers)

    async def listen(self, port: int = 0) -> None:
        await self._server.listen(port)
        self.port = self._server.port

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers[number] = writer
        if self.granted is not None and len(self._writers) > self.granted:
            writer.transport.abort()
        frames = FrameDecoder()
        handles: dict[int, SigningKey] = {}
        try:
            while data := await reader.read(65536):
                frames.feed(data)
                while (frame := frames.next_frame()) is not None:
                    request = codec.decode_request(frame)
                    self.calls.append((number, request))
                    if (gate := self._gates.get((number, type(request)))) is not None:
                        await gate.wait()
                    if (gate := self._held_calls.get(request)) is not None:
                        await gate.wait()
                    self._answer(writer, number, request, self._result(number, request, handles))
        except ConnectionError:
            pass
        finally:
            self._writers.pop(number, None)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, number: int, request: Request, result: Result | WireError) -> None:
        body = codec.encode_error(result) if isinstance(result, WireError) else codec.encode_ok(result)
        writer.write(encode_frame(body) + self.trailing.get((number, type(request)), b""))

    def _result(self, number: int, request: Request, handles: dict[int, SigningKey]) -> Result | WireError:
        instead = self.instead(number, request)
        if instead is not None:
            return instead
        match request:
            case Initialize():
                return None
            case Import(blob):
                key = self.blobs.get(blob)
                return ImportedKey(key.public_key, _kept(key, number, handles)) if key else WireError("blob corrupt")
            case ImportUnencrypted(private_key):
                return self._sealed(curve(private_key.key_type).open(private_key), number, handles)
            case GenerateAndImport(key_type):
                key = self.next_key or curve(key_type).open(curve(key_type).generate())
                return self._sealed(key, number, handles)
            case Sign(handle, message, version):
                return handles[handle].sign(message, version) if handle in handles else WireError("invalid handle")
            case ProvePossession(handle):
                return handles[handle].prove_possession() if handle in handles else WireError("invalid handle")
            case ProvePossessionOf(handle, other):
                return handles[handle].prove_possession(other) if handle in handles else WireError("invalid handle")
            case GetPublicKey(handle):
                return handles[handle].public_key if handle in handles else WireError("invalid handle")
            case GetPublicKeyFrom(blob):
                return self.blobs[blob].public_key if blob in self.blobs else WireError("blob corrupt")
            case _:
                return WireError("not asked by any host")

    def _sealed(self, key: SigningKey, number: int, handles: dict[int, SigningKey]) -> SealedKey:
        blob = b"sealed %d" % len(self.blobs)
        self.blobs[blob] = key
        return SealedKey(blob, key.public_key, _kept(key, number, handles))


async def _turn() -> None:
    """Let everybody else go on."""
    await asyncio.sleep(0)


def _kept(key: SigningKey, number: int, handles: dict[int, SigningKey]) -> int:
    handle = number * HANDLES_APART + len(handles)
    handles[handle] = key
    return handle


def wrong_signature(key: SigningKey) -> Answer:
    """Sign another message than the one that was asked for."""

    def instead(_: int, request: Request) -> Result:
        return key.sign(b"another message", SigningVersion.LATEST) if isinstance(request, Sign) else None

    return instead


@asynccontextmanager
async def auto_enclave(blobs: Mapping[bytes, SigningKey]) -> AsyncIterator[AutoEnclave]:
    """Listen on a free port; `blobs` are the ones that open, and as which key."""
    enclave = AutoEnclave(blobs)
    await enclave.listen()
    try:
        yield enclave
    finally:
        enclave.stop()
