"""Marks in memory, forgotten at the end: for tests and trial runs, never for a key that bakes."""

from collections.abc import Mapping

from host_backend.errors import StoreUnavailable
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkedChains, MarkKey, Verdict, judge


class MemoryWatermarkStore:
    """A `WatermarkStore` that survives nothing.

    Args:
        max_level_jump: Levels by which one request may pass the stored mark.
        marks: What to begin with.
    """

    def __init__(
        self, max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP, marks: Mapping[MarkKey, Mark] | None = None
    ) -> None:
        self._max_level_jump = max_level_jump
        self._marks = dict(marks or {})
        self._chains = MarkedChains(self._marks)
        self._closed = False
        #: A store in memory has none.
        self.problem: str | None = None

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; see `WatermarkStore.advance`."""
        if self._closed:
            raise StoreUnavailable("the watermark store in memory is closed")
        stored = self._marks.get(key)
        verdict = judge(key, stored, asked, self._max_level_jump, self._chains)
        if verdict is Verdict.ADVANCE:
            self._marks[key] = asked
            if stored is None:
                self._chains.add(key)
        return verdict

    async def aclose(self) -> None:
        """Forget every mark."""
        self._closed = True
        self._marks.clear()
