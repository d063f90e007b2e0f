"""The keys of one vault: stored, open on which connection, or out of service.

- Every public key that the enclave gives is checked against the stored hash.
- A blob that does not open, or opens as another key, takes its own key out of service, never the vault. Whether and
  when it is tried again: `keys`.
- What comes out of a blob is compared with the hash: `opening`.
- A key-encryption key that gives no answer delays only the keys sealed under it: `silent_keks`.
- What appears in the store while the vault is open, added by any program, is tried out on the second connection. What opens
  there waits for the next connection for signatures, on which all keys are opened before it is in service.
- A connection that opens less than the one in service holds does not take its place. A key that is not known to open is not
  asked of it.
- A key whose release has ended stays open on the connection in service, and is not used until it was released again on
  the second one. A key that is not released keeps no new connection out of service.
- A key whose entry was replaced by something that does not open is out of service from the next start of the host on:
  until then it is opened, where all keys are, by what was stored before.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

from host_backend.enclave.client import EnclaveClient, GetConnection, SigningClient
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, HostError, Late, NotReleased, ReleaseDenied
from host_backend.keystore.base import KeyStore
from host_backend.log import fields
from host_backend.vault.keys import DEFAULT_PAUSES, KeyEvent, Keys, Pauses, VaultKey
from host_backend.vault.opening import Opened, Opener, Unopened, unopened_by
from host_backend.vault.reading import StoreReader, with_pauses
from host_backend.vault.silent_keks import SilentKeks

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Imports in flight while keys are restored: enough to hide a cloud's latency, few enough that none waits too long.
RESTORE_IN_FLIGHT = 64


class Keyring:
    """The keys of one vault.

    Args:
        vault: Its name, for the log.
        store: Where the blobs are kept.
        second: Gives the connection for calls that may leave the enclave.
        separate: Gives a connection that no other task uses.
        on_key: Called with every key when it comes into service for the first time.
        pauses: Before a key that did not open is tried again.
        jitter: Returns a number from 0 to 1, another one each time.
        on_restored: Called after each key of a restore with the number done, and the total.
    """

    def __init__(
        self,
        vault: str,
        store: KeyStore,
        second: GetConnection,
        separate: GetConnection,
        on_key: Callable[[VaultKey], None],
        *,
        pauses: Pauses = DEFAULT_PAUSES,
        jitter: Callable[[], float] = random.random,
        on_restored: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self._vault = vault
        self._second = second
        self._on_key = on_key
        self._on_restored = on_restored
        self._now = asyncio.get_running_loop().time
        self._reader = StoreReader(vault, store)
        self._announced: set[str] = set()
        self._trying_problem: str | None = None
        #: Seconds between two looks at the store.
        self.look_s = store.look_s
        #: The state of every stored key.
        self.keys = Keys(pauses, jitter)
        self._opener = Opener(self.keys.opened, separate)
        self._silent = SilentKeks()
        #: Why the store could not be read last; None when it could.
        self.store_problem: str | None = None
        #: Which keys were stored once and are no more; None when all still are.
        self.gone_problem: str | None = None
        #: Keys that the present restoring, or the last one, has dealt with.
        self.restored_count = 0

    @property
    def damaged(self) -> Mapping[str, str]:
        """Stored entries that are not keys, by name, each with its fix."""
        return self._reader.damaged

    async def load(self) -> None:
        """Read the store if it has changed; what was stored once stays known.

        Raises:
            ConfigError, StoreUnavailable: It cannot be read.
        """
        blobs = await self._reader.read()
        if blobs is None:
            return
        async for pkh, now in with_pauses(blobs.items()):
            self.keys.store(pkh, now)
        self._note_gone([pkh for pkh in self.keys if pkh not in blobs and pkh not in self.damaged])

    def _note_gone(self, pkhs: list[str]) -> None:
        problem = None
        if pkhs:
            more = f" and {len(pkhs) - 1} more" if len(pkhs) > 1 else ""
            problem = f"{pkhs[0]}{more} not stored any more, and lost when this host ends: put the entries back"
        if problem is not None and problem != self.gone_problem:
            logger.error("%s", problem, extra=fields(vault=self._vault))
        self.gone_problem = problem

    def forget_revision(self) -> None:
        """Have the whole store read at the next look, even if it says that nothing has changed."""
        self._reader.forget_revision()

    async def look_again(self) -> None:
        """Read the store if it has changed; trouble is noted and reported, and the earlier state stays good."""
        try:
            await self.load()
        except HostError as error:
            if self.store_problem != str(error):
                self.store_problem = str(error)
                logger.error("no new keys are seen: %s", error, extra=fields(vault=self._vault))  # noqa: TRY400 -- no bug
        else:
            self.store_problem = None

    async def restore(self, client: EnclaveClient, serving: SigningClient | None = None) -> bool:
        """Open stored blobs on a new connection; return whether all keys are in service when it is.

        Args:
            client: The new connection.
            serving: The connection in service, which it will replace; None when there is none. Then every blob is
                opened but those that would have the others wait; else only those that are open on it, or are known to
                open.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The connection ended, its answers do not belong to its calls, or it does
                not hold what the one in service holds. Nothing has changed then.
        """
        stored = {pkh: self.keys.blobs(pkh) for pkh in self.keys if serving is None or self._stays(pkh, serving)}
        silent = self._silent.left_out(stored) if serving is None else {}
        outcomes = await self._opened(client, {pkh: stored[pkh] for pkh in stored if pkh not in silent}, serving)
        _check_not_all_doubtful(outcomes)
        _check_holds_as_much(outcomes, serving, client)
        for pkh, kek in silent.items():
            outcomes[pkh] = Unopened(f"no answer in time for keys sealed under {kek}", KeyEvent.UNANSWERED)
        async for pkh, blobs in with_pauses(stored.items()):
            outcome = outcomes[pkh]
            if self.keys.blobs(pkh) == blobs:
                self._note(pkh, outcome)
            if isinstance(outcome, Opened):
                self._announce(outcome.key)
        self.keys.lapsed = {pkh for pkh in self.keys.lapsed if client.holds(pkh)}
        return self.keys.whole

    async def _opened(
        self, client: EnclaveClient, stored: Mapping[str, tuple[bytes, ...]], serving: SigningClient | None
    ) -> dict[str, Opened | Unopened]:
        """Return what became of each key that was asked for on a new connection."""
        outcomes: dict[str, Opened | Unopened] = {}
        if serving is None:
            self.restored_count = 0

        async def open_one(pkh: str) -> None:
            outcomes[pkh] = await self._opener.open(client, pkh, stored[pkh])
            good = self.keys.good(pkh)
            if good is not None and good not in stored[pkh] and not client.holds(pkh):
                await self._opener.open(client, pkh, (good,))
            if serving is None:
                self.restored_count += 1
                self._on_restored(self.restored_count, len(stored))

        try:
            await _side_by_side(open_one, stored)
        except Late:
            first = next((pkh for pkh in stored if pkh not in outcomes), None)
            if serving is None and first is not None:
                self._silent.note_silent(stored[first][0])
            raise
        if (end := client.broken) is not None:
            raise end
        return outcomes

    def _stays(self, pkh: str, serving: SigningClient) -> bool:
        """Whether a key must be open on the next connection: one without an answer would keep all new ones out."""
        return (serving.holds(pkh) and pkh not in self.keys.lapsed) or self.keys.opens(pkh)

    def _announce(self, key: VaultKey) -> None:
        if key.pkh not in self._announced:
            self._announced.add(key.pkh)
            self._on_key(key)

    async def try_due(self, serving: SigningClient, on_tried: Callable[[], None]) -> None:
        """Try out the keys that are due and not open in service; trouble is reported, and keys that it left out are tried again.

        Args:
            serving: The connection for signatures.
            on_tried: Called after each key: one must not wait for the others.
        """

        async def try_one(pkh: str) -> None:
            await self.try_out(pkh)
            on_tried()

        tried: set[str] = set()
        due: list[str] = []
        try:
            # After a silence one key is due; once it has its answer, all are.
            while due := [
                pkh for pkh in self.keys.due(self._now()) if pkh not in tried and not self._is_open(pkh, serving)
            ]:
                tried.update(due)
                await _side_by_side(try_one, due)
        except HostError as error:
            # Answers come in order: it may be the first one alone that has none.
            self.keys.put_behind(due)
            if self._trying_problem != str(error):
                self._trying_problem = str(error)
                logger.warning("keys could not be opened: %s", error, extra=fields(vault=self._vault))
        else:
            self._trying_problem = None

    def _is_open(self, pkh: str, serving: SigningClient) -> bool:
        """Whether a key is open in service, as it is stored now."""
        return serving.holds(pkh) and pkh not in self.keys.lapsed and self.keys.good(pkh) in self.keys.blobs(pkh)

    def note_lapsed(self, pkh: str, error: NotReleased | ReleaseDenied) -> None:
        """The enclave did not use a key that is open in service: its release has ended."""
        if pkh not in self.keys.lapsed:
            self.keys.lapsed.add(pkh)
            self._note(pkh, unopened_by(error))

    async def try_out(self, pkh: str) -> None:
        """Open a stored key on the second connection, where no signature waits behind it, and note whether it opens.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The second connection ended; the key is tried out at the next look.
        """
        blobs = self.keys.blobs(pkh)
        self.keys.begin(pkh)
        try:
            async with self._second() as second:
                outcome = await self._opener.open(second, pkh, blobs)
        except BaseException:
            self.keys.abandon(pkh)
            raise
        if self.keys.blobs(pkh) == blobs:
            self._note(pkh, outcome)

    def key_waits(self, serving: SigningClient) -> bool:
        """Whether a key opens, and waits for a connection on which it is open."""
        return any(self.keys.opens(pkh) and not serving.holds(pkh) for pkh in self.keys.opened)

    def _note(self, pkh: str, outcome: Opened | Unopened) -> None:
        keys, told = self.keys, self.keys.trouble(pkh)
        if isinstance(outcome, Opened):
            keys.note_opened(outcome.key, outcome.blob)
            self._silent.note_opened(outcome.blob)
            if told is not None:
                logger.info("key opens again", extra=fields(pkh=pkh, vault=self._vault))
            return
        if outcome.event is KeyEvent.UNANSWERED:
            keys.note_unanswered(pkh, outcome.reason, self._now())
        elif outcome.event is KeyEvent.NOT_RELEASED:
            keys.note_unreleased(pkh, outcome.reason, self._now())
        elif outcome.event is KeyEvent.CORRUPT:
            keys.note_corrupt(pkh, outcome.reason)
            # Its entry may have been mended: not every store tells so by itself.
            self.forget_revision()
        else:
            keys.note_refused(pkh, outcome.reason, self._now(), outcome.event)
        if told != outcome.reason:
            level = logging.ERROR if outcome.released else logging.WARNING
            logger.log(level, "key out of service: %s", outcome.reason, extra=fields(pkh=pkh, vault=self._vault))


async def _side_by_side(work: Callable[[str], Awaitable[None]], pkhs: Collection[str]) -> None:
    """Do something with every key, a few at a time; raises what was raised first, and has ended all others then."""
    left = iter(pkhs)

    async def worker() -> None:
        for pkh in left:
            await work(pkh)

    # Not a task for each key: making ten thousand at once would hold signatures up.
    workers = [asyncio.create_task(worker()) for _ in range(min(RESTORE_IN_FLIGHT, len(pkhs)))]
    try:
        # Not a task group: there a failure hides that this task is cancelled at the same moment, and a stop never ends.
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _check_not_all_doubtful(outcomes: dict[str, Opened | Unopened]) -> None:
    doubts = [f"{pkh}: {each.reason}" for pkh, each in outcomes.items() if isinstance(each, Unopened) and each.doubtful]
    if doubts and len(doubts) == len(outcomes):
        raise EnclaveUnavailable(f"no answer of the enclave names the key that is stored: {doubts[0]}")


def _check_holds_as_much(
    outcomes: dict[str, Opened | Unopened], serving: SigningClient | None, client: SigningClient
) -> None:
    for pkh, outcome in outcomes.items():
        if isinstance(outcome, Opened) or not outcome.released:
            continue
        if serving is not None and serving.holds(pkh) and not client.holds(pkh):
            raise EnclaveRefused(f"{pkh} signs, and does not open on a new connection: {outcome.reason}")
