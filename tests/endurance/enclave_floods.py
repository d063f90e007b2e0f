"""How long a host that reconnects waits beside strangers at the enclave's port; a line for each kind of them.

python -m tests.endurance.enclave_floods [SECONDS OF EACH]
"""

import multiprocessing
import resource
import selectors
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import cbor2

from tests.doubles.processes import Enclave, running_local_enclave
from tests.doubles.wire import WireClient

CONNECTIONS = 250
ADDRESSES = 8
SILENT = 4096


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


INITIALIZE = frame(cbor2.dumps({"Initialize": {}}))
FLOODS = {
    "Generate Bls": frame(cbor2.dumps({"Generate": "Bls"})) * 16,
    "PublicKeyFrom junk": frame(cbor2.dumps({"PublicKeyFrom": b"TKSB" + bytes(200)})) * 64,
    "128 KiB that take long": frame(b"\xa1\x66Import\x9a" + struct.pack(">I", 131_000) + b"\xe0" * 131_000),
    "1 MiB to read away": frame(bytes(1 << 20)),
    "empty frames": bytes(4 * 1024),
}


def dial(port: int, number: int) -> socket.socket:
    stream = socket.socket()
    stream.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
    stream.settimeout(5)
    stream.connect(("127.0.0.1", port))
    stream.setblocking(False)
    return stream


def flood(port: int, kind: str, running: Event, stop: Event) -> None:
    """Send calls on all connections without end, take the answers, reconnect where a connection was closed."""
    raise_limit()
    calls = FLOODS[kind]
    selector = selectors.DefaultSelector()
    unsent: dict[socket.socket, bytes] = {}

    def add(number: int) -> None:
        try:
            stream = dial(port, number)
        except OSError:
            return
        unsent[stream] = INITIALIZE + calls
        selector.register(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, number)

    for number in range(CONNECTIONS):
        add(number)
    running.set()
    while not stop.is_set():
        for key, events in selector.select(0.1):
            stream = key.fileobj
            assert isinstance(stream, socket.socket)
            try:
                if events & selectors.EVENT_READ and not stream.recv(1 << 20):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    unsent[stream] = unsent[stream][stream.send(unsent[stream]) :] or calls
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(stream)
                stream.close()
                del unsent[stream]
                add(key.data)


def silence(port: int, running: Event, stop: Event) -> None:
    """Hold connections that say nothing."""
    raise_limit()
    with ExitStack() as stack:
        for number in range(SILENT):
            stack.enter_context(dial(port, number))
        running.set()
        stop.wait()


def raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


#: What a process of strangers runs, and its first arguments.
Crowd = tuple[Callable[..., None], tuple[object, ...]]


def crowds(what: str, port: int) -> list[Crowd]:
    """Return the strangers that a line of the result is about."""
    kind, _, silent = what.partition(", and ")
    flooding: list[Crowd] = [(flood, (port, kind))] if kind in FLOODS else []
    return [*([(silence, (port,))] if "silent" in (kind, silent) else []), *flooding]


@contextmanager
def beside(*strangers: Crowd) -> Iterator[None]:
    """Run strangers in processes of their own."""
    stop = multiprocessing.Event()
    processes = []
    try:
        for target, arguments in strangers:
            running = multiprocessing.Event()
            process = multiprocessing.Process(target=target, args=(*arguments, running, stop))
            process.start()
            processes.append(process)
            running.wait()
        yield
    finally:
        stop.set()
        for process in processes:
            process.join(5)
            process.kill()


def told(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds) * 1e3:.0f} max {max(seconds) * 1e3:.0f} ms" if seconds else "none"


def measure(enclave: Enclave, what: str, seconds: float) -> None:
    """Reconnect again and again, and sign on a connection that was there."""
    initialized: list[float] = []
    imported: list[float] = []
    signed: list[float] = []
    failed = 0
    with WireClient(enclave.address) as signer:
        made = signer.call({"GenerateAndImport": "Ed25519"})["Ok"]
        assert isinstance(made, dict)
        with beside(*crowds(what, enclave.port)):
            time.sleep(1)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                started = time.perf_counter()
                try:
                    with WireClient(enclave.address) as host:
                        initialized.append(time.perf_counter() - started)
                        assert "Ok" in host.call({"Import": made["encrypted_private_key"]})
                        imported.append(time.perf_counter() - started)
                except (AssertionError, OSError):
                    failed += 1
                started = time.perf_counter()
                assert "Ok" in signer.call({"Sign": {"handle": 0, "message": b"\3", "version": 2}})
                signed.append(time.perf_counter() - started)
                time.sleep(0.1)
    print(
        f"{what}: Initialize {told(initialized)}; a key open {told(imported)}; failed {failed} of "
        f"{len(initialized) + failed}; a signature {told(signed)}; resident {enclave.resident_bytes() >> 20} MiB",
        flush=True,
    )


def main() -> None:
    """Measure beside each kind of strangers."""
    raise_limit()
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        for what, limits in (
            ("nobody", []),
            *((kind, []) for kind in FLOODS),
            ("silent", ["--max-connections", "9000"]),
            ("Generate Bls, and silent", ["--max-connections", "9000"]),
        ):
            with running_local_enclave(Path(folder) / "sealing.key", *limits) as enclave:
                measure(enclave, what, seconds)


if __name__ == "__main__":
    main()
