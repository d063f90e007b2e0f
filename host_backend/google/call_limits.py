"""Limits of a whole call to a Google service, whose library limits the time between two bytes only.

A call that is to end has its connection shut down, whatever its thread does with it: a handshake, a request, an answer.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class LimitedCall:
    """A call, of one request or several, made in one thread.

    Args:
        most_bytes: Bytes of the content of one answer.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._ended = False
        self._connection: socket.socket | None = None

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Take what this thread asks meanwhile as part of the call."""
        _thread.call = self
        try:
            yield
        finally:
            _thread.call = None
            with self._lock:
                self._release()

    def end(self) -> None:
        """Have all reading and writing of the call fail, now and later; from any thread, and after the call as well."""
        with self._lock:
            self._ended = True
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def use(self, connection: socket.socket) -> None:
        """Note the connection of the call's next request.

        Raises:
            ConnectionError: The call has ended.
        """
        with self._lock:
            if self._ended:
                raise ConnectionAbortedError("the call has ended")
            self._release()
            # A descriptor of its own: the library gives the other one away for TLS, and closes it early.
            self._connection = socket.socket(fileno=os.dup(connection.fileno()))

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Thread(threading.local):
    call: LimitedCall | None = None


_thread = _Thread()


def current() -> LimitedCall | None:
    """Return the call that this thread makes."""
    return _thread.call
