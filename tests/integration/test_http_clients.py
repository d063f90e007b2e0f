"""Clients of the host that are slow, rude, or many at once: none disturbs another."""

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, SIGNATORY, KnownKey, attestation, block, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("http")
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.log


def request_bytes(key: KnownKey, message: bytes) -> bytes:
    body = json.dumps(message.hex()).encode()
    return b"POST /keys/%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (key.pkh.encode(), len(body), body)


def read_answer(stream: socket.socket) -> bytes:
    """Return one answer, head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += stream.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < int(length):
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def test_a_slow_client_is_served_and_holds_up_nobody(host: Host) -> None:
    data = request_bytes(TZ3, transaction(4))
    with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S) as stream:
        for place, byte in enumerate(data):
            stream.sendall(bytes([byte]))
            if place % 100 == 0:
                assert host.sign(TZ1.pkh, transaction(place)).status == 200
        answer = read_answer(stream)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    oracles.verify(TZ3, json.loads(answer.partition(b"\r\n\r\n")[2])["signature"], transaction(4))


@pytest.mark.parametrize("share", [0, 1, 30, 100, 200, 10_000])
def test_a_client_that_hangs_up_early_disturbs_nobody(host: Host, share: int) -> None:
    message = attestation(1, chain=1000 + share)
    data = request_bytes(TZ4, message)[:share]
    for _ in range(5):
        stream = socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S)
        stream.sendall(data)
        # A reset: whatever the host has to say finds no one.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    for key in FOUR:
        oracles.verify(key, host.sign(key.pkh, transaction(share)).signature, transaction(share))
    # The same message may be asked for again, signed or not.
    assert host.sign(TZ4.pkh, message).status == 200


def test_pipelined_requests_are_answered_in_order(host: Host) -> None:
    with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S) as stream:
        stream.sendall(b"".join(request_bytes(TZ1, transaction(number)) for number in range(10)))
        received = b""
        while received.count(b'"}\n') < 10:
            received += stream.recv(65536)
    signatures = [line.split(b'"')[3].decode() for line in received.split(b"\n") if line.startswith(b'{"signature"')]
    for number, signature in enumerate(signatures):
        oracles.verify(TZ1, signature, transaction(number))


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.2", "foo"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_client_that_offers_another_protocol_signs(host: Host, offer: str, apart: bool) -> None:
    more = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S) as stream:
        for number in range(5):
            head, _, body = request_bytes(TZ1, transaction(number)).partition(b"\r\n\r\n")
            parts = [head + b"\r\n" + more.encode() + b"\r\n", body]
            for part in parts if apart else [b"".join(parts)]:
                stream.sendall(part)
                # The host has looked at its sockets.
                assert host.sign(TZ3.pkh, transaction(number)).status == 200
            answer = read_answer(stream)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            oracles.verify(TZ1, json.loads(answer.partition(b"\r\n\r\n")[2])["signature"], transaction(number))


def test_a_head_without_end(host: Host) -> None:
    with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S) as stream:
        stream.sendall(b"GET /keys HTTP/1.1\r\n" + b"a: b\r\n" * 4000)
        answer = b""
        while data := stream.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert host.sign(TZ1.pkh, transaction(1)).status == 200


def test_what_is_no_http(host: Host) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"GET / HTTP/9.9\r\n\r\n", bytes(5000)):
        with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S) as stream:
            stream.sendall(noise)
            assert read_answer(stream).startswith(b"HTTP/1.1 400 ")
    assert host.sign(TZ1.pkh, transaction(1)).status == 200


def test_32_clients_at_once_get_each_their_own_signature(host: Host) -> None:
    clients, rounds = 32, 6
    barrier = Barrier(clients)

    def sign(client: int) -> list[tuple[KnownKey, bytes, str]]:
        key = FOUR[client % 4]
        barrier.wait(PATIENCE_S)
        messages = [transaction(1000 * client + number) for number in range(rounds)]
        return [(key, message, host.sign(key.pkh, message).signature) for message in messages]

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for each in pool.map(sign, range(clients)) for answer in each]
    assert len(answers) == clients * rounds
    assert len({signature for _, _, signature in answers}) == clients * rounds
    for key, message, signature in answers:
        # py_ecc takes a second per signature; the host has verified the BLS ones, and they all differ.
        if key is not TZ4:
            oracles.verify(key, signature, message)
    oracles.verify(*[(key, signature, message) for key, message, signature in answers if key is TZ4][-1])


def test_at_once_one_of_two_messages_of_a_level_is_signed(host: Host) -> None:
    case = SIGNATORY["watermark_concurrency"]
    clients = len(case["requests"])
    barrier = Barrier(clients)

    def sign(payload: str) -> tuple[int, str]:
        barrier.wait(PATIENCE_S)
        return host.sign(TZ3.pkh, block(300, chain=4, payload=payload.encode() * 2 + bytes(8))).status, payload

    with ThreadPoolExecutor(clients) as pool:
        outcomes = list(pool.map(sign, case["requests"]))
    statuses = [status for status, _ in outcomes]
    assert (statuses.count(200), statuses.count(409)) == (case["expected_200"], case["expected_409"])
    assert len({payload for status, payload in outcomes if status == 200}) == 1
