"""The store on a folder that Signatory used, uses, or will use again."""

import asyncio
import errno
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.watermark import sqlite_marks
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, export_marks, raise_mark, read_marks
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from host_backend.watermark.signatory_files import (
    FOLDER,
    IN_USE_NAME,
    SignatoryFolder,
    read_signatory_marks,
    write_signatory_marks,
)
from host_backend.watermark.sqlite_marks import close_marks, write_marks
from tests.doubles.failing_sqlite import FailingSqlite
from tests.doubles.watermarks import some_chain

KEY = MarkKey("NetXo5iVw1vBoxM", "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", Right.BLOCK)
OTHER = MarkKey("NetXo5iVw1vBoxM", "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", Right.ATTESTATION)
X, Y, Z = b"x" * 32, b"y" * 32, b"z" * 32

Scenario = Callable[[FileWatermarkStore], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / STORE_NAME)
    return tmp_path / STORE_NAME


def marker(path: Path) -> Path:
    return path.parent / FOLDER / IN_USE_NAME


def run(path: Path, scenario: Scenario, disk: FailingSqlite | None = None) -> None:
    async def main() -> None:
        store = await FileWatermarkStore.open(path, connect=(disk or FailingSqlite()).connect)
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(main())


async def nothing(_: FileWatermarkStore) -> None:
    """Open and close in order."""


def advanced(level: int, digest: bytes = X) -> Scenario:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, Mark(level, 0, digest)) is Verdict.ADVANCE

    return scenario


def refused(level: int, digest: bytes = X) -> Scenario:
    async def scenario(store: FileWatermarkStore) -> None:
        with pytest.raises(WatermarkRejected):
            await store.advance(KEY, Mark(level, 0, digest))

    return scenario


def test_signatorys_marks_count_from_the_first_request(path: Path) -> None:
    write_signatory_marks(path.parent, {KEY: Mark(100, 0, X)})
    run(path, refused(100, Y))
    run(path, refused(99))
    assert read_marks(path) == {KEY: Mark(100, 0, X)}


def test_what_signatory_marked_since_the_last_stop_is_merged_at_the_next_start(path: Path) -> None:
    run(path, advanced(100))
    assert read_signatory_marks(path.parent) == {KEY: Mark(100, 0, X)}
    write_signatory_marks(path.parent, {KEY: Mark(200, 0, Y)})
    run(path, refused(150))
    run(path, advanced(201, Z))


def test_lower_marks_of_signatory_change_nothing(path: Path) -> None:
    run(path, advanced(100))
    write_signatory_marks(path.parent, {KEY: Mark(50, 0, Y)})
    run(path, refused(60))
    assert read_marks(path)[KEY] == read_signatory_marks(path.parent)[KEY] == Mark(100, 0, X)


def test_of_two_messages_at_one_place_neither_is_repeated(path: Path) -> None:
    run(path, advanced(100, Y))
    write_signatory_marks(path.parent, {KEY: Mark(100, 0, X)})
    run(path, refused(100, X))
    run(path, refused(100, Y))
    assert read_marks(path) == {KEY: Mark(100, 0, None)}


def test_signatorys_marks_on_ever_so_many_chains_go_on(path: Path) -> None:
    keys = [MarkKey(some_chain(number), KEY.pkh, KEY.right) for number in range(70)]
    write_signatory_marks(path.parent, {key: Mark(10, 0, X) for key in keys})

    async def scenario(store: FileWatermarkStore) -> None:
        for key in keys:
            assert await store.advance(key, Mark(11, 0, Y)) is Verdict.ADVANCE
        for key in (KEY, OTHER):
            with pytest.raises(WatermarkRejected, match=r"marks on 70 chains already, .*`allowed_chains`"):
                await store.advance(key, Mark(10, 0, X))

    run(path, scenario)
    assert read_marks(path) == read_signatory_marks(path.parent) == {key: Mark(11, 0, Y) for key in keys}
    # The way to a chain that is right, as the refusal says; one right is enough, as it opens the chain to the key.
    raise_mark(path, KEY, 9, 0)
    run(path, advanced(10))


def test_signatory_is_kept_out_while_the_store_is_open_and_let_in_after_it(path: Path) -> None:
    async def scenario(_: FileWatermarkStore) -> None:
        assert marker(path).exists()

    run(path, scenario)
    assert not marker(path).exists()


@pytest.mark.parametrize("change", ["mark", "marker", "in place"])
def test_nothing_is_signed_after_another_program_changed_the_folder(path: Path, change: str) -> None:
    write_signatory_marks(path.parent, {KEY: Mark(10, 0, Z)})
    file = path.parent / FOLDER / f"{KEY.chain_id}.json"

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        match change:
            case "mark":
                write_signatory_marks(path.parent, {KEY: Mark(300, 0, Y)})
            case "marker":
                marker(path).unlink()
            case _:
                with file.open("a") as stream:
                    stream.write("\n")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="changed by another program"):
                await store.advance(KEY, Mark(101, 0, X))
        assert store.problem is not None

    run(path, scenario)
    if change == "mark":
        # What it wrote is left alone, and counts at the next start.
        assert read_signatory_marks(path.parent)[KEY] == Mark(300, 0, Y)
        run(path, refused(250))
    run(path, advanced(1000, Z))


def test_unreadable_marks_stop_the_start_and_do_not_keep_signatory_out(path: Path) -> None:
    (path.parent / FOLDER).mkdir()
    file = path.parent / FOLDER / f"{KEY.chain_id}.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match=str(file)):
        run(path, nothing)
    assert not marker(path).exists()
    file.write_text("{}")
    run(path, advanced(1))


def crash(path: Path, folder: Path) -> Path:
    """Copy everything as it is: what a kill of the host leaves."""
    for source in (path, path.with_name(f"{STORE_NAME}-wal"), marker(path)):
        target = folder / source.relative_to(path.parent)
        target.parent.mkdir(exist_ok=True, parents=True)
        target.write_bytes(source.read_bytes())
    return folder / STORE_NAME


@pytest.fixture
def crashed(path: Path, tmp_path: Path) -> Path:
    copies: list[Path] = []

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        copies.append(crash(path, tmp_path / "crashed"))

    run(path, scenario)
    (copy,) = copies
    return copy


def test_after_a_crash_the_store_goes_on_by_itself(crashed: Path) -> None:
    assert marker(crashed).exists()
    run(crashed, refused(100, Y))
    run(crashed, advanced(101, Z))
    assert not marker(crashed).exists()


def test_after_a_crash_a_missing_log_stops_the_start(crashed: Path) -> None:
    crashed.with_name(f"{STORE_NAME}-wal").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match="-wal is missing"):
            run(crashed, nothing)


def test_after_a_crash_with_a_missing_log_raised_marks_and_a_hand_lead_on(crashed: Path) -> None:
    crashed.with_name(f"{STORE_NAME}-wal").unlink()
    raise_mark(crashed, KEY, 500, 0)
    with pytest.raises(ConfigError, match=f"then remove {marker(crashed)}"):
        run(crashed, nothing)
    with pytest.raises(ConfigError, match=f"then remove {marker(crashed)}"):
        export_marks(crashed)
    marker(crashed).unlink()
    run(crashed, refused(500))
    run(crashed, advanced(501))


def test_after_a_crash_a_raise_does_not_stop_the_next_start(crashed: Path) -> None:
    raise_mark(crashed, KEY, 500, 0)
    run(crashed, refused(500))
    run(crashed, advanced(501))


def test_after_a_crash_an_export_lets_signatory_start(crashed: Path) -> None:
    export_marks(crashed)
    assert not marker(crashed).exists()
    assert read_signatory_marks(crashed.parent) == {KEY: Mark(100, 0, X)}


def test_a_disk_that_failed_until_the_stop_does_not_stop_the_next_start(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        (path.parent / FOLDER / "NetXdQprcVkpaWU.json").write_text("{}")

    run(path, scenario, disk)
    assert marker(path).exists()
    assert SignatoryFolder(path.parent).closed_whole
    run(path, refused(100, Y))
    assert not marker(path).exists()


class DeafToCheckpoints(sqlite3.Connection):
    """A file whose log cannot be brought into it, as another program reads it; closing it does what it can."""

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        if "wal_checkpoint" in sql:
            return super().execute("SELECT 1, 0, 0")
        return super().execute(sql, parameters)  # type: ignore[arg-type]


def deaf_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, factory=DeafToCheckpoints)
    # As `open_marks` does: it makes the log.
    connection.execute("PRAGMA user_version = 1")
    return connection


def read_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Have another program read the store from the next offline write on."""
    readers: list[sqlite3.Connection] = []

    def write(connection: sqlite3.Connection, marks: dict[MarkKey, Mark]) -> None:
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM marks").fetchall()
        readers.append(reader)
        write_marks(connection, marks)

    monkeypatch.setattr(sqlite_marks, "write_marks", write)
    monkeypatch.setattr(sqlite_marks, "_BUSY_TIMEOUT_S", 0)
    return readers


@pytest.mark.parametrize("closed_before", [False, True])
def test_a_log_that_could_not_be_merged_is_missed_when_it_is_lost(
    crashed: Path, monkeypatch: pytest.MonkeyPatch, closed_before: bool
) -> None:
    log = crashed.with_name(f"{STORE_NAME}-wal")
    if closed_before:
        raise_mark(crashed, OTHER, 1, 0)
        assert SignatoryFolder(crashed.parent).closed_whole
    with monkeypatch.context() as patch:
        readers = read_meanwhile(crashed, patch)
        raise_mark(crashed, KEY, 500, 0)
    (reader,) = readers
    reader.close()
    assert log.stat().st_size > 0
    assert not SignatoryFolder(crashed.parent).closed_whole
    log.rename(log.with_name("lost"))
    with pytest.raises(ConfigError, match="-wal is missing"):
        run(crashed, nothing)
    log.with_name("lost").rename(log)
    run(crashed, refused(500))


@pytest.mark.parametrize("taken_away", [False, True])
def test_closing_notes_what_became_of_the_log(crashed: Path, taken_away: bool) -> None:
    folder, log = SignatoryFolder(crashed.parent), crashed.with_name(f"{STORE_NAME}-wal")
    connection = deaf_connection(crashed)
    if taken_away:
        log.unlink()
    close_marks(connection, crashed, folder)
    assert not log.exists()
    assert folder.closed_whole is not taken_away


def test_closing_closes_the_file_even_if_nothing_can_be_seen(crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error", str(path))

    connection, folder = deaf_connection(crashed), SignatoryFolder(crashed.parent)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", fail)
        close_marks(connection, crashed, folder)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    assert not folder.closed_whole


def test_export_brings_both_together(path: Path) -> None:
    run(path, advanced(100))
    write_signatory_marks(path.parent, {KEY: Mark(50, 0, Y), OTHER: Mark(7, 1, Y)})
    export_marks(path)
    expected = {KEY: Mark(100, 0, X), OTHER: Mark(7, 1, Y)}
    assert read_signatory_marks(path.parent) == expected
    kinds = json.loads((path.parent / FOLDER / f"{KEY.chain_id}.json").read_text())[OTHER.pkh]
    assert kinds["attestation"] == kinds["attestation_with_dal"]
