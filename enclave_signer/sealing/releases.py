"""Releases of gated keys: keys whose service must have released them, to this image, not too long ago.

- An unsealing is an object of the process: it belongs to no connection. All callers with the same blob share one attempt and
  its one deadline; a caller that leaves does not end it, and one that comes a moment later gets its result.
- A release belongs to a key-encryption key and the identity that asks for it: one blob is asked about first, and what the
  service says of the key holds for all blobs under it.
- A failure is remembered for `retry_s`: meanwhile all callers get it at once, and the service is not asked.
- A release lasts `fresh_s`, from when it was asked for. A use in its last third has it asked for again, without waiting.
  Where that is not answered, or not with yes, it lasts until its end; a denial ends it at once.
- A use after its end is refused, and has it asked for again. Opened keys are used again as soon as they are released.
- Two errors are about a key: `NotReleased`, also where its service is away, and `ReleaseDenied`, also where a blob that
  opened before is refused now. Any other error is about the caller's blob.
- A blob that is refused now ends the release, but it may be the blob alone, sealed by a version of the key that is gone.
  So other blobs are asked about at once, until one opens or as many are refused as `MAX_REFUSED` says. Of these, only
  blobs that opened before count, and wait for no others: anyone can make up the rest.
- What was asked for before a denial was known is no release any more.
- A client whose blobs do not open has few of them asked about: `vain_blobs`.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from enclave_signer import log
from enclave_signer.errors import (
    BlobCorrupt,
    NotReleased,
    ReleaseDenied,
    SealingError,
    SealingRefused,
    SealingUnavailable,
    again,
)
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.refusals import Refusals
from enclave_signer.sealing.vain_blobs import VainBlobs

logger = logging.getLogger(__name__)

#: Releases that are remembered. A prefix may cover any number of names, and strangers may make some up.
MAX_RELEASES = 256
#: Seconds for which an opened key is shared with later callers: by then it has its place among the open keys.
SHARED_S = 1.0
#: The part of `fresh_s` after which a use has the key released again: the service may be away for the rest of it.
_RENEWED_AFTER = 2 / 3

#: Opens a sealer, or returns the one given, and has it open a blob, in time.
Ask = Callable[[Sealer | None, bytes], Awaitable[tuple[Sealer, UnsealedKey]]]
#: Starts a task that lives as long as the process serves.
Start = Callable[[Callable[[], Awaitable[None]]], None]


def now() -> float:
    """Return seconds that only go forward."""
    return trio.current_time()


@dataclass(slots=True)
class _Attempt:
    """The opening of one blob, for all callers that want it."""

    done: trio.Event = field(default_factory=trio.Event)
    unsealed: UnsealedKey | None = None
    error: Exception = field(default_factory=lambda: SealingUnavailable("the daemon stops"))

    async def outcome(self) -> UnsealedKey:
        await self.done.wait()
        if self.unsealed is None:
            raise again(self.error)
        return self.unsealed


class Release:
    """The release of one key-encryption key to one identity; see `enclave_signer.sealing.base.Release`.

    Args:
        key: Its name, for texts.
        rule: The image's.
        ask: Asks its service.
        start: Starts attempts.
    """

    def __init__(self, key: str, rule: GatedRule, ask: Ask, start: Start) -> None:
        self._key = key
        self._rule = rule
        self._ask = ask
        self._start = start
        self._attempts: dict[bytes, _Attempt] = {}
        #: Of those whose blobs are asked about one after the other: blobs that opened before, and others.
        self._turns = {True: trio.Lock(), False: trio.Lock()}
        #: The sealer that was released last.
        self._sealer: Sealer | None = None
        self._refusals = Refusals(rule.retry_s)
        self._vain = VainBlobs(rule.retry_s)
        self._renewing = False
        self._renew_at = self._ends_at = -math.inf

    @property
    def busy(self) -> bool:
        """Whether the service is being asked."""
        return self._asking() is not None

    @property
    def matters(self) -> int:
        """2 while it is fresh, 1 while a failure is remembered, 0 when there is nothing to remember of it."""
        return 2 if self.fresh else int(self._refusals.lately(now()))

    def _asking(self, *, opened_before: bool = False) -> _Attempt | None:
        """Return the first attempt that is under way, or the first of a blob that opened before."""
        for blob, attempt in self._attempts.items():
            if not attempt.done.is_set() and (not opened_before or self._refusals.opened_before(blob)):
                return attempt
        return None

    @property
    def fresh(self) -> bool:
        """Whether the key was released not too long ago."""
        return now() < self._ends_at

    def check(self, blob: bytes) -> None:
        """Do nothing while the key is released; see `enclave_signer.sealing.base.Release`."""
        time = now()
        if time < self._renew_at:
            return
        if not self._refusals.answer(blob, time):
            # Whatever else is under way, which may be a stranger's.
            if (good := self._refusals.trusted) is not None:
                self._under_way(good)
            elif self._asking(opened_before=True) is None:
                self._under_way(blob)
        if time >= self._ends_at:
            raise self._reason(blob)

    async def unseal(self, blob: bytes, client: str) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`. Raises at once what failed less than `retry_s` ago.

        Args:
            blob: What to open.
            client: Whose it is: the address, or what counts as it.
        """
        try:
            return await self._unseal(blob, client)
        except (BlobCorrupt, SealingRefused):
            self._vain.add(client, now())
            raise

    async def _unseal(self, blob: bytes, client: str) -> UnsealedKey:
        opened_before = self._refusals.opened_before(blob)
        if not self.fresh and not self._refusals.answer(blob, now()) and (good := self._refusals.trusted) is not None:
            # Asked about before any other, which may be a stranger's.
            await self._under_way(good).done.wait()
        if (known := self._known(blob, client)) is not None:
            return await known.outcome()
        # One blob is asked about first: it may be that the key is not released at all. Then those that came first.
        async with self._turns[opened_before]:
            while (asking := self._asking(opened_before=opened_before)) and self._known(blob, client) is None:
                await asking.done.wait()
            if (known := self._known(blob, client)) is None:
                return await self._begin(blob).outcome()
        return await known.outcome()

    def _known(self, blob: bytes, client: str) -> _Attempt | None:
        """Return an attempt for a blob that need not wait for others.

        Raises:
            SealingError: A failure is remembered.
        """
        attempt = self._attempts.get(blob)
        if attempt is not None and (self.fresh or not attempt.done.is_set()):
            return attempt
        if (failure := self._refusals.answer(blob, now())) is not None:
            raise again(failure)
        if not self._refusals.opened_before(blob):
            self._vain.check(client, now())
        return self._begin(blob) if self.fresh else None

    def _under_way(self, blob: bytes) -> _Attempt:
        attempt = self._attempts.get(blob)
        return self._begin(blob) if attempt is None or attempt.done.is_set() else attempt

    def _reason(self, blob: bytes) -> SealingError:
        """Return why a key may not be used at the moment."""
        if (failure := self._refusals.last(blob)) is not None:
            return again(failure)
        return NotReleased(f"the last release of {self._key} has ended, and it is asked for again")

    def _begin(self, blob: bytes) -> _Attempt:
        attempt = self._attempts[blob] = _Attempt()
        self._start(partial(self._run, blob, attempt))
        return attempt

    async def _run(self, blob: bytes, attempt: _Attempt) -> None:
        began = now()
        try:
            attempt.unsealed = await self._opened(blob, began)
            if attempt.unsealed is None:
                attempt.error = self._reason(blob)
        except Exception as error:  # noqa: BLE001 -- raised to the callers, who know refusals from bugs
            attempt.error = self._failed(error, blob, began)
        finally:
            attempt.done.set()
            if attempt.unsealed is not None:
                await trio.sleep(SHARED_S)
            if self._attempts.get(blob) is attempt:
                del self._attempts[blob]

    async def _opened(self, blob: bytes, began: float) -> UnsealedKey | None:
        """Return the key in a blob; None if the key was denied while its service was asked."""
        # Of many blobs late in a release one renews it; a stranger's, which may not open, takes that from none.
        renewed = began < self._renew_at or (self._renewing and blob != self._refusals.trusted)
        known = self._sealer if renewed else None
        self._renewing |= known is None
        try:
            sealer, unsealed = await self._ask(known, blob)
        finally:
            if known is None:
                self._renewing = False
        if began < self._refusals.denied_at:
            return None
        if known is None:
            self._renew(sealer, began)
        self._refusals.opened(blob)
        return unsealed

    def _renew(self, sealer: Sealer, began: float) -> None:
        if self._refusals.end():
            logger.info("key released", extra=log.fields(key=self._key, fresh_s=self._rule.fresh_s))
        self._sealer = sealer
        self._renew_at = began + self._rule.fresh_s * _RENEWED_AFTER
        self._ends_at = began + self._rule.fresh_s

    def _failed(self, error: Exception, blob: bytes, began: float) -> Exception:
        """Remember what an error means for the key, if anything; return the error for the callers that wait."""
        failure = _about_key(error, opened_before=self._refusals.counts(blob, error))
        if failure is None:
            return error
        if isinstance(failure, NotReleased) and began < self._refusals.denied_at:
            # It is denied since.
            return self._reason(blob)
        of_blob = not isinstance(error, NotReleased | ReleaseDenied | SealingUnavailable)
        if self._refusals.add(failure, blob if of_blob else None, now()):
            logger.warning("key not released: %s", failure, extra=log.fields(key=self._key))
        if isinstance(failure, ReleaseDenied):
            self._sealer = None
            # Keys that were opened before are shared no longer.
            self._attempts = {blob: each for blob, each in self._attempts.items() if not each.done.is_set()}
            self._renew_at = self._ends_at = -math.inf
        return failure


def _about_key(error: Exception, *, opened_before: bool) -> SealingError | None:
    """Return what an error says of a key; None where it may be about the blob alone, which may be a stranger's."""
    match error:
        case NotReleased() | ReleaseDenied():
            return error
        case SealingUnavailable():
            return NotReleased(str(error))
        case SealingRefused() if opened_before:
            return ReleaseDenied(str(error))
        case _ if opened_before:
            logger.error("a key could not be released again by a bug, or its blob changed", exc_info=error)
            return NotReleased("its sealer failed: the daemon's log has it")
        case _:
            return None
