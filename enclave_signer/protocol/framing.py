"""Frames: a four-byte big-endian length, then that many bytes.

- A frame announced longer than the limit is refused before anything is read or reserved for it. The holder of
  the stream can skip it instead, up to a bound: then nothing of it is kept, and the frames behind it are good.
- The decoder holds at most one incomplete frame plus what the last read brought.
"""

import struct

from enclave_signer.protocol.errors import BadFrame, BadMessage

#: A Tezos operation is at most 32 KiB and its bytes may come as an array of integers, two bytes each: 64 KiB.
#: Twice that leaves room for names and blobs.
MAX_FRAME_BYTES = 128 * 1024
#: The longest frame that is read away: no client's message comes near it, and more says that the stream is not in step.
MAX_READ_AWAY_BYTES = 16 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_LENGTH_BYTES = _LENGTH.size
#: How records of TLS begin: alert, handshake, and what is encrypted. Read as a length, each is hundreds of megabytes.
#: Source: RFC 8446, section 5.1.
_TLS_RECORDS = (0x1503, 0x1603, 0x1703)


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

    __slots__ = ("_away", "_buffer", "_limit_bytes", "_start", "_too_long")

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        #: What came last where all before it was taken, as it came; else all that is held.
        self._buffer: bytes | bytearray = b""
        #: Where the bytes begin that were not taken yet.
        self._start = 0
        self._limit_bytes = limit_bytes
        #: Bytes still to come of a frame that is read away.
        self._away = 0
        #: Its length, until that was reported.
        self._too_long = 0

    @property
    def pending(self) -> bool:
        """Whether bytes of a frame not yet taken are held, or one is being read away."""
        return self._start < len(self._buffer) or self._too_long > 0

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the stream."""
        if self._away:
            size = len(data)
            data = data[self._away :]
            self._away -= size - len(data)
        if self._start == len(self._buffer):
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._start]
            self._buffer += data
        else:
            # From here on what comes is added in place: a frame may come byte by byte.
            self._buffer = bytearray(self._buffer[self._start :])
            self._buffer += data
        self._start = 0

    def next_frame(self) -> bytes | None:
        """Return the body of the next frame, or None until more bytes come.

        Raises:
            BadFrame: The announced length is over the limit; close the connection, or call `read_away`.
            BadMessage: A frame was skipped; raised once, the next call goes on behind it.
        """
        if self._too_long:
            self._tell_when_away()
            return None
        buffer, body = self._buffer, self._start + _LENGTH_BYTES
        if len(buffer) < body:
            return None
        (length,) = _LENGTH.unpack_from(buffer, self._start)
        if length > self._limit_bytes:
            if length >> 16 in _TLS_RECORDS:
                raise BadFrame("the other side speaks TLS, and this one does not")
            raise BadFrame(f"a frame of {length} bytes was announced, the limit is {self._limit_bytes}")
        end = body + length
        if len(buffer) < end:
            return None
        frame = bytes(buffer[body:end])
        self._start = end
        return frame

    def read_away(self) -> None:
        """Throw the frame away that `next_frame` refused, as its bytes come.

        Raises:
            BadFrame: It is too long even for that; close the connection.
        """
        (length,) = _LENGTH.unpack_from(self._buffer, self._start)
        if length > MAX_READ_AWAY_BYTES:
            raise BadFrame(f"a frame of {length} bytes was announced, at most {MAX_READ_AWAY_BYTES} are read away")
        came = bytes(self._buffer[self._start + _LENGTH_BYTES :])
        self._buffer = b""
        self._start = 0
        self._away = self._too_long = length
        self.feed(came)

    def _tell_when_away(self) -> None:
        if not self._away:
            length, self._too_long = self._too_long, 0
            raise BadMessage(f"a frame of {length} bytes is over the limit of {self._limit_bytes}, and was thrown away")
