"""A store that is reached by a symbolic link: one file, one log, one lock, whatever the path."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, export_marks, raise_mark, read_marks
from host_backend.watermark.offline import give_up_store, kept_in_memory
from host_backend.watermark.signatory_files import FOLDER, read_signatory_marks
from host_backend.watermark.sqlite_marks import connect_existing
from host_backend.watermark.store_files import process_of
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    USES,
    A,
    advance,
    gather,
    nothing,
    open_and_close,
    raise_one,
    use,
)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Where the store lies: on a volume."""
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume" / "marks.sqlite"


def linked(real: Path, name: str) -> Path:
    """The store of one more folder, which leads to the real one."""
    folder = real.parents[1] / name
    folder.mkdir()
    (folder / STORE_NAME).symlink_to(real)
    return folder / STORE_NAME


@pytest.fixture
def link(real: Path) -> Path:
    return linked(real, "base")


def turn(link: Path, elsewhere: Path) -> None:
    """Have a link lead to another store, a new one if there is none."""
    if not elsewhere.exists():
        create(elsewhere)
    link.unlink()
    link.symlink_to(elsewhere)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_linked_store_signs_and_its_log_lies_beside_the_file(real: Path, link: Path) -> None:
    create(link)

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(KEY, A)) == [ADVANCE, REPEAT]
        assert real.with_name(f"{real.name}-wal").stat().st_size > 0
        assert read_marks(link) == {KEY: A}
        assert await store.advance(KEY, LATER) is ADVANCE
        assert store.problem is None

    use(link, scenario)
    assert names(link.parent) == ["watermark.lock", STORE_NAME, FOLDER]
    assert names(real.parent) == ["marks.lock", "marks.sqlite"]
    assert read_marks(link) == read_marks(real) == read_signatory_marks(link.parent) == {KEY: LATER}


def test_no_store_is_made_where_the_link_leads_to_what_is_left_of_another(real: Path, link: Path) -> None:
    real.with_name(f"{real.name}-wal").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"marks\.sqlite-wal exists"):
        create(link)


def test_folders_that_lead_to_one_file_exclude_each_other(real: Path, link: Path) -> None:
    create(link)
    other = linked(real, "other")

    async def scenario(store: FileWatermarkStore) -> None:
        for use_it in (create, open_and_close, raise_one, export_marks):
            with pytest.raises(ConfigError, match=f"{real.parent} is in use by process {os.getpid()} "):
                await asyncio.to_thread(use_it, other)
        assert process_of(link) == process_of(other) == os.getpid()
        assert await store.advance(KEY, A) is ADVANCE

    use(link, scenario)
    use(other, nothing)
    assert process_of(link) is process_of(other) is None


def test_a_folder_is_taken_even_if_its_link_was_turned(real: Path, link: Path) -> None:
    create(link)

    async def scenario(store: FileWatermarkStore) -> None:
        turn(link, real.with_name("elsewhere.sqlite"))
        with pytest.raises(ConfigError, match=f"{link.parent} is in use by process"):
            await asyncio.to_thread(open_and_close, link)
        with pytest.raises(ConfigError, match=f"{link.parent} is in use by process"), kept_in_memory(link.parent):
            pass
        # The file that was opened is not the one that the next start would read.
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="was changed, replaced or removed"):
                await store.advance(KEY, A)
            assert store.problem is not None
        turn(link, real)
        assert await store.advance(KEY, A) is ADVANCE
        assert store.problem is None

    use(link, scenario)
    assert read_marks(real) == {KEY: A}


def test_a_lock_that_is_a_link_too_is_one_lock(real: Path, link: Path) -> None:
    """Whoever moved all files of a folder to a volume, and linked them."""
    link.with_name("watermark.lock").symlink_to(real.with_name("marks.lock"))
    create(link)
    advance(link, KEY, A)
    assert read_marks(real) == {KEY: A}


def test_after_a_crash_a_missing_log_of_a_linked_store_stops_the_start(real: Path, link: Path) -> None:
    create(link)
    log = real.with_name(f"{real.name}-wal")
    kept = real.parents[1] / "kept"

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, A)
        shutil.copytree(link.parent / FOLDER, kept / FOLDER)
        for file in (real, log):
            shutil.copy(file, kept)

    use(link, scenario)
    (kept / STORE_NAME).symlink_to(kept / real.name)
    (kept / log.name).rename(kept / "lost")
    with pytest.raises(ConfigError, match=f"{kept / log.name} is missing"):
        open_and_close(kept / STORE_NAME)
    (kept / "lost").rename(kept / log.name)
    open_and_close(kept / STORE_NAME)
    assert read_marks(kept / STORE_NAME) == {KEY: A}


def test_offline_commands_reach_the_file(real: Path, link: Path) -> None:
    create(link)
    advance(link, KEY, A)
    raise_mark(link, OTHER, 7, 0)
    export_marks(link)
    assert read_signatory_marks(link.parent) == read_marks(real)
    assert give_up_store(link.parent) == 2
    # The link is put aside; what it led to stays where it is.
    assert names(link.parent) == ["watermark.lock", f"{STORE_NAME}.migrated", FOLDER]
    assert real.exists()


def test_a_link_to_a_volume_that_is_not_there_is_named(real: Path, link: Path) -> None:
    real.parent.rmdir()
    for use_it in (create, open_and_close, raise_one):
        with pytest.raises(ConfigError, match=f"{real.parent} is not a folder: .* or correct the link {link}"):
            use_it(link)


def test_links_in_a_circle_are_named(link: Path) -> None:
    link.unlink()
    link.symlink_to(link)
    for use_it in (create, open_and_close, raise_one):
        with pytest.raises(StoreUnavailable, match=f"{link}: .*Too many levels of symbolic links"):
            use_it(link)


def test_absence_behind_a_link_is_not_permission(link: Path) -> None:
    for use_it in USES:
        with pytest.raises(ConfigError, match="no watermark store at "):
            use_it(link)


def test_a_store_whose_log_cannot_be_found_does_not_start(real: Path, tmp_path: Path) -> None:
    """It would start well, and never sign: every write would look like a change by another program."""
    create(real)
    shutil.copy(real, tmp_path / "elsewhere")

    def connect(_path: Path) -> sqlite3.Connection:
        return connect_existing(tmp_path / "elsewhere")

    async def run() -> None:
        await FileWatermarkStore.open(real, connect=connect)

    with pytest.raises(ConfigError, match=r"was opened, and it or .*marks\.sqlite-wal cannot be found"):
        asyncio.run(run())
    use(real, nothing)
