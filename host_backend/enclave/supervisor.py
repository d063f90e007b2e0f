"""What the link to the enclave is doing, and when it tries again. Pure: no socket, no task, no clock but `now`.

    connecting ──connected──▶ restoring ──whole──▶ ready ◀──whole / in part──▶ degraded
        ▲  └──lost──▶ waiting ◀──lost── any of these
        └──due──────────┘

- Every connection that was made begins a generation; a handle belongs to one of them. One that is made ready beside the
  connection in service begins its generation when it takes that one's place: the link is good all the while.
- The pause before the next attempt doubles from 0.1 to 5 s, with jitter, so that hosts do not come back in step. While
  a caller waits for the link it is never longer than `wanted_s`: a baker must not pay for the length of an outage.
- Only a generation that lasted is a success: an enclave that answers and then fails at once is not asked ever faster.
- The first attempts take little silence for a dead link; after some that ended in silence they become patient, as a
  sealer may be slow in earnest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """Times of the link, in seconds. Longer than most: a line for each."""

    #: For the connection to be made.
    connect_s: float = 5.0
    #: For a signature at the head of the line: hundreds of times what one takes, and two losses of a packet. It may be
    #: short because the same message is asked for once more on a new connection.
    sign_s: float = 0.7
    #: For a call that may ask the enclave's sealer, which may ask a cloud that retries.
    sealer_s: float = 60.0
    #: Without any answer, while keys are restored, until a new connection is tried; doubles with every attempt that
    #: ended so, once there were `impatient_attempts` of them.
    patience_s: float = 0.7
    impatient_attempts: int = 3
    #: That a request waits for the link: a block's round has seconds.
    ready_s: float = 2.0
    #: For a signature in all: waiting, asking, asking once more.
    signature_s: float = 5.0
    #: Of the pause after the first failed attempt; doubles, with jitter.
    first_pause_s: float = 0.1
    #: Of the pause after many.
    longest_pause_s: float = 5.0
    #: Of the pause while a request waits.
    wanted_s: float = 0.2
    #: That a generation must last to count as a success.
    lasting_s: float = 1.0
    #: That `serve` waits for its first keys before it listens; it listens anyway.
    start_s: float = 5.0
    #: Between two questions by which an enclave that stands still is noticed, though no client wants a signature.
    check_s: float = 5.0
    #: That the second connection is kept after its last call.
    second_idle_s: float = 30.0
    #: Between two looks at the key store because of requests for unknown keys.
    look_again_s: float = 0.2
    #: Between two tries to open keys out of service: their sealer may have been away. Also the longest pause after
    #: attempts to bring new keys in that failed: each opens all keys, perhaps by asking a cloud for each.
    reopen_s: float = 30.0
    #: Between two looks at an enclave that was refused: it may have been replaced.
    refused_s: float = 30.0
    #: After new keys were brought in, until others are: those that come one after another share a connection.
    renewal_s: float = 0.5


DEFAULT_LIMITS = LinkLimits()


class State(StrEnum):
    """What the link is doing."""

    CONNECTING = "connecting"
    RESTORING = "restoring"
    #: Every stored key can sign.
    READY = "ready"
    #: The link is good, and some keys are out of service.
    DEGRADED = "degraded"
    WAITING = "waiting"


class Event(StrEnum):
    """What may happen to the link."""

    CONNECTED = "connected"
    WHOLE = "whole"
    IN_PART = "in part"
    LOST = "lost"
    DUE = "due"


#: A pair that is not here cannot happen: it is a bug.
TABLE: Mapping[tuple[State, Event], State] = {
    (State.CONNECTING, Event.CONNECTED): State.RESTORING,
    (State.CONNECTING, Event.LOST): State.WAITING,
    (State.RESTORING, Event.WHOLE): State.READY,
    (State.RESTORING, Event.IN_PART): State.DEGRADED,
    (State.RESTORING, Event.LOST): State.WAITING,
    (State.READY, Event.WHOLE): State.READY,
    (State.READY, Event.IN_PART): State.DEGRADED,
    (State.READY, Event.LOST): State.WAITING,
    (State.DEGRADED, Event.WHOLE): State.READY,
    (State.DEGRADED, Event.IN_PART): State.DEGRADED,
    (State.DEGRADED, Event.LOST): State.WAITING,
    (State.WAITING, Event.DUE): State.CONNECTING,
}


class Supervisor:
    """The state of one link. `now` is in seconds, of any clock that only goes forward, the same one for every method.

    Args:
        limits: Its times.
        jitter: Returns a number from 0 to 1, another one each time.
        now: When the first attempt begins.
    """

    def __init__(self, limits: LinkLimits, jitter: Callable[[], float], now: float) -> None:
        self._limits = limits
        self._jitter = jitter
        self._failures = 0
        self._silences = 0
        self._began = now
        self._ready_since: float | None = None
        self._lost_at = 0.0
        self._pause_s = 0.0
        self._least_s = 0.0
        self._renewal_failures = 0
        #: What the link is doing.
        self.state = State.CONNECTING
        #: Why it is not good, or was not good last; None before anything has failed.
        self.reason: str | None = None
        #: Connections that were made.
        self.generation = 0
        #: Generations that got ready after there was none.
        self.restored_count = 0
        #: When the connection in service may be replaced next.
        self.next_renewal = now

    @property
    def serving(self) -> bool:
        """Whether signatures can be asked for."""
        return self.state in (State.READY, State.DEGRADED)

    @property
    def patience_s(self) -> float:
        """Seconds without an answer after which the next attempt is given up."""
        doublings = max(0, self._silences - self._limits.impatient_attempts + 1)
        return float(min(self._limits.patience_s * 2.0 ** min(doublings, 16), self._limits.sealer_s))

    def connected(self) -> None:
        """A connection was made: a generation begins."""
        self._step(Event.CONNECTED)
        self.generation += 1

    def restored(self, now: float, *, whole: bool) -> None:
        """Its keys are there, all of them or some."""
        self._step(Event.WHOLE if whole else Event.IN_PART)
        self._ready_since = now
        self._silences = 0
        self.restored_count += 1
        self._renewal_failures = 0
        self.next_renewal = now

    def renewed(self, now: float, *, whole: bool) -> None:
        """Another connection, with all or some keys, has taken the place of the one in service."""
        self._step(Event.WHOLE if whole else Event.IN_PART)
        self.generation += 1
        self._forgive(now)
        self._ready_since = now
        self._renewal_failures = 0
        self.next_renewal = now + self._limits.renewal_s

    def renewal_failed(self, now: float) -> None:
        """Another connection could not take its place."""
        self.next_renewal = now + self._pause(self._renewal_failures, self._limits.reopen_s)
        self._renewal_failures += 1

    def keys_changed(self, *, whole: bool) -> None:
        """A key came into service, or went out of it; means nothing while the link is not good."""
        if self.serving:
            self._step(Event.WHOLE if whole else Event.IN_PART)

    def lost(self, reason: str, now: float, *, refused: bool = False) -> None:
        """The attempt failed, or the connection ended; `refused`: as the enclave is not one that is trusted."""
        self._forgive(now)
        # Nearly all of it is all of it: a timer may be a little early.
        if not self.serving and now - self._began >= 0.9 * self.patience_s:
            self._silences += 1
        self._step(Event.LOST)
        self._pause_s = self._pause(self._failures, self._limits.longest_pause_s)
        self._failures += 1
        self._least_s = self._limits.refused_s if refused else 0.0
        self._ready_since = None
        self._lost_at = now
        self.reason = reason

    def next_attempt(self, *, wanted: bool) -> float:
        """Return when to connect again; `wanted` is whether somebody waits for the link."""
        pause_s = min(self._pause_s, self._limits.wanted_s) if wanted else self._pause_s
        return self._lost_at + max(pause_s, self._least_s)

    def hurry(self) -> None:
        """Connect again at once: what kept the link down may be mended."""
        self._pause_s = self._least_s = 0.0

    def due(self, now: float) -> None:
        """That time has come."""
        self._step(Event.DUE)
        self._began = now

    def _forgive(self, now: float) -> None:
        if self._ready_since is not None and now - self._ready_since >= self._limits.lasting_s:
            self._failures = 0

    def _pause(self, failures: int, longest_s: float) -> float:
        pause_s = min(self._limits.first_pause_s * 2.0 ** min(failures, 16), longest_s)
        return pause_s * (0.5 + self._jitter() / 2)

    def _step(self, event: Event) -> None:
        self.state = TABLE[self.state, event]
