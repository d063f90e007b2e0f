"""Stands between host and enclave: records what reaches it, and can hold back requests for signatures, or the answers."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

import cbor2

from tests.doubles.processes import PATIENCE_S


class Hold(Enum):
    """Messages kept back, from the next signature on and until the host's connection ends: nothing is given later."""

    NOTHING = auto()
    #: Calls of `Sign` are recorded, and the enclave never hears of them.
    REQUESTS = auto()
    #: The enclave signs, and the host never hears of it.
    REPLIES = auto()


class EnclaveProxy:
    """Takes any number of connections, one after the other or at once, each with its own one to the enclave."""

    def __init__(self, enclave: tuple[str, int]) -> None:
        self._enclave = enclave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Condition()
        self._hold = Hold.NOTHING
        self._streams: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        #: Every message that the host has asked the enclave to sign, in order, held back or not.
        self.messages: list[bytes] = []
        #: Signatures whose request or answer was held back.
        self.held = 0
        #: Called with whatever came from the host, before anything else is done with it.
        self.on_bytes: Callable[[bytes], None] = lambda _: None
        #: Called with every message that the host asks the enclave to sign, before it is passed on.
        self.on_message: Callable[[bytes], None] = lambda _: None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def hold(self, what: Hold) -> None:
        with self._lock:
            self._hold = what

    def wait(self, *, messages: int = 0, held: int = 0) -> None:
        """Return when at least so many messages were recorded and so many signatures kept back."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.messages) >= messages and self.held >= held, PATIENCE_S)

    def wait_for_silence(self) -> None:
        """Return when no host is connected: what it had sent is recorded, what it was sent is lost."""
        with self._lock:
            assert self._lock.wait_for(lambda: not self._streams, PATIENCE_S)

    def close(self) -> None:
        # Shut down first: closing alone does not wake the thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                host, _ = self._listener.accept()
                enclave = socket.create_connection(self._enclave)
                link = _Link(self, host, enclave)
                with self._lock:
                    self._streams |= {host, enclave}
                    self._threads += link.start()

    def _ended(self, *streams: socket.socket) -> None:
        for stream in streams:
            stream.close()
        with self._lock:
            self._streams -= set(streams)
            self._lock.notify_all()

    def _record(self, message: bytes) -> None:
        self.on_message(message)
        with self._lock:
            self.messages.append(message)
            self._lock.notify_all()

    def _holds(self, what: Hold) -> bool:
        with self._lock:
            if self._hold is what:
                self.held += 1
                self._lock.notify_all()
            return self._hold is what


class _Link:
    """One connection of the host and its own one to the enclave."""

    def __init__(self, proxy: EnclaveProxy, host: socket.socket, enclave: socket.socket) -> None:
        self._proxy = proxy
        self._host = host
        self._enclave = enclave
        self._lock = threading.Lock()
        # Whether each call that the enclave has not answered is a signature.
        self._asked: list[bool] = []
        self._open = 2

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=run, daemon=True) for run in (self._requests, self._answers)]
        for thread in threads:
            thread.start()
        return threads

    def _requests(self) -> None:
        try:
            for frame in _frames(self._host, self._proxy.on_bytes):
                call = cbor2.loads(frame[4:])
                signs = "Sign" in call
                if signs:
                    self._proxy._record(call["Sign"]["message"])
                if not (signs and self._proxy._holds(Hold.REQUESTS)):
                    with self._lock:
                        self._asked.append(signs)
                    self._enclave.sendall(frame)
        except OSError:
            pass
        finally:
            self._end()

    def _answers(self) -> None:
        try:
            for frame in _frames(self._enclave, lambda _: None):
                with self._lock:
                    signed = self._asked.pop(0)
                if not (signed and self._proxy._holds(Hold.REPLIES)):
                    self._host.sendall(frame)
        except OSError:
            pass
        finally:
            self._end()

    def _end(self) -> None:
        for stream in (self._host, self._enclave):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            self._proxy._ended(self._host, self._enclave)


def _frames(stream: socket.socket, on_bytes: Callable[[bytes], None]) -> Iterator[bytes]:
    """Yield whole frames, length included, until the stream ends."""
    data = b""
    while part := stream.recv(65536):
        on_bytes(part)
        data += part
        while len(data) >= 4 and len(data) >= 4 + struct.unpack(">I", data[:4])[0]:
            end = 4 + struct.unpack(">I", data[:4])[0]
            yield data[:end]
            data = data[end:]


@contextmanager
def enclave_proxy(enclave: tuple[str, int]) -> Iterator[EnclaveProxy]:
    """Listen on a free port."""
    proxy = EnclaveProxy(enclave)
    try:
        yield proxy
    finally:
        proxy.close()
