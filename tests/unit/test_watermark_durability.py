"""`FileWatermarkStore` answers for what is durable, and for nothing else: closing, crashes, failing disks."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, raise_mark, read_marks
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory_files import SignatoryFolder
from tests.doubles.failing_sqlite import FailingSqlite
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    A,
    B,
    advance,
    alter,
    digest,
    gather,
    nothing,
    use,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / STORE_NAME)
    return tmp_path / STORE_NAME


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("PRAGMA synchronous = 2", "journal mode wal and synchronous 1"),
        ("PRAGMA journal_mode = WAL", "journal mode delete and synchronous 2"),
    ],
)
def test_sqlite_that_does_not_promise_durability_is_refused(path: Path, statement: str, answer: str) -> None:
    """A build or file system where one setting is not taken."""

    class Deaf(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            answered = {
                "PRAGMA synchronous = 2": "PRAGMA synchronous = 1",
                "PRAGMA journal_mode = WAL": "PRAGMA journal_mode",
            }
            return super().execute(answered[sql] if sql == statement else sql)

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, factory=Deaf)

    async def run() -> None:
        await FileWatermarkStore.open(path, connect=connect)

    with pytest.raises(ConfigError, match=f"{answer} where wal and 2 are needed"):
        asyncio.run(run())


def test_store_that_may_only_be_read_is_refused_at_start(path: Path) -> None:
    use(path, nothing)

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    async def run() -> None:
        await FileWatermarkStore.open(path, connect=connect)

    with pytest.raises(StoreUnavailable, match="readonly"):
        asyncio.run(run())
    use(path, nothing)


def test_marks_survive_closing(path: Path) -> None:
    advance(path, KEY, A)
    advance(path, OTHER, LATER)
    assert not path.with_name(f"{STORE_NAME}-wal").exists()
    assert read_marks(path) == {KEY: A, OTHER: LATER}

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]

    use(path, scenario)


def test_marks_survive_without_closing(path: Path, tmp_path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, A)
        (tmp_path / "crashed").mkdir()
        for file in (path, path.with_name(f"{STORE_NAME}-wal")):
            shutil.copy(file, tmp_path / "crashed")

    use(path, scenario)
    crashed = tmp_path / "crashed" / STORE_NAME
    assert crashed.with_name(f"{STORE_NAME}-wal").stat().st_size > 0
    assert read_marks(crashed) == {KEY: A}
    use(crashed, nothing)
    assert read_marks(crashed) == {KEY: A}


def test_what_the_log_holds_is_brought_into_the_file_before_anything_is_answered(path: Path, tmp_path: Path) -> None:
    """A log may hold marks whose fsync never happened: to answer a repeat from them would be a promise without base."""
    test_marks_survive_without_closing(path, tmp_path)
    crashed = tmp_path / "crashed" / STORE_NAME

    async def scenario(_store: FileWatermarkStore) -> None:
        assert crashed.with_name(f"{STORE_NAME}-wal").stat().st_size == 0
        shutil.copy(crashed, tmp_path / STORE_NAME)

    use(crashed, scenario)
    assert read_marks(tmp_path / STORE_NAME) == {KEY: A}


def test_running_store_can_be_read(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        for level in range(5):
            asked = Mark(level, 0, digest(level))
            assert await store.advance(KEY, asked) is ADVANCE
            assert read_marks(path) == {KEY: asked}

    use(path, scenario)


# One write at a time


def test_store_that_cannot_be_opened_again_is_tried_at_each_request(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        disk.fail_before = 1
        disk.fail_openings = 2
        # Not even a repeat or a refusal is answered from memory.
        for asked, text in ((LATER, "full"), (A, "unable to open"), (B, "unable to open")):
            with pytest.raises(StoreUnavailable, match=text):
                await store.advance(KEY, asked)
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]

    use(path, scenario, disk)


def test_store_that_went_back_signs_nothing_more(path: Path, tmp_path: Path) -> None:
    disk = FailingSqlite()
    shutil.copy(path, tmp_path / "backup")

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        disk.fail_before = 1
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, LATER)
        (tmp_path / "backup").replace(path)
        for asked in (A, B, LATER):
            with pytest.raises(StoreUnavailable, match=r"went back: .* was at level 10 round 2 and is at nothing"):
                await store.advance(KEY, asked)

    use(path, scenario, disk)


def test_store_removed_while_running_is_unavailable_and_not_made_anew(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_before = 1
        await asyncio.to_thread(path.unlink)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.advance(KEY, A)

    use(path, scenario, disk)
    assert not path.exists()


def test_full_disk_is_unavailable_until_there_is_room(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        log = path.with_name(f"{STORE_NAME}-wal")
        with files_up_to(log.stat().st_size), pytest.raises(StoreUnavailable):
            await store.advance(KEY, LATER)
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]
        assert await store.advance(KEY, LATER) is ADVANCE

    use(path, scenario)
    assert read_marks(path) == {KEY: LATER}


@pytest.mark.parametrize("stored", [B, LATER])
def test_other_writer_despite_the_lock_is_noticed(path: Path, stored: Mark) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        values = (KEY.chain_id, KEY.pkh, KEY.right.value, stored.level, stored.round, stored.digest)
        connection.execute("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.close()
        with pytest.raises(StoreUnavailable, match="despite the lock"):
            await store.advance(KEY, A)
        with pytest.raises(WatermarkRejected):
            await store.advance(KEY, A)
        assert await store.advance(KEY, stored) is REPEAT

    use(path, scenario)


def test_store_held_by_another_program_is_unavailable_at_start(path: Path) -> None:
    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=0)

    async def run() -> None:
        await FileWatermarkStore.open(path, connect=connect)

    use(path, nothing)
    advance(path, KEY, A)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM marks").fetchall()
    try:
        alter(path, "UPDATE marks SET round = 3")
        with pytest.raises(StoreUnavailable, match="is kept busy by another program"):
            asyncio.run(run())
    finally:
        connection.close()
    use(path, nothing)


def test_bug_in_the_middle_is_answered_and_the_store_lives_on(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        with pytest.raises(StoreUnavailable, match="surrogates not allowed"):
            await store.advance(MarkKey(KEY.chain_id, "\ud800", KEY.right), A)
        assert await store.advance(KEY, A) is ADVANCE

    use(path, scenario)


def test_bug_at_the_stop_closes_the_file_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: SignatoryFolder, marks: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(SignatoryFolder, "hand_back", fail)
    advance(path, KEY, A)
    assert "ZeroDivisionError: a bug" in caplog.text
    # SQLite removes the log when the last connection is closed.
    assert not path.with_name(f"{STORE_NAME}-wal").exists()
    assert SignatoryFolder(path.parent).left_behind


def test_digest_of_another_length_is_never_stored(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        with pytest.raises(StoreUnavailable, match="CHECK constraint failed"):
            await store.advance(KEY, Mark(10, 0, b"short"))
        assert await store.advance(KEY, Mark(10, 0, digest("long enough"))) is ADVANCE

    use(path, scenario)


def test_bug_while_opening_is_answered(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def connect(path: Path) -> sqlite3.Connection:
        raise ZeroDivisionError("a bug")

    async def run() -> None:
        await FileWatermarkStore.open(path, connect=connect)

    with pytest.raises(StoreUnavailable, match="its thread failed, see the log"):
        asyncio.run(run())
    assert "ZeroDivisionError: a bug" in caplog.text
    use(path, nothing)


def test_reading_leaves_no_log_that_could_hide_a_lost_one(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    create(path)
    # Used once, it is a database with a log, which SQLite takes away when it is closed.
    raise_mark(path, KEY, 5, 0)
    before = sorted(tmp_path.iterdir())
    assert read_marks(path)[KEY].level == 5
    assert sorted(tmp_path.iterdir()) == before
