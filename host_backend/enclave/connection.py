"""One stream to the enclave: many calls in flight, written in batches, answers matched in order.

- A round trip belongs to the connection, not to its caller: a caller that leaves never disturbs it.
- A late, garbled, oversize or unexpected answer closes the connection and fails everything in flight.
"""

import asyncio
import logging
import socket
from typing import cast

from enclave_signer.protocol.messages import (
    Generate,
    GenerateAndImport,
    Import,
    ImportUnencrypted,
    Initialize,
    Request,
    Result,
)
from host_backend.enclave.replies import ReplyLine
from host_backend.errors import EnclaveUnavailable, HostError, reason_of

logger = logging.getLogger(__name__)

#: Seconds for the connection to be made.
CONNECT_S = 5.0
#: Seconds of silence after which the kernel asks whether the enclave still lives.
KEEP_ALIVE_IDLE_S = 60
#: Seconds for a signature: a thousand times what one takes.
SIGN_S = 10.0
#: Seconds for a call that may ask the enclave's sealer, which may ask a cloud that retries.
SEALER_S = 60.0

_ASKS_SEALER = (Initialize, Import, ImportUnencrypted, Generate, GenerateAndImport)


class _Caller:
    """Hands an answer to a future, unless its owner has left."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Result]) -> None:
        self.future = future

    def answered(self, result: Result) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def failed(self, error: HostError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class EnclaveConnection(asyncio.Protocol):
    """A stream to the enclave. Use `connect`; all methods belong to the event loop's thread."""

    def __init__(self, sign_s: float = SIGN_S, sealer_s: float = SEALER_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._sign_s = sign_s
        self._sealer_s = sealer_s
        self._line = ReplyLine()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def broken(self) -> HostError | None:
        """Why the connection has ended; None while it is good."""
        return self._line.broken

    async def ask(self, request: Request) -> Result:
        """Return the enclave's answer.

        Raises:
            EnclaveRefused: The enclave said no, or answered something else.
            EnclaveUnavailable: The connection ended before the answer came.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        limit_s = self._sealer_s if isinstance(request, _ASKS_SEALER) else self._sign_s
        frame = self._line.add(request, _Caller(future), limit_s, self._loop.time())
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(frame)
        return await future

    def _send(self) -> None:
        """Write every call that was made in this pass of the event loop, at once."""
        frames, self._unsent = self._unsent, []
        if self._transport is None or self._line.broken is not None:
            return
        self._transport.write(b"".join(frames))
        self._arm_timer()

    def _arm_timer(self) -> None:
        deadline = self._line.next_deadline
        if deadline is not None and (self._timer is None or deadline < self._timer.when()):
            self._watch_deadline()

    def _watch_deadline(self) -> None:
        """Arm one timer for the call at the head; it looks again when it fires, instead of being moved per call.

        It may be early, never late: it is moved when the head must be answered before it fires.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (late := self._line.expire(self._loop.time())) is not None:
            self._end(late)
        elif (deadline := self._line.next_deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._watch_deadline)

    def close(self) -> None:
        """End the connection; what is in flight fails."""
        self._end(EnclaveUnavailable("the connection to the enclave was closed"))

    def _end(self, reason: HostError) -> None:
        self._line.end(reason)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        # uvloop's transport has the interface and not the base class.
        self._transport = cast("asyncio.Transport", transport)
        stream = transport.get_extra_info("socket")
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)

    def data_received(self, data: bytes) -> None:
        """Take what came; called by asyncio."""
        try:
            self._line.feed(data, self._loop.time())
        except HostError as error:
            self._end(error)
        else:
            self._arm_timer()

    def connection_lost(self, error: Exception | None) -> None:
        """End; called by asyncio."""
        detail = f": {error}" if error is not None else ""
        self._end(EnclaveUnavailable(f"the connection to the enclave was lost{detail}"))


async def connect(host: str, port: int, *, sign_s: float = SIGN_S, sealer_s: float = SEALER_S) -> EnclaveConnection:
    """Return a new connection to the enclave.

    Args:
        host: The enclave's address.
        port: The enclave's port.
        sign_s: Seconds for a signature.
        sealer_s: Seconds for a call that may ask the enclave's sealer.

    Raises:
        EnclaveUnavailable: It cannot be reached.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, connection = await loop.create_connection(lambda: EnclaveConnection(sign_s, sealer_s), host, port)
    except TimeoutError:
        raise EnclaveUnavailable(f"the enclave at {host}:{port} did not answer within {CONNECT_S:g} s") from None
    except OSError as error:
        raise EnclaveUnavailable(f"the enclave at {host}:{port} cannot be reached: {reason_of(error)}") from error
    return connection
