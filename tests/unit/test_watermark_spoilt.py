"""A store that others change, replace or remove while a host has it: nothing is signed on it, and nothing is forgotten."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file import store as store_module
from host_backend.watermark.file.batches import Batches
from host_backend.watermark.file.layout import BLOCK_BYTES, header_offset, slot_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import read_signatory_marks
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    A,
    B,
    advance,
    created,
    digest,
    gather,
    marks_of,
    open_and_close,
    read_marks,
    use,
    use_to_a_bad_end,
)

pytestmark = pytest.mark.usefixtures("never_quiet")

EARLIER = Mark(5, 0, digest("earlier"))
BY_OTHERS = "was changed, replaced or removed by another program despite the lock"


@pytest.fixture
def marked(base: Path) -> Path:
    """A folder in which two rights have signed, and beside it a copy of the store from before."""
    advance(base, KEY, EARLIER)
    advance(base, OTHER, A)
    shutil.copy(store_path(base), base.parent / "earlier")
    return base


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    # A file system's clock may stand still for some milliseconds, in which the store has written, too.
    os.utime(path, ns=(1, 1))


def turn_a_bit(path: Path, offset: int) -> None:
    put(path, offset, bytes([path.read_bytes()[offset] ^ 1]))


def overwrite(path: Path) -> None:
    put(path, 0, b"nonsense" * (path.stat().st_size // 8))


def empty(path: Path) -> None:
    path.write_bytes(b"")
    os.utime(path, ns=(1, 1))


def put_back(path: Path) -> None:
    """What a restored backup does."""
    put(path, 0, (path.parents[1] / "earlier").read_bytes())


def replace_by_an_earlier_one(path: Path) -> None:
    shutil.copy(path.parents[1] / "earlier", path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def replace_by_nonsense(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"nonsense" * 1000)
    path.with_suffix(".new").replace(path)


def turn_a_bit_of_a_mark(path: Path) -> None:
    turn_a_bit(path, slot_offset(0, 0) + 100)


def turn_a_bit_of_a_header(path: Path) -> None:
    turn_a_bit(path, header_offset(1) + 20)


def turn_a_bit_behind_a_mark(path: Path) -> None:
    turn_a_bit(path, slot_offset(1, 1) + BLOCK_BYTES - 1)


IN_PLACE = (
    overwrite,
    empty,
    put_back,
    turn_a_bit_of_a_mark,
    turn_a_bit_of_a_header,
    turn_a_bit_behind_a_mark,
)
ANOTHER_FILE = (replace_by_an_earlier_one, replace_by_a_copy, replace_by_nonsense, Path.unlink)


def what_a_start_says(base: Path) -> HostError | None:
    try:
        open_and_close(base)
    except HostError as error:
        return error
    return None


@pytest.mark.parametrize("spoil", [*IN_PLACE, *ANOTHER_FILE])
def test_a_spoilt_store_signs_nothing_and_what_was_answered_for_is_saved(
    marked: Path, spoil: Callable[[Path], None]
) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        spoil(store_path(marked))
        # Not even a repeat or a refusal is answered from memory.
        for key, asked in ((KEY, LATER), (KEY, A), (KEY, B), (OTHER, A)):
            with pytest.raises(StoreUnavailable, match=f"watermark store {store_path(marked)} {BY_OTHERS}"):
                await store.advance(key, asked)
        assert BY_OTHERS in str(store.problem)
        # At once: the host may be killed next.
        assert read_signatory_marks(marked) == {KEY: A, OTHER: A}

    assert BY_OTHERS in use_to_a_bad_end(marked, scenario)
    assert SignatoryFolder(marked).left_behind
    assert read_signatory_marks(marked) == {KEY: A, OTHER: A}
    error = what_a_start_says(marked)
    if isinstance(error, ConfigError):
        assert "watermark rebuild --above-level N" in str(error)
        marks_of(marked).rebuild(Rebuilt([], [], 0), ".damaged")
    elif error is not None:
        # It starts, and one right is refused; nothing is handed back before that is mended.
        assert "damaged" in str(error)

    async def after(store: FileWatermarkStore) -> None:
        for key in (KEY, OTHER):
            with pytest.raises(StoreUnavailable if key in store.refused else WatermarkRejected):
                await store.advance(key, B)

    if marks_of(marked).read().refused:
        use_to_a_bad_end(marked, after)
    else:
        use(marked, after)


def test_a_store_that_is_removed_is_not_made_anew(marked: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await asyncio.to_thread(store_path(marked).unlink)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=BY_OTHERS):
                await store.advance(KEY, A)

    use_to_a_bad_end(marked, scenario)
    assert not store_path(marked).exists()
    with pytest.raises(ConfigError, match="no watermark store at "):
        open_and_close(marked)
    with pytest.raises(ConfigError, match="no watermark store at "):
        created(marked)


@pytest.mark.parametrize("spoil", [*IN_PLACE, *ANOTHER_FILE])
def test_what_nobody_asked_about_is_noticed_at_the_stop(marked: Path, spoil: Callable[[Path], None]) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        spoil(store_path(marked))

    assert BY_OTHERS in use_to_a_bad_end(marked, scenario)
    assert SignatoryFolder(marked).left_behind
    assert read_signatory_marks(marked) == {KEY: A, OTHER: A}


def test_what_nobody_asked_about_is_noticed_when_it_is_quiet(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()
    note_problem = Batches._note_problem

    def noting(batches: Batches, error: Exception) -> StoreUnavailable:
        noted = note_problem(batches, error)
        told.set()
        return noted

    async def scenario(store: FileWatermarkStore) -> None:
        put_back(store_path(marked))
        assert await asyncio.to_thread(told.wait, 60)
        assert BY_OTHERS in str(store.problem)
        assert read_signatory_marks(marked) == {KEY: EARLIER, OTHER: A}

    monkeypatch.setattr(Batches, "_note_problem", noting)
    monkeypatch.setattr(store_module, "_QUIET_S", 0.01)
    use_to_a_bad_end(marked, scenario)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def write_the_same(path: Path) -> None:
    put(path, 0, path.read_bytes())


def change_and_change_back(path: Path) -> None:
    turn_a_bit_of_a_mark(path)
    turn_a_bit_of_a_mark(path)


def lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + BLOCK_BYTES)


@pytest.mark.parametrize("harmless", [touch, write_the_same, change_and_change_back, lengthen])
def test_a_store_that_is_as_it_was_written_goes_on_with_a_warning(
    marked: Path, harmless: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        harmless(store_path(marked))
        assert await gather(store.advance(KEY, A), store.advance(KEY, LATER)) == [REPEAT, ADVANCE]
        assert store.problem is None

    use(marked, scenario)
    (line,) = (record for record in caplog.records if "was touched by another program" in record.message)
    assert line.levelname == "WARNING"
    assert read_marks(marked) == {KEY: LATER, OTHER: A}
