"""One client's stream: read, decode, run calls that wait side by side, answer all in order, write once.

- A turn takes at most `max_in_flight` calls, and begins none after its part of the loop's time (`pace`); then the other
  connections have theirs (`turns`).
- Nothing is read while a turn is being answered: a client that does not read its answers stops itself.
- A client has a time limit until `Initialize` succeeded, for the rest of a frame it began, and for taking its answers;
  an initialized, idle connection has one only if `idle_s` says so, as closing it closes the keys opened on it.
- When a time limit is over, what has come by then is read once more: perhaps it was the loop that was late.
- A frame that is too long is read away and answered `Err`: behind a peer that never reconnects, one client's frame must
  not end the session of all. A stranger's, before `Initialize`, ends the connection.
- A stop comes between two turns: all calls that were read are answered before it.
- Whatever goes wrong here ends this connection only.
"""

import logging
import math
from collections.abc import Callable

import trio

from enclave_signer.config import Limits
from enclave_signer.protocol.errors import BadFrame, BadMessage
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, FrameDecoder
from enclave_signer.serving.fairness import Pace
from enclave_signer.serving.stream import Stream
from enclave_signer.serving.turn import Turn
from enclave_signer.serving.workers import Workers
from enclave_signer.session import Session

logger = logging.getLogger(__name__)


class _TooSlow(Exception):
    """The client is in breach of a time limit."""


#: Handles given back between two looks at the clock: some 50 µs.
_HANDLES_PER_STEP = 64


class Connection:
    """Serves one client until either side ends. Longer than most: a field for each state of a stream and its limits."""

    def __init__(
        self,
        stream: Stream,
        session: Session,
        workers: Workers,
        pace: Pace,
        limits: Limits,
        on_long_frame: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._session = session
        self._pace = pace
        self._turn = Turn(session, workers, pace)
        self._limits = limits
        self._on_long_frame = on_long_frame
        # Nothing is read while a whole frame waits, so the buffer is smaller than a frame and one read.
        self._read_bytes = limits.buffer_bytes - MAX_FRAME_BYTES
        self._frames = FrameDecoder()
        self._scope = trio.CancelScope()
        self._opened = trio.current_time()
        #: The time limit that is over, and after which what had come was read.
        self._missed: float | None = None
        self._frame_began: float | None = None
        #: Whether something was read since the last turn.
        self._has_read = False
        self._waiting = False
        self._in_turn = False
        self._stopping = False

    @property
    def silent_since(self) -> float | None:
        """Since when nothing was asked; None while a call is under way, and while keys are open."""
        return None if self._in_turn or self._session.holds_keys else self._pace.began

    async def serve(self) -> None:
        """Serve the client; returns when it is gone or in breach of a limit, whatever happened."""
        try:
            with self._scope:
                await self._serve()
        except _TooSlow:
            logger.debug("connection closed: too slow")
        except BadFrame as error:
            logger.debug("connection closed: %s", error)
        except OSError as error:
            logger.debug("connection lost: %s", error.strerror)
        except Exception:
            logger.exception("connection closed because of a bug")
        finally:
            self._stream.close()
            self._turn.leave()
            await self._drop_keys()

    def stop(self) -> None:
        """Serve the calls already read, then end."""
        self._stopping = True
        if self._waiting:
            self._scope.cancel()

    async def _serve(self) -> None:
        if self._stream.greeting:
            # Its first bytes have often come with it, and begin a handshake: that is work.
            await self._pace.turn()
        # A newcomer's first call has often come with it.
        self._frames.feed(self._stream.receive(self._read_bytes) or b"")
        while True:
            frame = self._next_frame()
            if frame is not None:
                await self._take_turn(frame)
            elif self._stopping or not await self._read():
                break
        if self._stopping:
            await self._part()

    async def _take_turn(self, frame: bytes | BadMessage) -> None:
        """Answer calls that have come, beginning with that in a frame."""
        self._frame_began = None
        self._has_read = False
        await self._pace.turn()
        self._in_turn = True
        turn = self._turn
        if not turn.sign(frame):
            await turn.take(frame)
        if self._frames.pending:
            await self._take_following(turn)
        if turn.unfinished:
            await turn.finish()
        answers = turn.answers()
        sent = self._stream.send(answers)
        if sent < len(answers):
            await self._write(memoryview(answers)[sent:])
        if self._frames.pending:
            # What has come already must not go ahead of the other connections.
            await trio.lowlevel.checkpoint()
        self._in_turn = False

    async def _take_following(self, turn: Turn) -> None:
        for _ in range(self._limits.max_in_flight - 1):
            if not self._frames.pending or self._pace.over or (frame := self._following_frame()) is None:
                break
            if not turn.sign(frame):
                await turn.take(frame)

    def _next_frame(self) -> bytes | BadMessage | None:
        """Return a frame, or what became of one that was too long; None when there is none yet."""
        try:
            return self._frames.next_frame()
        except BadMessage as error:
            self._on_long_frame()
            return error
        except BadFrame:
            if not self._session.ready:
                raise
        self._frames.read_away()
        return self._next_frame()

    def _following_frame(self) -> bytes | BadMessage | None:
        try:
            return self._next_frame()
        except BadFrame:
            # Met again at the next turn, when the calls before it are answered.
            return None

    async def _read(self) -> bool:
        """Wait for bytes and take them; return False at the end of the stream and at a stop."""
        deadline = self._reading_deadline()
        self._waiting = True
        if deadline == math.inf:
            # A scope costs as much as a call, and most of the time there is no limit.
            await self._stream.wait_readable()
            in_time = True
        else:
            in_time = await self._until_readable(deadline)
        self._waiting = False
        if self._has_read or self._stream.greeting:
            # The rest of a large frame, or of one that is read away: to take it is work as well. So is a handshake.
            await self._pace.turn()
        if self._stopping:
            return False
        self._has_read = True
        data = self._stream.receive(self._read_bytes)
        if data:
            self._frames.feed(data)
            if not in_time:
                self._take_the_rest()
        elif data is None and not in_time:
            raise _TooSlow
        return data != b""

    def _take_the_rest(self) -> None:
        """Take all that has come, at a last look: a whole frame, if that is there."""
        left = MAX_FRAME_BYTES
        while left > 0 and (data := self._stream.receive(left)):
            self._frames.feed(data)
            left -= len(data)

    async def _until_readable(self, deadline: float) -> bool:
        """Wait for bytes; return whether that was in time. Of each time limit that is over this tells once."""
        if deadline == self._missed:
            raise _TooSlow
        with trio.CancelScope(deadline=deadline):
            await self._stream.wait_readable()
        if trio.current_time() < deadline:
            return True
        self._missed = deadline
        return False

    def _reading_deadline(self) -> float:
        frame = self._frame_deadline()
        if not self._session.ready:
            return min(frame, self._opened + self._limits.initialize_s)
        if self._limits.idle_s and frame == math.inf:
            return trio.current_time() + self._limits.idle_s
        return frame

    def _frame_deadline(self) -> float:
        if self._frames.pending:
            # The clock of a frame starts with its first bytes; the following ones do not move it.
            if self._frame_began is None:
                self._frame_began = trio.current_time()
            return self._frame_began + self._limits.frame_s
        return math.inf

    async def _write(self, view: memoryview) -> None:
        with trio.move_on_after(self._limits.write_s):
            while view:
                await self._stream.wait_writable()
                view = view[self._stream.send(view) :]
        # Once more: it may be the loop that was late.
        if view and self._stream.send(view) < len(view):
            raise _TooSlow

    async def _part(self) -> None:
        """Let the last answers reach a client that has sent more: closing on unread bytes would take them back."""
        data = self._stream.receive(self._read_bytes)
        if not data:
            return
        self._stream.shutdown()
        with trio.move_on_after(self._limits.write_s):
            while data != b"":
                await self._stream.wait_readable()
                data = self._stream.receive(self._read_bytes)

    async def _drop_keys(self) -> None:
        # There may be thousands of handles, also when the connection was cancelled.
        with trio.CancelScope(shield=True):
            while self._session.close(_HANDLES_PER_STEP):
                await self._pace.give_way()
