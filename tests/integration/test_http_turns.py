"""Whose request is answered first: all come while the host is stopped, and then it goes on.

The order counts, not the time: how many of the others stand in the log before the one that came last. All are refused
in the end, so that they wait for nothing but their turns: no disk, no enclave.
"""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType, SigningVersion
from enclave_signer.tezos import encode_public_key, encode_signature
from host_backend.authentication import authentication_bytes
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave

BAKES, TRANSFERS, PACKS, ALSO_PACKS = FOUR[0], FOUR[1], FOUR[2], KEYS["alice"]
POLICIES = {key.pkh: BAKER for key in (BAKES, TRANSFERS)} | {
    key.pkh: "{allow: {pack: }}" for key in (PACKS, ALSO_PACKS)
}
#: Connections that flood.
FLOOD = 30
#: Of their requests, those that may be logged before the one that came last: one may be under way, another one next.
FEW = 5
MINE, ANOTHER = "127.0.0.1", "127.0.0.2"
#: Integers in a message of nearly 32 KiB, which takes long to read.
COUNT = 16_000
LARGE = b"\x05\x02" + (2 * COUNT).to_bytes(4, "big") + b"\0\1" * COUNT


@contextmanager
def serving(folder: Path, more: str = "") -> Iterator[Host]:
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, POLICIES)
        config.write_text(config.read_text().replace("server: {", f"server: {{{more}"))
        import_keys(config, BAKES, TRANSFERS, PACKS, ALSO_PACKS)
        with running_host(config) as host:
            host.wait_for(f"key ready.*{ALSO_PACKS.pkh}")
            yield host
            assert host.stop() == 0
            assert "Traceback" not in host.log


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with serving(tmp_path) as running:
        yield running


@dataclass(frozen=True)
class Request:
    """A request for a signature, and a pattern of its line in the log, which no other line has."""

    line: str
    pkh: str
    message: bytes
    query: str = ""

    def encode(self) -> bytes:
        body = json.dumps(self.message.hex())
        head = f"POST /keys/{self.pkh}{self.query} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        return (head + body).encode()


def connect(host: Host, source: str) -> socket.socket:
    """Return a connection that was taken in."""
    stream = socket.create_connection(("127.0.0.1", host.port), PATIENCE_S, (source, 0))
    stream.sendall(b"GET /mode HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}\n"):
        came = stream.recv(65536)
        assert came
        answer += came
    return stream


def told_before(host: Host, flood: Request, last: Request, source: str = MINE) -> int:
    """Return how many of `FLOOD` requests are logged before one that comes last, from a source."""
    with ExitStack() as stack:
        many = [stack.enter_context(connect(host, MINE)) for _ in range(FLOOD)]
        one = stack.enter_context(connect(host, source))
        host.process.send_signal(signal.SIGSTOP)
        try:
            for stream in many:
                stream.sendall(flood.encode())
            one.sendall(last.encode())
        finally:
            host.process.send_signal(signal.SIGCONT)
        for stream in (one, *many):
            assert stream.recv(1)
    assert host.stop() == 0
    told = [line for line in host.log.splitlines() if re.search(f"{flood.line}|{last.line}", line)]
    (place,) = (place for place, line in enumerate(told) if re.search(last.line, line))
    assert len(told) == FLOOD + 1
    return place


NOT_ALLOWED = "kind `pack' is not allowed.*pkh={}"
SMALL = Request(NOT_ALLOWED.format(BAKES.pkh), BAKES.pkh, b"\x05\0\1")
#: Right up to its last byte.
TOO_LONG = LARGE + b"\0"
PACKING = Request(f"surplus byte.*pkh={PACKS.pkh}", PACKS.pkh, TOO_LONG)


def test_a_small_message_goes_before_large_ones(host: Host) -> None:
    assert told_before(host, PACKING, SMALL) < FEW


def test_a_small_message_goes_before_large_ones_that_are_refused(host: Host) -> None:
    assert told_before(host, Request(NOT_ALLOWED.format(TRANSFERS.pkh), TRANSFERS.pkh, LARGE), SMALL) < FEW


def test_a_large_message_of_another_address_has_the_next_turn(host: Host) -> None:
    assert (
        told_before(host, PACKING, Request(f"surplus byte.*pkh={ALSO_PACKS.pkh}", ALSO_PACKS.pkh, TOO_LONG), ANOTHER)
        < FEW
    )


def test_a_smaller_message_of_the_same_address_goes_before_larger_ones(host: Host) -> None:
    batch = transaction(1) + 20 * transaction(1)[33:]
    assert told_before(host, PACKING, Request("tag 0 is not an operation", TRANSFERS.pkh, batch + b"\0")) < FEW


def test_what_the_policy_never_allows_is_refused_by_its_first_byte(host: Host) -> None:
    nonsense = b"\x05" + b"\xff" * 30_000
    refused = host.sign(BAKES.pkh, nonsense)
    assert (refused.status, refused.message) == (403, "request kind `pack' is not allowed")
    assert host.sign(BAKES.pkh, nonsense[:100]).status == 400
    assert host.sign(PACKS.pkh, nonsense).status == 400


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.SECP256K1, KeyType.P256])
def test_wrong_signatures_wait_behind_their_own(tmp_path: Path, key_type: KeyType) -> None:
    keys = [curve(key_type).open(curve(key_type).generate()) for _ in range(100)]
    listed = ", ".join(encode_public_key(key.public_key) for key in keys)
    right, wrong = (
        f"?authentication={encode_signature(keys[-1].sign(data, SigningVersion.LATEST))}"
        for data in (authentication_bytes(BAKES.pkh, SMALL.message), b"another")
    )
    flood = Request("invalid authentication signature", BAKES.pkh, SMALL.message, wrong)
    last = Request(SMALL.line, BAKES.pkh, SMALL.message, right)
    with serving(tmp_path, f"authorized_keys: [{listed}], ") as host:
        assert told_before(host, flood, last, ANOTHER) < FEW
