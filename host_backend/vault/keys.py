"""A key's life in one vault, as a table. Pure: no task, no clock but `now`.

    stored ──try──▶ trying ──opened──▶ open
       ▲              ├──unanswered──▶ waiting      tried again soon, one key first: the sealer is away
       │              ├──not released▶ unreleased   tried again soon: somebody has to allow it
    changed,          ├──refused,    ▶ quarantined  tried again seldom, ever more so
       │              │  denied
    retried           └──corrupt─────▶ quarantined  not tried again until it is changed

- A connection that ends while a key is tried leaves it as it was.
- What opens all keys on a new connection tells of the same events, whatever state a key is in.
- A key that has opened once is known for good: its public key can be shown while it is out of service.
- A key that is not released yet is no fault: all is as it should be without it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import public_key_hash
from host_backend.errors import EnclaveRefused


@dataclass(frozen=True, slots=True)
class VaultKey:
    """A key that was opened at least once: its hash, and its public key."""

    pkh: str
    public_key: PublicKey
    verifying_key: VerifyingKey = field(compare=False)


def opened_key(public_key: PublicKey, pkh: str) -> VaultKey:
    """Return a key that the enclave says it has opened.

    Raises:
        EnclaveRefused: It is another key than that of the hash, or none.
    """
    actual = public_key_hash(public_key)
    if actual != pkh:
        raise EnclaveRefused(f"its blob holds another key, {actual}")
    try:
        verifying_key = curve(public_key.key_type).parse_public_key(public_key.data)
    except CurveError as error:
        raise EnclaveRefused(f"the enclave's public key is not valid: {error}") from None
    return VaultKey(pkh, public_key, verifying_key)


class KeyState(StrEnum):
    """Where a key is in its life."""

    STORED = "stored"
    TRYING = "trying"
    OPEN = "open"
    WAITING = "waiting"
    UNRELEASED = "unreleased"
    QUARANTINED = "quarantined"


class KeyEvent(StrEnum):
    """What may happen to a key."""

    CHANGED = "changed"
    RETRIED = "retried"
    TRY = "try"
    OPENED = "opened"
    UNANSWERED = "unanswered"
    NOT_RELEASED = "not released"
    REFUSED = "refused"
    DENIED = "denied"
    CORRUPT = "corrupt"


#: Events that lead to one state from wherever a key is.
_FROM_ANYWHERE = {
    KeyEvent.CHANGED: KeyState.STORED,
    KeyEvent.OPENED: KeyState.OPEN,
    KeyEvent.UNANSWERED: KeyState.WAITING,
    KeyEvent.NOT_RELEASED: KeyState.UNRELEASED,
    KeyEvent.REFUSED: KeyState.QUARANTINED,
    KeyEvent.DENIED: KeyState.QUARANTINED,
    KeyEvent.CORRUPT: KeyState.QUARANTINED,
}
#: A pair that is not here changes nothing: a connection may tell what became of a key that was tried elsewhere.
TABLE: Mapping[tuple[KeyState, KeyEvent], KeyState] = {
    **{(state, event): to for event, to in _FROM_ANYWHERE.items() for state in KeyState},
    **{(state, KeyEvent.TRY): KeyState.TRYING for state in KeyState if state is not KeyState.OPEN},
    (KeyState.WAITING, KeyEvent.RETRIED): KeyState.STORED,
    (KeyState.UNRELEASED, KeyEvent.RETRIED): KeyState.STORED,
    (KeyState.QUARANTINED, KeyEvent.RETRIED): KeyState.STORED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Seconds before a key is tried again."""

    #: After no answer; doubles up to `longest_unanswered_s`: a sealer that is back must soon be noticed.
    unanswered_s: float = 0.1
    longest_unanswered_s: float = 3.0
    #: Where a key is not released yet: the enclave itself remembers that for longer, and does not ask.
    unreleased_s: float = 3.0
    #: After a refusal; doubles up to `longest_refused_s`: somebody has to grant something first.
    refused_s: float = 30.0
    longest_refused_s: float = 1800.0


DEFAULT_PAUSES = Pauses()


@dataclass(slots=True)
class _Life:
    blobs: tuple[bytes, ...]
    state: KeyState = KeyState.STORED
    #: What it was before it was tried.
    before: KeyState = KeyState.STORED
    refusals: int = 0
    try_again_at: float = math.inf
    #: Why it did not open when it was tried last.
    trouble: str | None = None
    #: What opened last; may have been replaced since by something that does not.
    good: bytes | None = None


class Keys:
    """The keys of one vault.

    Attributes:
        opened: Keys that were opened at least once, in the order in which that happened.
        waiting: Hashes of keys that got no answer, and why; the next one to be tried first.
        unreleased: Hashes of keys that are not released yet, and why.
        quarantined: Hashes of keys that were refused or are damaged, and why.
        lapsed: Those that are open on the connection in service, and may not be used until they are released again.

    Args:
        pauses: Before a key is tried again.
        jitter: Returns a number from 0 to 1, another one each time.
    """

    def __init__(self, pauses: Pauses, jitter: Callable[[], float]) -> None:
        self._pauses = pauses
        self._jitter = jitter
        self._lives: dict[str, _Life] = {}
        #: Keys whose state is STORED.
        self._fresh: dict[str, None] = {}
        self._silences = 0
        self._silent_until = -math.inf
        self.opened: dict[str, VaultKey] = {}
        self.waiting: dict[str, str] = {}
        self.unreleased: dict[str, str] = {}
        self.quarantined: dict[str, str] = {}
        self.lapsed: set[str] = set()

    def __len__(self) -> int:
        """Return how many keys are stored."""
        return len(self._lives)

    def __contains__(self, pkh: str) -> bool:
        """Tell whether a key is stored, opened or not."""
        return pkh in self._lives

    def __iter__(self) -> Iterator[str]:
        """Yield the hashes of all keys, in stored order."""
        return iter(self._lives)

    def blobs(self, pkh: str) -> tuple[bytes, ...]:
        """Return the sealed forms of a stored key."""
        return self._lives[pkh].blobs

    def state(self, pkh: str) -> KeyState:
        """Return where a stored key is in its life."""
        return self._lives[pkh].state

    def opens(self, pkh: str) -> bool:
        """Tell whether a key is stored, and is known to open as it is stored."""
        life = self._lives.get(pkh)
        return life is not None and life.state is KeyState.OPEN

    def out_of_service(self, pkh: str) -> str | None:
        """Return why a key is out of service, also while it is tried again; None when it is not known to be."""
        return self.waiting.get(pkh) or self.unreleased.get(pkh) or self.quarantined.get(pkh)

    @property
    def out(self) -> dict[str, str]:
        """All keys that are out of service, and why."""
        return {**self.waiting, **self.unreleased, **self.quarantined}

    @property
    def ready(self) -> tuple[VaultKey, ...]:
        """The keys that are not out of service, in the order in which they were opened first."""
        return tuple(key for pkh, key in self.opened.items() if self.out_of_service(pkh) is None)

    @property
    def ready_count(self) -> int:
        """How many keys are not out of service; where none is, this takes no time, however many there are."""
        return len(self.opened) - sum(pkh in self.opened for pkh in self.out)

    def good(self, pkh: str) -> bytes | None:
        """Return the sealed form of a stored key that opened last; None when none ever did."""
        return self._lives[pkh].good

    def trouble(self, pkh: str) -> str | None:
        """Return why a key did not open when it was tried last; None when it did, or never was."""
        return self._lives[pkh].trouble

    @property
    def whole(self) -> bool:
        """Whether no key is out of service, but for those that are not released yet."""
        return not self.waiting and not self.quarantined

    # What happens

    def store(self, pkh: str, blobs: tuple[bytes, ...]) -> None:
        """Note the stored entry of a key; it is tried if that is news."""
        life = self._lives.get(pkh)
        if life is None:
            self._lives[pkh] = _Life(blobs)
            self._fresh[pkh] = None
        elif life.blobs != blobs:
            life.blobs = blobs
            life.refusals = 0
            self._step(pkh, KeyEvent.CHANGED)

    def begin(self, pkh: str) -> None:
        """It is tried."""
        life = self._lives[pkh]
        if life.state is not KeyState.TRYING:
            life.before = life.state
        self._step(pkh, KeyEvent.TRY)

    def abandon(self, pkh: str) -> None:
        """The connection on which it was tried has ended: it is as it was."""
        life = self._lives[pkh]
        if life.state is KeyState.TRYING:
            life.state = life.before
            if life.state is KeyState.STORED:
                self._fresh[pkh] = None

    def put_behind(self, tried: Sequence[str]) -> None:
        """Let the first of these keys that is still to be tried be tried after all others."""
        first = next((pkh for pkh in tried if pkh in self._fresh or pkh in self.waiting), None)
        if first in self._fresh:
            self._fresh[first] = self._fresh.pop(first)
        elif first is not None:
            self.waiting[first] = self.waiting.pop(first)

    def retry(self) -> None:
        """Somebody has mended something, perhaps: try whatever is out of service now."""
        for pkh in (*self.waiting, *self.unreleased, *self.quarantined):
            self._lives[pkh].refusals = 0
            self._step(pkh, KeyEvent.RETRIED)
        self._answered()

    def note_opened(self, key: VaultKey, blob: bytes | None = None) -> None:
        """It opens, by this blob."""
        life = self._lives[key.pkh]
        if key.pkh in self.waiting or life.state is KeyState.TRYING:
            self._answered()
        life.refusals, life.trouble, life.good = 0, None, blob
        self._step(key.pkh, KeyEvent.OPENED)
        self.opened[key.pkh] = key
        self.lapsed.discard(key.pkh)

    def note_unanswered(self, pkh: str, reason: str, now: float) -> None:
        """What seals it gave no answer."""
        if now >= self._silent_until:
            # Many keys at once are one silence.
            self._silent_until = now + self._pause(
                self._silences, self._pauses.unanswered_s, self._pauses.longest_unanswered_s
            )
            self._silences += 1
        self._step(pkh, KeyEvent.UNANSWERED)
        # Behind the others: this one may be the only one that gets none.
        self.waiting[pkh] = self._lives[pkh].trouble = reason

    def note_unreleased(self, pkh: str, reason: str, now: float) -> None:
        """It is not released yet, or not any more."""
        life = self._lives[pkh]
        if pkh in self.waiting:
            self._answered()
        life.try_again_at = now + self._pause(0, self._pauses.unreleased_s, self._pauses.unreleased_s)
        self._step(pkh, KeyEvent.NOT_RELEASED)
        self.unreleased[pkh] = life.trouble = reason

    def note_refused(self, pkh: str, reason: str, now: float, event: KeyEvent = KeyEvent.REFUSED) -> None:
        """What seals it says no."""
        life = self._lives[pkh]
        life.try_again_at = now + self._pause(life.refusals, self._pauses.refused_s, self._pauses.longest_refused_s)
        life.refusals += 1
        self._quarantine(pkh, event, reason)

    def note_corrupt(self, pkh: str, reason: str) -> None:
        """It is not what was sealed."""
        self._lives[pkh].try_again_at = math.inf
        self._quarantine(pkh, KeyEvent.CORRUPT, reason)

    def _quarantine(self, pkh: str, event: KeyEvent, reason: str) -> None:
        if self._lives[pkh].state is KeyState.TRYING or pkh in self.waiting:
            self._answered()
        self._step(pkh, event)
        self.quarantined[pkh] = self._lives[pkh].trouble = reason

    def _answered(self) -> None:
        self._silences, self._silent_until = 0, -math.inf

    def _step(self, pkh: str, event: KeyEvent) -> None:
        life = self._lives[pkh]
        after = TABLE.get((life.state, event))
        if after is None:
            return
        life.state = after
        if after is KeyState.TRYING:
            # Why it is out of service stays known until it is known better.
            self._fresh.pop(pkh, None)
            return
        for table in (self._fresh, self.waiting, self.unreleased, self.quarantined):
            table.pop(pkh, None)
        if after is KeyState.STORED:
            self._fresh[pkh] = None

    def _pause(self, times: int, first_s: float, longest_s: float) -> float:
        return min(first_s * 2.0 ** min(times, 32), longest_s) * (0.5 + self._jitter() / 2)

    # Keys that are due

    def due(self, now: float) -> list[str]:
        """Return the keys to be tried now."""
        later = (*self.unreleased, *self.quarantined)
        due = [*self._fresh, *(pkh for pkh in later if self._is_due(pkh, now))]
        if self.waiting and now >= self._silent_until:
            waiting = [pkh for pkh in self.waiting if self._lives[pkh].state is KeyState.WAITING]
            # After a silence one key is asked for first.
            due += waiting[:1] if self._silences else waiting
        return due

    def _is_due(self, pkh: str, now: float) -> bool:
        life = self._lives[pkh]
        return life.state in (KeyState.UNRELEASED, KeyState.QUARANTINED) and now >= life.try_again_at

    def next_due(self, now: float) -> float:
        """Return when a key that waits is to be tried next, now at the earliest; infinity when none does."""
        waiting = [self._silent_until] if self.waiting else []
        return max(now, min((*waiting, *(self._lives[pkh].try_again_at for pkh in self.unreleased)), default=math.inf))
