"""A store that is reached by a link, symbolic or hard: one file, one lock, whatever the path."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.file.place import LOCK_NAME, STORE_NAME, process_of, store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.memory import kept_in_memory
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    USES,
    A,
    advance,
    created,
    everything_in,
    export,
    gather,
    marks_of,
    nothing,
    open_and_close,
    raise_one,
    read_marks,
    use,
    use_to_a_bad_end,
)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Where the store lies: on a volume."""
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume" / "marks"


def linked(real: Path, name: str) -> Path:
    """One more folder whose store is a link to the real one."""
    folder = real.parents[1] / name
    folder.mkdir()
    store_path(folder).symlink_to(real)
    return folder


@pytest.fixture
def base(real: Path) -> Path:
    return linked(real, "base")


def turn(base: Path, elsewhere: Path) -> None:
    """Have a link lead elsewhere."""
    store_path(base).unlink()
    store_path(base).symlink_to(elsewhere)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_linked_store_signs_and_all_of_it_is_where_the_link_leads(real: Path, base: Path) -> None:
    created(base)

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(KEY, A)) == [ADVANCE, REPEAT]
        assert names(real.parent) == ["marks"]
        assert read_marks(base) == {KEY: A}
        assert await store.advance(KEY, LATER) is ADVANCE
        assert store.problem is None

    use(base, scenario)
    assert names(base) == [LOCK_NAME, STORE_NAME, FOLDER]
    assert names(real.parent) == ["marks"]
    assert store_path(base).is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert read_marks(base) == read_signatory_marks(base) == {KEY: LATER}


def test_no_store_is_made_where_the_link_leads_to_another_file(real: Path, base: Path) -> None:
    real.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="neither of its two headers is whole"):
        created(base)
    assert real.read_bytes() == b"nonsense"


def hard_link(real: Path) -> Path:
    folder = real.parents[1] / "other"
    folder.mkdir()
    store_path(folder).hardlink_to(real)
    return folder


@pytest.mark.parametrize("second_name", [lambda real: linked(real, "other"), hard_link], ids=["symbolic", "hard"])
def test_folders_that_lead_to_one_file_exclude_each_other(
    real: Path, base: Path, second_name: Callable[[Path], Path]
) -> None:
    created(base)
    other = second_name(real)

    async def scenario(store: FileWatermarkStore) -> None:
        before = everything_in(other)
        for use_it in (created, open_and_close, raise_one, export):
            with pytest.raises(ConfigError, match=f"{store_path(other)} is in use by process {os.getpid()}: "):
                await asyncio.to_thread(use_it, other)
        assert everything_in(other) == before
        assert process_of(base) == process_of(other) == os.getpid()
        assert await store.advance(KEY, A) is ADVANCE

    use(base, scenario)
    use(other, nothing)
    assert process_of(base) is process_of(other) is None
    assert read_marks(other) == read_signatory_marks(other) == {KEY: A}


def test_a_hard_link_that_comes_or_goes_meanwhile_is_harmless(base: Path, real: Path) -> None:
    created(base)

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        real.with_name("second").hardlink_to(real)
        assert await gather(store.advance(KEY, A), store.advance(KEY, LATER)) == [REPEAT, ADVANCE]
        real.with_name("second").unlink()
        assert await store.advance(KEY, LATER) is REPEAT

    use(base, scenario)
    assert read_marks(base) == {KEY: LATER}


def test_a_folder_is_taken_even_if_its_link_was_turned(real: Path, base: Path) -> None:
    created(base)
    elsewhere = created(real.parent)

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        turn(base, store_path(elsewhere))
        with pytest.raises(ConfigError, match=f"{base} is in use by process"):
            await asyncio.to_thread(open_and_close, base)
        with pytest.raises(ConfigError, match=f"{base} is in use by process"), kept_in_memory(base):
            pass
        # The file that was opened is not the one that the next start would read.
        for asked in (A, LATER):
            with pytest.raises(StoreUnavailable, match="was changed, replaced or removed"):
                await store.advance(KEY, asked)
            assert store.problem is not None
        # Nor is it known what was done elsewhere meanwhile: there is no way on without a restart.
        turn(base, real)
        with pytest.raises(StoreUnavailable, match="was changed, replaced or removed"):
            await store.advance(KEY, A)

    assert "was changed, replaced or removed" in use_to_a_bad_end(base, scenario)
    # What was answered for is in Signatory's files, so that it counts wherever the link leads.
    assert SignatoryFolder(base).left_behind
    assert read_signatory_marks(base) == {KEY: A}
    turn(base, store_path(elsewhere))
    use(base, nothing)
    assert read_marks(elsewhere) == {KEY: A}


def test_a_lock_that_is_a_link_too_is_one_lock(real: Path, base: Path) -> None:
    """All files of a folder were moved to a volume, and linked."""
    (base / LOCK_NAME).symlink_to(real.with_name("marks.lock"))
    created(base)
    advance(base, KEY, A)
    assert names(real.parent) == ["marks", "marks.lock"]
    assert read_marks(base) == {KEY: A}


def test_after_a_crash_a_link_that_leads_nowhere_stops_the_start(real: Path, base: Path) -> None:
    created(base)
    advance(base, KEY, A)
    SignatoryFolder(base).begin()
    real.rename(real.with_name("lost"))
    before = everything_in(base)
    for use_it in (created, *USES, export):
        with pytest.raises(
            ConfigError, match=r"no watermark store at .*, though the last host here did not end in order"
        ):
            use_it(base)
    assert everything_in(base) == before
    real.with_name("lost").rename(real)
    open_and_close(base)
    assert read_marks(base) == {KEY: A}


def test_offline_commands_reach_the_file(real: Path, base: Path) -> None:
    created(base)
    advance(base, KEY, A)
    marks_of(base).raise_mark(OTHER, LATER)
    export(base)
    assert read_signatory_marks(base) == read_marks(base) == {KEY: A, OTHER: LATER}
    marks_of(base).retire()
    # The link is put aside; what it led to stays where it is.
    assert names(base) == [LOCK_NAME, f"{STORE_NAME}.migrated", FOLDER]
    assert real.exists()


def test_a_store_made_anew_stays_behind_its_link(real: Path, base: Path) -> None:
    created(base)
    advance(base, KEY, A)
    marks_of(base).rebuild(Rebuilt([], [], 5), ".damaged")
    assert names(real.parent) == ["marks", "marks.damaged"]
    assert store_path(base).is_symlink()
    assert read_marks(base)[KEY] == A


def test_a_link_to_a_volume_that_is_not_there_is_named(real: Path, base: Path) -> None:
    real.parent.rmdir()
    with pytest.raises(StoreUnavailable, match=f"watermark store {store_path(base)}: {real.parent}/"):
        created(base)
    for use_it in (open_and_close, raise_one):
        with pytest.raises(ConfigError, match=f"no watermark store at {store_path(base)}"):
            use_it(base)


def test_links_in_a_circle_are_named(base: Path) -> None:
    turn(base, store_path(base))
    before = names(base)
    for use_it in (created, open_and_close, raise_one):
        with pytest.raises(StoreUnavailable, match=f"{store_path(base)}: .*Too many levels of symbolic links"):
            use_it(base)
    assert names(base) == before


def test_absence_behind_a_link_is_not_permission(base: Path) -> None:
    for use_it in USES:
        with pytest.raises(ConfigError, match="no watermark store at "):
            use_it(base)
    assert names(base) == [STORE_NAME]
