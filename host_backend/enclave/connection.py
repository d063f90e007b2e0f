"""One stream to the enclave: many calls in flight, written in batches, answers matched in order.

- A round trip belongs to the connection, not to its caller: a caller that leaves never disturbs it.
- A late, garbled, oversize or unexpected answer closes the connection and fails everything in flight.
"""

import asyncio
import contextvars
import math
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from enclave_signer.protocol.binding import Channel
from enclave_signer.protocol.calls import call_of
from enclave_signer.protocol.messages import Request, Result
from host_backend.addresses import Address, UnixAddress
from host_backend.enclave.loopback_peer import check_peer
from host_backend.enclave.replies import ReplyLine
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.enclave.unix_socket import connect_unix
from host_backend.errors import EnclaveUnavailable, HostError, Unanswered, reason_of
from host_backend.ip_addresses import is_loopback

if TYPE_CHECKING:
    from host_backend.enclave.tls import TlsClient

#: Seconds of silence after which the kernel asks whether the enclave still lives, and between two such questions.
KEEP_ALIVE_IDLE_S = 10
KEEP_ALIVE_INTERVAL_S = 5
#: Questions without an answer after which it takes the connection for dead.
KEEP_ALIVE_COUNT = 3
#: Seconds for the enclave's machine to take what was sent: a slow sealer is no reason for it not to.
UNACKNOWLEDGED_S = 10


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

    def __init__(self, sign_s: float, sealer_s: float, on_end: Callable[[Unanswered], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sign_s = sign_s
        self._sealer_s = sealer_s
        self._on_end = on_end
        self._line = ReplyLine()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._finishing = False
        #: What a proof is bound to; None without TLS.
        self.channel: Channel | None = None
        #: Whether the other end is on this machine.
        self.is_local = False
        #: Until when anything may be asked, and how late it is, in seconds since 1970.
        self.good_until: float = math.inf
        self._clock: Callable[[], float] = time.time
        #: Timers are armed in it: the log must not ascribe the end of the connection to the request that was first in line.
        self._context = contextvars.copy_context()

    @property
    def alive(self) -> bool:
        """Whether the connection is good."""
        return not self._line.ended

    @property
    def broken(self) -> Unanswered | None:
        """Why the connection has ended; None while it is good."""
        return self._line.broken

    @property
    def calls_in_flight(self) -> int:
        """Calls that have no answer yet."""
        return len(self._line)

    def check_peer(self, enclave_uid: int | None) -> None:
        """Pass unless another user's process answers on this machine. Call it after an answer, before a secret is sent.

        Args:
            enclave_uid: Whose process it may be, besides this user's and root's.

        Raises:
            EnclaveUnavailable: It is another user's.
            Unanswered: The connection has ended.
        """
        if self._transport is None or (end := self.broken) is not None:
            raise end or Unanswered("the connection to the enclave was closed")
        stream = self._transport.get_extra_info("socket")
        if stream.family != socket.AF_UNIX:
            check_peer(stream.getsockname(), stream.getpeername(), enclave_uid)

    async def ask(self, request: Request, limit_s: float | None = None) -> Result:
        """Return the enclave's answer.

        Args:
            request: The call.
            limit_s: Seconds for the answer; None as usual for the call.

        Raises:
            EnclaveRefused, WatermarkRejected: The enclave said no. That is final.
            Unanswered: The connection ended before an answer was read.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        if limit_s is None:
            limit_s = self._sealer_s if call_of(request).asks_sealer else self._sign_s
        frame = self._line.add(request, _Caller(future), limit_s, self._loop.time())
        if not self._unsent:
            self._loop.call_soon(self._send, context=self._context)
        self._unsent.append(frame)
        return await future

    def _send(self) -> None:
        """Write every call that was made in this pass of the event loop, at once."""
        frames, self._unsent = self._unsent, []
        if self._transport is None or self._line.ended:
            return
        if self._clock() >= self.good_until:
            self._end(Unanswered("the proof of the enclave has expired, and there was no newer one"))
            return
        if len(frames) == len(self._line):
            # Nothing but these is in flight: the time of the first one runs from now on, however late the loop is.
            self._line.begin(self._loop.time())
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
        deadline = self._line.next_deadline
        if deadline is None:
            return
        if deadline > self._loop.time():
            self._timer = self._loop.call_at(deadline, self._watch_deadline)
        else:
            # It may be this loop that was late. Both loops have read what has come by the second pass from here.
            self._loop.call_soon(self._loop.call_soon, self._judge, deadline)

    def _judge(self, deadline: float) -> None:
        """End the connection if the call at the head is late, and what had come has been read."""
        if self._line.next_deadline != deadline:
            self._arm_timer()
        elif (late := self._line.expire(self._loop.time())) is not None:
            self._end(late)

    @property
    def now(self) -> float:
        """Seconds since 1970, by the clock of its proof."""
        return self._clock()

    def use_until(self, good_until: float, clock: Callable[[], float]) -> None:
        """Ask nothing any more from this moment of a clock on."""
        self.good_until, self._clock = good_until, clock

    def close(self, reason: Unanswered | None = None) -> None:
        """End the connection; calls in flight fail."""
        self._end(reason or Unanswered("the connection to the enclave was closed"))

    def finish(self) -> None:
        """End the connection as soon as everything in flight is answered."""
        self._finishing = True
        self._close_if_finished()

    def _close_if_finished(self) -> None:
        if self._finishing and not len(self._line):
            self.close()

    def _end(self, reason: Unanswered) -> None:
        # First of all: a caller whose call failed must not find this connection when it tries again.
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(reason)
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
        if stream.family == socket.AF_UNIX:
            # The end of the process is the end of the stream.
            self.is_local = True
            return
        try:
            self._begin_tcp(stream)
        except OSError as error:
            # The other end reset it just now: the system knows nothing of it any more.
            self.connection_lost(error)

    def _begin_tcp(self, stream: socket.socket) -> None:
        self.is_local = is_loopback(stream.getpeername()[0].partition("%")[0])
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_COUNT)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_S * 1000)

    def data_received(self, data: bytes) -> None:
        """Take what came; called by asyncio."""
        try:
            self._line.feed(data, self._loop.time())
        except Unanswered as error:
            self._end(error)
        else:
            self._arm_timer()
            self._close_if_finished()

    def connection_lost(self, error: Exception | None) -> None:
        """End; called by asyncio."""
        detail = f": {error}" if error is not None else ""
        self._end(Unanswered(f"the connection to the enclave was lost{detail}"))


async def connect(
    address: Address | UnixAddress,
    *,
    tls: "TlsClient | None" = None,
    limits: LinkLimits = DEFAULT_LIMITS,
    patience_s: float | None = None,
    on_end: Callable[[Unanswered], None] | None = None,
) -> EnclaveConnection:
    """Return a new connection to the enclave; its name is resolved again.

    Args:
        address: Where the enclave is.
        tls: This host's end; None speaks without TLS.
        limits: For connecting, for signatures, and for calls that may ask the enclave's sealer.
        patience_s: Takes the place of `limits.sealer_s`, and of a longer `limits.connect_s`.
        on_end: Called once with the reason when the connection has ended, before any caller gets its error.

    Raises:
        EnclaveUnavailable: It cannot be reached, or another user's process has its Unix socket.
    """
    sealer_s = limits.sealer_s if patience_s is None else patience_s
    connect_s = min(limits.connect_s, sealer_s)
    connection = EnclaveConnection(limits.sign_s, sealer_s, on_end)
    try:
        async with asyncio.timeout(connect_s):
            if tls is None:
                await _connect_to(address, connection)
            else:
                connection.channel = await _connect_by_tls(address, connection, tls)
    except TimeoutError:
        raise EnclaveUnavailable(f"the enclave at {address} did not answer within {connect_s:g} s") from None
    except OSError as error:
        raise EnclaveUnavailable(f"the enclave at {address} cannot be reached: {reason_of(error)}") from error
    return connection


async def _connect_to(address: Address | UnixAddress, protocol: asyncio.Protocol) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(address, UnixAddress):
        await loop.create_unix_connection(lambda: protocol, sock=connect_unix(address))
    else:
        await loop.create_connection(lambda: protocol, address.host, address.port)


async def _connect_by_tls(address: Address | UnixAddress, connection: EnclaveConnection, tls: "TlsClient") -> Channel:
    from host_backend.enclave.tls import TlsProtocol  # noqa: PLC0415 -- most links need none

    protocol = TlsProtocol(tls, connection)
    await _connect_to(address, protocol)
    try:
        return await protocol.channel
    except BaseException:
        protocol.abort()
        raise
