"""What strangers who reach the port can do: nothing that another client notices, and nothing that the log calls an error."""

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.doubles.processes import Enclave, running_enclave
from tests.doubles.starting import interpreters_of_their_own
from tests.doubles.wire import WireClient

#: The memory that a flood may cost, for buffers that the allocator keeps.
MARGIN_BYTES = 24 * 1024 * 1024
MAX_CONNECTIONS = 200


@pytest.fixture(scope="module", autouse=True)
def _interpreters() -> Iterator[None]:
    """Memory is compared: that of a forked program is shared with the one it comes from."""
    with interpreters_of_their_own():
        yield


@pytest.fixture
def guarded() -> Iterator[Enclave]:
    with running_enclave("--max-connections", str(MAX_CONNECTIONS)) as daemon:
        yield daemon


@pytest.fixture
def client(guarded: Enclave) -> Iterator[WireClient]:
    with WireClient(guarded.address) as opened:
        opened.call({"GenerateAndImport": "Ed25519"})
        yield opened


def signs(client: WireClient) -> bool:
    return "Ok" in client.call({"Sign": {"handle": 0, "message": b"m", "version": 2}})


def check_unharmed(enclave: Enclave, client: WireClient, before: int, what: str) -> None:
    after = enclave.resident_bytes()
    print(f"{what}: resident {before >> 10} KiB before, {after >> 10} KiB after")
    assert signs(client)
    assert after - before < MARGIN_BYTES
    assert "level=error" not in enclave.log
    assert "Traceback" not in enclave.log


def test_an_announced_length_of_4_gib_closes_that_connection(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    for _ in range(100):
        with WireClient(guarded.address, initialize=False) as stranger:
            stranger.stream.sendall(b"\xff\xff\xff\xff")
            assert stranger.closed()
    check_unharmed(guarded, client, before, "100 frames of 4 GiB announced")


def test_5000_silent_connections_are_held_to_the_limit(guarded: Enclave, client: WireClient) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 6000)), hard))
    before = guarded.resident_bytes()
    # All come from one address, the client as well: it has one of the places of that address.
    kept = MAX_CONNECTIONS // 2 - 1
    with ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection(guarded.address, timeout=60)) for _ in range(5000)]
        for stranger in strangers[:-kept]:
            assert stranger.recv(1) == b""
        assert signs(client)
        # The last to come has a place, and is served.
        strangers[-1].sendall(bytes.fromhex("0000000da16a496e697469616c697a65a0"))
        assert strangers[-1].recv(4) == b"\0\0\0\5"
        check_unharmed(guarded, client, before, "5000 silent connections")
    (told, *_) = (line for line in guarded.log.splitlines() if "silent connections without keys closed" in line)
    assert "source=127.0.0.1 " in told
    assert guarded.log.count("closed for newcomers") < 20


def test_a_byte_by_byte_sender_is_served_and_holds_nobody_up(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    frame = bytes.fromhex("0000000da16a496e697469616c697a65a0")
    with WireClient(guarded.address, initialize=False) as slow:
        slow.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame:
            slow.stream.sendall(bytes([byte]))
            assert signs(client)
        assert slow.receive() == {"Ok": None}
    check_unharmed(guarded, client, before, "a frame byte by byte")


def test_connections_closed_in_the_middle_of_a_frame(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    for size in range(200):
        with WireClient(guarded.address, initialize=False) as stranger:
            stranger.stream.sendall(struct.pack(">I", 100_000) + bytes(size))
            if size % 2:
                # Closing with a reset instead of an end.
                stranger.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    check_unharmed(guarded, client, before, "200 frames cut off")


def test_garbage_is_answered_or_closed(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    for seed in range(100):
        garbage = bytes((seed * 31 + index * 7) % 256 for index in range(4096))
        with WireClient(guarded.address, initialize=False) as stranger:
            stranger.stream.sendall(garbage)
            stranger.stream.shutdown(socket.SHUT_WR)
            while stranger.receive_frame() is not None:
                pass
        with WireClient(guarded.address, initialize=False) as stranger:
            stranger.send_frame(garbage)
            assert "Err" in stranger.receive()
    check_unharmed(guarded, client, before, "200 connections of garbage")


def test_a_client_that_does_not_read_its_answers_stops_itself(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    with WireClient(guarded.address, initialize=False) as deaf:
        deaf.stream.settimeout(2)
        call = struct.pack(">I", 14) + bytes.fromhex("a169") + b"PublicKey" + b"\0" + bytes(2)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += deaf.stream.send(call * 4096)
        except TimeoutError:
            pass
        print(f"{sent >> 10} KiB were taken from a client that reads nothing")
        assert sent < 64 << 20
        check_unharmed(guarded, client, before, "a client that reads nothing")


def test_frames_of_the_largest_size_from_many_connections(guarded: Enclave, client: WireClient) -> None:
    before = guarded.resident_bytes()
    with ExitStack() as stack:
        strangers = [stack.enter_context(WireClient(guarded.address, initialize=False)) for _ in range(50)]
        for stranger in strangers:
            stranger.stream.sendall(struct.pack(">I", 128 * 1024) + bytes(128 * 1024 - 1))
        assert signs(client)
        held = guarded.resident_bytes()
        # Fifty unfinished frames of the largest size, and what the last read of each brought.
        assert held - before < 50 * (128 + 64) * 1024 + MARGIN_BYTES
    check_unharmed(guarded, client, before, "50 unfinished frames of 128 KiB")
