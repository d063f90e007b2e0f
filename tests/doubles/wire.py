"""A client of the enclave's wire that shares no code with the product: a socket, a length, CBOR."""

import socket
import struct
from pathlib import Path
from types import TracebackType

import cbor2


class WireClient:
    """Calls the enclave, one call at a time or many before reading."""

    def __init__(self, address: tuple[str, int] | Path, *, initialize: bool = True) -> None:
        if isinstance(address, Path):
            self.stream = socket.socket(socket.AF_UNIX)
            self.stream.settimeout(60)
            self.stream.connect(str(address))
        else:
            self.stream = socket.create_connection(address, timeout=60)
        if initialize:
            assert self.call({"Initialize": {}}) == {"Ok": None}

    def __enter__(self) -> "WireClient":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stream.close()

    def send_frame(self, body: bytes) -> None:
        self.stream.sendall(struct.pack(">I", len(body)) + body)

    def send(self, call: object) -> None:
        self.send_frame(cbor2.dumps(call))

    def receive_frame(self) -> bytes | None:
        """Return the next frame, or None when the enclave closed the connection."""
        head = self._exactly(4)
        return None if head is None else self._exactly(struct.unpack(">I", head)[0])

    def receive(self) -> dict[str, object]:
        frame = self.receive_frame()
        assert frame is not None, "the enclave closed the connection"
        reply = cbor2.loads(frame)
        assert isinstance(reply, dict)
        return reply

    def call(self, call: object) -> dict[str, object]:
        self.send(call)
        return self.receive()

    def closed(self) -> bool:
        """Whether the enclave closes the connection without another byte."""
        try:
            return self.stream.recv(1) == b""
        except ConnectionError:
            return True

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                part = self.stream.recv(size - len(data))
            except ConnectionError:
                return None
            if not part:
                return None
            data += part
        return data
