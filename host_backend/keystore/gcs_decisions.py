"""Whether keys that are added together are stored: one object says so for all of them, and is made once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from host_backend.google.outcomes import Conflict
from host_backend.google.storage import Bucket
from host_backend.keystore.gcs_objects import DECISION, TOGETHER, Decision, decision_in

#: Objects that are asked for together: a service that does not answer is noticed after so many.
_BATCH = 64

T = TypeVar("T")
R = TypeVar("R")


class Decisions:
    """What was decided in a bucket, and is remembered, as it never changes."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[str, Decision] = {}

    async def find(self, changes: Sequence[str]) -> dict[str, Decision | None]:
        """Return what was decided about each change; None where nothing was yet."""
        # Those of keys that are gone, or were replaced, are asked for no more.
        self._known = {change: self._known[change] for change in changes if change in self._known}
        return dict(zip(changes, await each(changes, self._find), strict=True))

    async def decide(self, change: str, *, stored: bool) -> Decision:
        """Decide whether the keys of a change are stored, unless that was decided; return what was.

        Raises:
            Conflict: What was decided was deleted meanwhile.
            StoreUnavailable: Not known to be decided.
        """
        if (decision := await self._find(change)) is not None:
            return decision
        metadata = {DECISION: "stored" if stored else "abandoned"}
        with suppress(Conflict):
            await self._bucket.write(f"{TOGETHER}{change}", b"", metadata)
        if (decision := await self._find(change)) is None:
            raise Conflict(f"{self._bucket.place}{TOGETHER}{change} was deleted meanwhile")
        return decision

    async def _find(self, change: str) -> Decision | None:
        if change not in self._known:
            found = await self._bucket.find(f"{TOGETHER}{change}")
            if found is None:
                return None
            self._known[change] = decision_in(found)
        return self._known[change]


async def each(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do something with all items, some at a time; after an error, those that have begun are the last."""
    done: list[R] = []
    for start in range(0, len(items), _BATCH):
        results = await asyncio.gather(*map(work, items[start : start + _BATCH]), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            done.append(result)
    return done
