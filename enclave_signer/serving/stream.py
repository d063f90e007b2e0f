"""What a connection knows of the socket below it. A stream never blocks: it says "nothing yet", and can be waited for.

- The waits speak of `receive` and `send`, not of a socket: a stream that decrypts returns from `wait_readable` at once
  while it holds bytes that it has read already, and waits for either direction where its protocol needs that.
- A handshake is part of the first `receive`: until it has ended there is nothing yet. So it is under the time limit of
  those who have not initialized, and its connection has a place from the beginning.
"""

import socket
from collections.abc import Awaitable
from typing import Protocol

import trio

from enclave_signer.protocol.binding import Channel
from enclave_signer.rights import Rights
from enclave_signer.serving.peers import Peer

#: Bytes of a first read: all that a host with few requests sends at once. The buffer of a read is cut to what has come, and a
#: large one leaves a hole in the heap each time; only who sends so much is given one.
FIRST_READ_BYTES = 4096


class Stream(Protocol):
    """Bytes to and from one client. Every call but `close` may raise `OSError`: the client is lost."""

    @property
    def peer(self) -> Peer:
        """Who is on the other side."""
        ...

    @property
    def private(self) -> bool:
        """Whether no other machine can read this stream."""
        ...

    @property
    def channel(self) -> Channel | None:
        """What a proof can be bound to; None where there is nothing, or before the end of a handshake."""
        ...

    @property
    def rights(self) -> Rights | None:
        """What the client may do; None: everything, where there are no rules, or before the end of a handshake."""
        ...

    @property
    def greeting(self) -> bool:
        """Whether a handshake is still to be ended: `receive` may take as long as a signature then."""
        ...

    def receive(self, most: int) -> bytes | None:
        """Return up to `most` bytes of what has come, nothing at the end of the stream, None when there is nothing yet.

        There may be more at once: what decrypts does so in parts.
        """
        ...

    def send(self, data: bytes | memoryview) -> int:
        """Send a beginning of `data`; return how many bytes were taken, 0 when there is no room yet."""
        ...

    def wait_readable(self) -> Awaitable[None]:
        """Wait until `receive` may return something."""
        ...

    def wait_writable(self) -> Awaitable[None]:
        """Wait until `send` may take something."""
        ...

    def shutdown(self) -> None:
        """Tell the other side that nothing more will be sent."""
        ...

    def close(self) -> None:
        """End it; what was sent still arrives."""
        ...


class PlainStream:
    """A connected socket as it is: TCP or Unix.

    Args:
        connected: The socket, non-blocking; the stream closes it.
        peer: Who is on the other side.
        private: Whether no other machine can read the stream.
    """

    __slots__ = ("_socket", "peer", "private")

    channel = None
    rights: Rights | None = None
    greeting = False

    def __init__(self, connected: socket.socket, peer: Peer, *, private: bool = True) -> None:
        self._socket = connected
        self.peer = peer
        self.private = private

    def receive(self, most: int) -> bytes | None:
        """Return what has come; see `Stream`."""
        try:
            # Asked for every call: `min` would cost 0.2 µs.
            data = self._socket.recv(most if most < FIRST_READ_BYTES else FIRST_READ_BYTES)  # noqa: FURB136
        except (BlockingIOError, InterruptedError):
            return None
        if len(data) == FIRST_READ_BYTES < most:
            data += self._rest(most - FIRST_READ_BYTES)
        return data

    def _rest(self, most: int) -> bytes:
        try:
            return self._socket.recv(most)
        except (BlockingIOError, InterruptedError):
            return b""

    def send(self, data: bytes | memoryview) -> int:
        """Send what there is room for; see `Stream`."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def wait_readable(self) -> Awaitable[None]:
        """Wait for bytes, or the end."""
        return trio.lowlevel.wait_readable(self._socket)  # noqa: ASYNC105 -- awaited by the caller: one coroutine less per call

    def wait_writable(self) -> Awaitable[None]:
        """Wait for room."""
        return trio.lowlevel.wait_writable(self._socket)  # noqa: ASYNC105 -- as above

    def shutdown(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
