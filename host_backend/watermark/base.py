"""The port behind which marks are kept.

- A store judges by `rule.judge` and by nothing else.
- Stored means durable: an answer is given only when the mark it rests on survives a crash and a power loss. A repeat
  of a mark that is being written waits for that writing.
- Whoever asks at the same time is judged one after the other.
- A store that cannot answer says so (`StoreUnavailable`); it never guesses, and it never refuses for that reason.
"""

from typing import Protocol

from host_backend.watermark.rule import Mark, MarkKey, Verdict


class WatermarkStore(Protocol):
    """The highest mark per key, chain and right."""

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; when this returns, it may.

        A caller that leaves early disturbs nobody, and its mark may have moved: the same message may be asked again.

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

    async def aclose(self) -> None:
        """Answer those who wait, then let go of the storage. Later requests get `StoreUnavailable`. May be repeated."""
        ...
