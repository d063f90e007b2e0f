"""What rude HTTP clients cost a host, while another client goes on signing; prints memory before, during and after each.

python -m tests.endurance.http_floods
"""

import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave

TZ1 = FOUR[0]
IDLE_CONNECTIONS = 2000
#: Connections that send without end.
RUDE_CONNECTIONS = 50
#: Bytes that each of them sends, as far as it is let.
RUDE_BYTES = 10 * 1024 * 1024


@contextmanager
def flooded_host(folder: Path) -> Iterator[Host]:
    """Run a host with keys; let this process have enough file descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            yield host


def connect(host: Host) -> socket.socket:
    return socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_S)


def signs(host: Host, number: int) -> None:
    answer = host.sign(TZ1.pkh, transaction(number))
    assert answer.status == 200, answer.body


def idle(host: Host, stack: ExitStack) -> None:
    """Open connections that say nothing."""
    for _ in range(IDLE_CONNECTIONS):
        stack.enter_context(connect(host))


def slow_heads(host: Host, stack: ExitStack) -> None:
    """Begin heads, and send a byte now and then."""
    streams = [stack.enter_context(connect(host)) for _ in range(200)]
    for part in (b"POST /keys/x HTTP/1.1\r\n", b"a", b": ", b"b", b"\r\n"):
        for number, stream in enumerate(streams):
            stream.sendall(part)
            if number % 50 == 0:
                signs(host, number)


def _send_without_end(host: Host, stack: ExitStack, head: bytes, part: bytes) -> None:
    for number in range(RUDE_CONNECTIONS):
        stream = stack.enter_context(connect(host))
        # The host closes it on the way.
        with suppress(OSError):
            stream.sendall(head)
            for _ in range(RUDE_BYTES // len(part)):
                stream.sendall(part)
        if number % 10 == 0:
            signs(host, number)


def endless_heads(host: Host, stack: ExitStack) -> None:
    """Send headers without end."""
    _send_without_end(host, stack, b"POST /keys/x HTTP/1.1\r\n", b"a: b\r\n" * 10_000)


def large_bodies(host: Host, stack: ExitStack) -> None:
    """Send bodies of 10 MB."""
    head = b"POST /keys/%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (TZ1.pkh.encode(), RUDE_BYTES)
    _send_without_end(host, stack, head, b"0" * 65536)


def pipelined(host: Host, stack: ExitStack) -> None:
    """Send requests by the thousand, and read no answers."""
    request = b"GET /keys/%s HTTP/1.1\r\nHost: h\r\n\r\n" % TZ1.pkh.encode()
    for number in range(RUDE_CONNECTIONS):
        stream = stack.enter_context(connect(host))
        stream.settimeout(0.2)
        with suppress(OSError):
            stream.sendall(request * 20_000)
        if number % 10 == 0:
            signs(host, number)


def sent_ahead(host: Host, stack: ExitStack) -> None:
    """Send whole requests by the thousand, so that each read of the host ends with a request's end; read the answers."""
    request = b"GET /docs HTTP/1.1\r\nA:123456\r\n\r\n"
    assert 256 * 1024 % len(request) == 0
    for number in range(RUDE_CONNECTIONS):
        stream = stack.enter_context(connect(host))
        with suppress(OSError):
            for _ in range(RUDE_BYTES // (512 * len(request))):
                stream.sendall(request * 512)
                stream.recv(1024 * 1024)
        if number % 10 == 0:
            signs(host, number)


def unread(host: Host, stack: ExitStack) -> None:
    """Ask for as many long answers as may wait, and read none."""
    for number in range(500):
        stack.enter_context(connect(host)).sendall(b"GET /docs HTTP/1.1\r\nHost: h\r\n\r\n" * 16)
        if number % 100 == 0:
            signs(host, number)


def malformed(host: Host, stack: ExitStack) -> None:
    """Send bytes that are not HTTP."""
    for number in range(500):
        stream = stack.enter_context(connect(host))
        with suppress(OSError):
            stream.sendall(
                (b"\x16\x03\x01", b"GET\r\n\r\n", b"\0" * 100_000, b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n")[
                    number % 4
                ]
            )
        if number % 100 == 0:
            signs(host, number)


Flood = Callable[[Host, ExitStack], None]

FLOODS: tuple[Flood, ...] = (
    idle,
    slow_heads,
    endless_heads,
    large_bodies,
    pipelined,
    sent_ahead,
    unread,
    malformed,
)


def run(host: Host, flood: Flood) -> tuple[int, int]:
    """Flood a host, and sign meanwhile and after; return its resident bytes before and during."""
    for number in range(50):
        signs(host, number)
    before = host.resident_bytes()
    with ExitStack() as stack:
        flood(host, stack)
        for number in range(50):
            signs(host, number)
        during = host.resident_bytes()
    signs(host, 1)
    return before, during


def main() -> None:
    """Flood a host in every way, and print its memory."""
    with tempfile.TemporaryDirectory() as folder, flooded_host(Path(folder)) as host:
        for flood in FLOODS:
            before, during = run(host, flood)
            print(f"{flood.__name__:14} {before / 2**20:7.1f} MiB before {during / 2**20:7.1f} MiB during")
        assert host.stop() == 0


if __name__ == "__main__":
    main()
