"""Proxies as people run them, in front of a real host: requests hidden in a body reaches no one's connection."""

import itertools
import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KnownKey, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave
from tests.doubles.proxies import running_haproxy, running_nginx

#: What the proxy lets through, and what it forbids everybody.
ALLOWED, FORBIDDEN = FOUR[:2]
PATH = f"/keys/{ALLOWED.pkh}"
#: Attacks, honest requests after each, and requests that are hidden in each.
ATTACKS, HONEST, HIDDEN = 200, 3, 2
OFFERS = ("h2c", "websocket", "TLS/1.2", "foo")
OFFERED_EACH = 100
Front = Callable[[Path, int, str], AbstractContextManager[Path]]
FRONTS = {
    "nginx, bodies buffered": partial(running_nginx, bodies="proxy_request_buffering on"),
    # As it buffers large ones: the host then gets heads and bodies by different packets.
    "nginx, bodies in files": partial(running_nginx, bodies="client_body_in_file_only clean"),
    "nginx, bodies passed on": partial(running_nginx, bodies="proxy_request_buffering off"),
    "haproxy": running_haproxy,
}


class Client:
    """One connection after the other to a proxy."""

    def __init__(self, address: Path) -> None:
        self._address = address

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(PATIENCE_S)
            stream.connect(str(self._address))
            yield stream

    def attack(self, hidden: bytes, offer: str) -> None:
        """Send a request with others as its body, and take whatever comes until the proxy ends it."""
        with self._connection() as stream, suppress(ConnectionError):
            head = request(ALLOWED, hidden, f"Connection: Upgrade, close\r\nUpgrade: {offer}\r\n")[: -len(hidden)]
            stream.sendall(head)
            stream.sendall(hidden)
            answer_of(stream)

    def sign(self, message: bytes, more: str = "") -> tuple[int, str]:
        """Ask for a signature; return the status and the signature, if there is one."""
        with self._connection() as stream:
            stream.sendall(request(ALLOWED, json.dumps(message.hex()).encode(), more))
            status, body = answer_of(stream)
        return status, json.loads(body)["signature"] if status == 200 else ""


def request(key: KnownKey, body: bytes, more: str = "") -> bytes:
    head = f"POST /keys/{key.pkh} HTTP/1.1\r\nHost: signer\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer_of(stream: socket.socket) -> tuple[int, bytes]:
    """Return status and body of one answer."""
    with stream.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        length = 0
        while (line := lines.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        return status, lines.read(length)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("proxies")
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in (ALLOWED, FORBIDDEN)})
        import_keys(config, ALLOWED, FORBIDDEN)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.log


@pytest.fixture(params=FRONTS.values(), ids=list(FRONTS))
def client(request: pytest.FixtureRequest, host: Host) -> Iterator[Client]:
    front: Front = request.param
    with tempfile.TemporaryDirectory(prefix="front-") as folder, front(Path(folder), host.port, PATH) as address:
        yield Client(address)


_MARKS = itertools.count()


def lines_of(host: Host, key: KnownKey) -> int:
    """Return how many lines of the log tell of a key, once the host has said all that it had to."""
    mark = f"of-nobody-{next(_MARKS)}"
    host.ask("GET", f"/keys/{mark}")
    host.wait_for(mark)
    return host.log.count(key.pkh)


def test_hidden_requests_reach_nobody(host: Host, client: Client) -> None:
    before = lines_of(host, FORBIDDEN)
    wrong = 0
    for number in range(ATTACKS):
        hidden = b"".join(
            request(FORBIDDEN, json.dumps(transaction(1 << 32 | number << 1 | each).hex()).encode())
            for each in range(HIDDEN)
        )
        client.attack(hidden, OFFERS[number % len(OFFERS)])
        for each in range(HONEST):
            message = transaction(number * HONEST + each)
            status, signature = client.sign(message)
            try:
                oracles.verify(ALLOWED, signature, message)
            except Exception:  # noqa: BLE001 -- whatever an oracle says of bytes that are not a signature
                wrong += 1
            else:
                wrong += status != 200
    executed = lines_of(host, FORBIDDEN) - before
    print(f"{ATTACKS * HONEST} honest answers, {wrong} wrong; {ATTACKS * HIDDEN} hidden requests, {executed} executed")
    assert (wrong, executed) == (0, 0)
    # Such a request is seen when there is one.
    assert host.sign(FORBIDDEN.pkh, transaction(1)).status == 200
    assert lines_of(host, FORBIDDEN) > before


def test_offers_of_honest_clients_are_ignored(client: Client) -> None:
    statuses = []
    for number in range(OFFERED_EACH):
        for offer in OFFERS:
            message = transaction(number)
            more = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAEAAEAA\r\n"
            status, signature = client.sign(message, more)
            oracles.verify(ALLOWED, signature, message)
            statuses.append(status)
    print(f"{len(statuses)} requests with an offer, {statuses.count(200)} answered 200")
    assert statuses == [200] * OFFERED_EACH * len(OFFERS)
