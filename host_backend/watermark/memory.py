"""Marks in memory, forgotten at the end: for tests and trial runs, never for a key that bakes.

- They begin at every start with Signatory's files, and from the first start on a note there says that they were in
  memory: neither Signatory nor a file store starts there again as if nothing had been signed.
- A folder that has a file store is not for memory: that store would be forgotten.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from host_backend.errors import ConfigError, StateConflict, StoreUnavailable
from host_backend.watermark.base import MarksDescription, StoredMarks
from host_backend.watermark.file.old_sqlite import file_store_in
from host_backend.watermark.file.place import REBUILD, held_folder, process_of, reporting, store_path
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkedChains, MarkKey, Verdict, judge
from host_backend.watermark.signatory.folder import SignatoryFolder


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
        self.refused: Mapping[MarkKey, str] = {}

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


@contextmanager
def kept_in_memory(base_dir: Path) -> Iterator[dict[MarkKey, Mark]]:
    """Have a folder for a host that keeps its marks in memory; yields those to begin with, Signatory's.

    Raises:
        ConfigError: The folder has a store, or lost one, or another process has it; or Signatory's marks cannot be read.
        StoreUnavailable: It cannot be read or written.
    """
    path, folder = store_path(base_dir), SignatoryFolder(base_dir)
    with held_folder(base_dir) as claim, reporting(path):
        if found := file_store_in(base_dir):
            raise ConfigError(
                f"{found} has marks, and watermark.driver is mem, which would forget them: write `driver: file`, or "
                "give that store up with `enclave-host watermark migrate`"
            )
        _require_nothing_lost(base_dir, folder)
        marks = folder.read()
        claim()
        folder.note_forgotten()
        yield marks


def _require_nothing_lost(base_dir: Path, folder: SignatoryFolder) -> None:
    folder.require_here()
    if folder.left_behind and not folder.forgotten:
        raise StateConflict(
            f"the last host on {base_dir} did not end in order, and its watermark store is gone: write `driver: file`, then "
            f"put back the original file, never an earlier copy, or rebuild the marks with {REBUILD}"
        )


def _only_in_memory() -> ConfigError:
    return ConfigError(
        "watermark.driver is mem: marks are in the memory of the running host and nowhere else; for marks that last write "
        "`driver: file`"
    )


class MemoryMarks:
    """A `MarksAdmin` of marks in memory, which cannot be managed: it answers what it can, and refuses the rest.

    Args:
        base_dir: The folder of Signatory's files, and of a file store that must not be there.
    """

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir

    def create(self) -> None:
        """There is nothing to make."""
        raise _only_in_memory()

    def read(self) -> StoredMarks:
        """Nothing can be read."""
        raise _only_in_memory()

    def raise_mark(self, key: MarkKey, mark: Mark) -> None:
        """Nothing can be moved."""
        raise _only_in_memory()

    def reset_mark(self, key: MarkKey, mark: Mark) -> Mark:
        """Nothing can be moved."""
        raise _only_in_memory()

    def adopt(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Nothing can be moved."""
        raise _only_in_memory()

    def export(self) -> None:
        """Nothing can be handed over."""
        raise _only_in_memory()

    def rebuild(self, rebuilt: Rebuilt, suffix: str) -> int:
        """There is nothing to make."""
        raise _only_in_memory()

    def retire(self) -> None:
        """There is nothing to put aside."""
        raise _only_in_memory()

    def describe(self) -> MarksDescription:
        """Look for a file store that memory would forget; see `MarksAdmin.describe`."""
        folder = SignatoryFolder(self._base_dir)
        with reporting(store_path(self._base_dir)):
            found = file_store_in(self._base_dir)
        if found is not None:
            raise ConfigError(
                f"kept in memory, though {found} has marks: write `driver: file`, or give that store up with "
                "`enclave-host watermark migrate`"
            )
        _require_nothing_lost(self._base_dir, folder)
        return MarksDescription(None, len(folder.read()), process_of(self._base_dir), crashed=False)
