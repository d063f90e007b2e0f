"""Frames: a four-byte big-endian length, then that many bytes.

- A frame announced longer than the limit is refused before anything is read or reserved for it.
- The decoder holds at most one incomplete frame plus what the last read brought.
"""

import struct

from enclave_signer.protocol.errors import BadFrame

#: A Tezos operation is at most 32 KiB and its bytes may come as an array of integers, two bytes each: 64 KiB.
#: Twice that leaves room for names and blobs.
MAX_FRAME_BYTES = 128 * 1024

_LENGTH = struct.Struct(">I")


def encode_frame(body: bytes) -> bytes:
    """Return `body` with its length before it.

    Raises:
        ValueError: The body is longer than `MAX_FRAME_BYTES`; a bug of the caller.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Turns a stream of bytes, however it was cut, into frames."""

    __slots__ = ("_buffer", "_limit_bytes", "_start")

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._limit_bytes = limit_bytes

    @property
    def pending(self) -> bool:
        """Whether bytes of a frame not yet taken are held."""
        return self._start < len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the stream."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the body of the next frame, or None until more bytes come.

        Raises:
            BadFrame: The announced length is over the limit; close the connection.
        """
        body = self._start + _LENGTH.size
        if len(self._buffer) < body:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, self._start)
        if length > self._limit_bytes:
            raise BadFrame(f"a frame of {length} bytes was announced, the limit is {self._limit_bytes}")
        end = body + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[body:end])
        self._start = end
        return frame
