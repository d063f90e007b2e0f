"""The two ports behind which marks are kept: one for signing, one for managing them.

- A store judges by `rule.judge` and by nothing else.
- Stored means durable: an answer is given only when the mark it rests on survives a crash and a power loss. A repeat
  of a mark that is being written waits for that writing.
- Requests at the same time are judged one after the other.
- A store that cannot answer says so (`StoreUnavailable`); it never guesses, and it never refuses for that reason.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, Verdict

#: A context around every write to a disk or service, to measure it. One write stores all marks that waited together.
Writing = Callable[[], AbstractContextManager[None]]


class WatermarkStore(Protocol):
    """The highest mark per key, chain and right."""

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; when this returns, it may.

        A caller that leaves early disturbs no other, and its mark may have moved: the same message may be asked again.

        Args:
            key: Whose mark.
            asked: Level, round and digest of the message.

        Returns:
            ADVANCE or REPEAT, see `rule.judge`; either is durable.

        Raises:
            WatermarkRejected: Never sign this message.
            StoreUnavailable: Not known; sign nothing, ask again later.
        """
        ...

    @property
    def problem(self) -> str | None:
        """Why the last request could not be judged; None when it could."""
        ...

    @property
    def refused(self) -> Mapping[MarkKey, str]:
        """Rights that are refused alone because their mark was damaged, and what to do about each."""
        ...

    async def aclose(self) -> None:
        """Answer those who wait, then let go of the storage. Later requests get `StoreUnavailable`. May be repeated.

        Where a service may take long, what it was not asked yet is `StoreUnavailable`, too: a stop takes seconds.

        Raises:
            HostError: Everything answered for is stored, but it could not be left as an orderly stop should leave it.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredMarks:
    """What a store holds.

    Attributes:
        marks: The mark of every right.
        refused: Rights whose mark is damaged, and the highest mark of theirs that is known.
    """

    marks: Mapping[MarkKey, Mark] = field(default_factory=dict)
    refused: Mapping[MarkKey, Mark | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarksDescription:
    """A store as seen from outside, without a trace.

    Attributes:
        stored: Its marks; None when there is no store.
        waiting: Marks of others that the first start will make a store of.
        host: The process that has it; None when none does.
        crashed: Whether the last host did not end in order.
        findings: Faults, present or to come.
    """

    stored: StoredMarks | None = None
    waiting: int = 0
    host: int | None = None
    crashed: bool = False
    findings: tuple[str, ...] = ()


class MarksAdmin(Protocol):
    """Looks after the marks of one configuration. Synchronous; every method that changes anything needs the store alone.

    Every method raises `HostError`: `StateConflict` when the present state does not allow it, `StoreUnavailable` when it is not
    known to be done and may be repeated. A refusal has changed nothing.
    """

    def create(self) -> None:
        """Make the store; with the marks that Signatory left, if any. One that is there is never overwritten."""
        ...

    def read(self) -> StoredMarks:
        """Return every mark, also while a host runs; changes nothing."""
        ...

    def raise_mark(self, key: MarkKey, mark: Mark) -> None:
        """Move one mark up; the only thing that mends a right that is refused."""
        ...

    def reset_mark(self, key: MarkKey, mark: Mark) -> Mark:
        """Move one mark anywhere, also down; return the one that was there."""
        ...

    def adopt(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Raise marks to those of another store, the highest of each right; return how many were raised.

        Raises:
            HostError: Not done; or some of these rights are refused for damage, and all others were raised.
        """
        ...

    def export(self) -> None:
        """Hand every mark to Signatory's files, and let it start."""
        ...

    def rebuild(self, rebuilt: Rebuilt, suffix: str) -> int:
        """Rebuild the store from all marks that can be found, each one at least at the end of a level.

        Args:
            rebuilt: Which marks there are beside those that are found, and that level.
            suffix: Added to the name of a file that is put aside.

        Returns:
            How many marks there are.
        """
        ...

    def retire(self) -> None:
        """Put the store aside for good, after its marks were handed to another one."""
        ...

    def describe(self) -> MarksDescription:
        """Look at the store; a host may have it. Changes nothing, and takes no lock."""
        ...
