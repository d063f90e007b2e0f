"""The SQLite file of `FileWatermarkStore`: made, opened, refused, and changed offline."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from enclave_signer.tezos.consensus import Right
from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, raise_mark, read_marks
from host_backend.watermark.rule import MAX_LEVEL, Mark, MarkKey
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    USES,
    A,
    advance,
    alter,
    digest,
    gather,
    nothing,
    open_and_close,
    raise_one,
    use,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / STORE_NAME)
    return tmp_path / STORE_NAME


def test_new_store_is_private_and_empty(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_marks(path) == {}
    assert sorted(file.name for file in path.parent.iterdir()) == ["watermark.lock", STORE_NAME]


def test_log_beside_the_store_is_private_too(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, A)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir() if file.is_file()}
        assert f"{STORE_NAME}-wal" in modes
        assert set(modes.values()) == {0o600}

    use(path, scenario)


def test_existing_store_is_never_overwritten(path: Path) -> None:
    advance(path, KEY, A)
    with pytest.raises(ConfigError, match="never overwritten"):
        create(path)
    assert read_marks(path) == {KEY: A}


@pytest.mark.parametrize("rest", ["-wal", "-shm", "-journal"])
def test_no_store_is_made_beside_what_is_left_of_another(tmp_path: Path, rest: str) -> None:
    (tmp_path / (STORE_NAME + rest)).write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{STORE_NAME}{rest} exists"):
        create(tmp_path / STORE_NAME)


def test_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    with files_up_to(1024), pytest.raises(StoreUnavailable, match="File too large"):
        create(tmp_path / STORE_NAME)
    assert [file.name for file in tmp_path.iterdir()] == ["watermark.lock"]


def test_absence_is_not_permission(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    for use_it in USES:
        with pytest.raises(ConfigError, match=r"no watermark store at .*`enclave-host watermark init`"):
            use_it(path)
    assert not path.exists()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    for use_it in (create, open_and_close, raise_one):
        with pytest.raises(ConfigError, match="missing is not a folder"):
            use_it(tmp_path / "missing" / STORE_NAME)


def test_second_opener_is_told_who_has_it(path: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        for use_it in (create, open_and_close, raise_one):
            with pytest.raises(ConfigError) as caught:
                await asyncio.to_thread(use_it, path)
            assert str(caught.value).startswith(f"{path.parent} is in use by process {os.getpid()} ")
            assert "\n" not in str(caught.value)
        assert await store.advance(KEY, A) is ADVANCE

    use(path, scenario)
    use(path, nothing)


GARBAGE = {
    "text": b"nonsense" * 1000,
    "empty": b"",
    "zeros": bytes(8192),
    "header only": b"SQLite format 3\0" + bytes(84),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_by_name_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / STORE_NAME
    path.write_bytes(content)
    for use_it in USES:
        with pytest.raises(ConfigError, match=str(path)):
            use_it(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("PRAGMA application_id = 0", r"is not a watermark store \(application id 0\)"),
        ("PRAGMA application_id = 42", r"is not a watermark store \(application id 42\)"),
        ("PRAGMA user_version = 0", "has version 0, and this program knows 1"),
        ("PRAGMA user_version = 2", "has version 2, and this program knows 1"),
        ("DROP TABLE marks", "no such table"),
    ],
)
def test_foreign_file_is_refused(path: Path, statement: str, reason: str) -> None:
    alter(path, statement)
    with pytest.raises(HostError, match=reason):
        use(path, nothing)


def test_damaged_store_is_refused(path: Path) -> None:
    async def fill(store: FileWatermarkStore) -> None:
        keys = [MarkKey(KEY.chain_id, f"tz1{number:040}", right) for number in range(200) for right in Right]
        await asyncio.gather(*(store.advance(key, A) for key in keys))

    use(path, fill)
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    assert pages > 10
    content[4096 * (pages - 1) : 4096 * pages] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"damaged|not a sound"):
        use(path, nothing)


def test_impossible_mark_is_damage(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("INSERT INTO marks VALUES ('Net', 'tz1', 'block', -1, 0, NULL)")
    connection.close()
    with pytest.raises(ConfigError, match="is damaged"):
        use(path, nothing)


# Offline


def test_raised_mark_blocks_everything_up_to_it(path: Path) -> None:
    advance(path, KEY, A)
    raise_mark(path, KEY, 20, 3)
    assert read_marks(path) == {KEY: Mark(20, 3, None)}

    async def scenario(store: FileWatermarkStore) -> None:
        asked = [A, LATER, Mark(20, 3, digest(20)), Mark(20, 4, digest(20))]
        no = WatermarkRejected
        assert await gather(*(store.advance(KEY, mark) for mark in asked)) == [no, no, no, ADVANCE]

    use(path, scenario)


def test_mark_may_be_raised_beyond_the_largest_jump_and_where_none_was(path: Path) -> None:
    raise_mark(path, KEY, 0, 0)
    raise_mark(path, KEY, MAX_LEVEL, MAX_LEVEL)
    raise_mark(path, OTHER, 1, 0)
    assert read_marks(path) == {KEY: Mark(MAX_LEVEL, MAX_LEVEL, None), OTHER: Mark(1, 0, None)}


@pytest.mark.parametrize(("level", "round_"), [(10, 2), (10, 1), (9, 3), (0, 0)])
def test_mark_is_never_lowered(path: Path, level: int, round_: int) -> None:
    advance(path, KEY, A)
    with pytest.raises(ConfigError, match="is at level 10 round 2 and moves only up"):
        raise_mark(path, KEY, level, round_)
    assert read_marks(path) == {KEY: A}


@pytest.mark.parametrize(("level", "round_"), [(-1, 0), (0, -1), (MAX_LEVEL + 1, 0), (0, MAX_LEVEL + 1)])
def test_mark_is_not_raised_out_of_range(path: Path, level: int, round_: int) -> None:
    with pytest.raises(ConfigError, match="must be from 0 to 2147483647"):
        raise_mark(path, KEY, level, round_)
    assert read_marks(path) == {}


def test_path_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%41é"
    folder.mkdir()
    create(folder / STORE_NAME)
    advance(folder / STORE_NAME, KEY, A)
    raise_mark(folder / STORE_NAME, KEY, 20, 0)
    assert read_marks(folder / STORE_NAME) == {KEY: Mark(20, 0, None)}
