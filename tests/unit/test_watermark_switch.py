"""The store on a folder that Signatory used, uses, or will use again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import (
    FOLDER,
    IN_USE_NAME,
    read_signatory_marks,
    write_signatory_marks,
)
from tests.doubles.faulty_blocks import FaultyDisk
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    OTHER,
    Scenario,
    created,
    everything_in,
    export,
    marks_of,
    nothing,
    open_and_close,
    read_marks,
    some_chain,
    use,
    use_to_a_bad_end,
)

X, Y, Z = b"x" * 32, b"y" * 32, b"z" * 32


def marker(base: Path) -> Path:
    return base / FOLDER / IN_USE_NAME


def advanced(level: int, digest: bytes = X) -> Scenario:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, Mark(level, 0, digest)) is ADVANCE

    return scenario


def refused(level: int, digest: bytes = X) -> Scenario:
    async def scenario(store: FileWatermarkStore) -> None:
        with pytest.raises(WatermarkRejected):
            await store.advance(KEY, Mark(level, 0, digest))

    return scenario


# Coming from Signatory


def test_signatorys_marks_count_from_the_first_request(base: Path) -> None:
    write_signatory_marks(base, {KEY: Mark(100, 0, X)})
    use(base, refused(100, Y))
    use(base, refused(99))
    assert read_marks(base) == {KEY: Mark(100, 0, X)}


@pytest.mark.parametrize("make", [created, open_and_close])
def test_where_signatory_left_marks_the_store_is_made_of_them(tmp_path: Path, make: Callable[[Path], object]) -> None:
    marks = {KEY: Mark(100, 0, X), OTHER: Mark(7, 1, None)}
    write_signatory_marks(tmp_path, marks)
    make(tmp_path)
    assert read_marks(tmp_path) == read_signatory_marks(tmp_path) == marks
    assert not marker(tmp_path).exists()
    use(tmp_path, refused(100, Y))


def test_only_a_start_makes_a_store_by_itself_and_only_of_marks(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(ConfigError, match=r"no watermark store at .*; there are no marks in Signatory's files"):
        use(tmp_path, nothing)
    write_signatory_marks(tmp_path, {KEY: Mark(100, 0, X)})
    before = everything_in(tmp_path)
    for use_it in (export, lambda base: marks_of(base).raise_mark(KEY, Mark(200, 0, None))):
        with pytest.raises(ConfigError, match=r"no watermark store at .* have 1 marks, the highest at level 100"):
            use_it(tmp_path)
    assert everything_in(tmp_path) == before


def test_what_signatory_marked_since_the_last_stop_is_merged_at_the_next_start(base: Path) -> None:
    use(base, advanced(100))
    assert read_signatory_marks(base) == {KEY: Mark(100, 0, X)}
    write_signatory_marks(base, {KEY: Mark(200, 0, Y)})
    use(base, refused(150))
    use(base, advanced(201, Z))


def test_lower_marks_of_signatory_change_nothing(base: Path) -> None:
    use(base, advanced(100))
    write_signatory_marks(base, {KEY: Mark(50, 0, Y)})
    use(base, refused(60))
    assert read_marks(base)[KEY] == read_signatory_marks(base)[KEY] == Mark(100, 0, X)


def test_of_two_messages_at_one_place_neither_is_repeated(base: Path) -> None:
    use(base, advanced(100, Y))
    write_signatory_marks(base, {KEY: Mark(100, 0, X)})
    use(base, refused(100, X))
    use(base, refused(100, Y))
    assert read_marks(base) == {KEY: Mark(100, 0, None)}


def test_signatorys_marks_on_ever_so_many_chains_go_on(base: Path) -> None:
    keys = [MarkKey(some_chain(number), KEY.pkh, KEY.right) for number in range(70)]
    write_signatory_marks(base, {key: Mark(10, 0, X) for key in keys})

    async def scenario(store: FileWatermarkStore) -> None:
        for key in keys:
            assert await store.advance(key, Mark(11, 0, Y)) is ADVANCE
        for key in (KEY, OTHER):
            with pytest.raises(WatermarkRejected, match=r"marks on 70 chains already, .*`allowed_chains`"):
                await store.advance(key, Mark(10, 0, X))

    use(base, scenario)
    assert read_marks(base) == read_signatory_marks(base) == {key: Mark(11, 0, Y) for key in keys}
    # The way to a chain that is right, as the refusal says; one right is enough, as it opens the chain to the key.
    marks_of(base).raise_mark(KEY, Mark(9, 0, None))
    use(base, advanced(10))


def test_unreadable_marks_stop_the_start_and_do_not_keep_signatory_out(base: Path) -> None:
    (base / FOLDER).mkdir()
    file = base / FOLDER / f"{KEY.chain_id}.json"
    file.write_text("{")
    before = everything_in(base)
    with pytest.raises(ConfigError, match=f"{file}: .*`enclave-host watermark rebuild"):
        use(base, nothing)
    assert everything_in(base) == before
    file.write_text("{}")
    use(base, advanced(1))


def test_unreadable_marks_are_put_aside_only_when_others_are_there_instead(base: Path) -> None:
    use(base, advanced(100))
    file = base / FOLDER / f"{KEY.chain_id}.json"
    file.write_text("{")
    with files_up_to(100_000), pytest.raises(StoreUnavailable, match="File too large"):
        marks_of(base).rebuild(Rebuilt([], [], 500), ".damaged")
    with pytest.raises(ConfigError, match=str(file)):
        use(base, nothing)
    marks_of(base).rebuild(Rebuilt([], [], 500), ".damaged")
    assert file.with_name(f"{file.name}.damaged").read_text() == "{"
    use(base, refused(500, Y))
    use(base, advanced(501))


def test_marks_that_cannot_be_taken_over_stop_the_start_and_let_signatory_go_on(base: Path) -> None:
    write_signatory_marks(base, {KEY: Mark(100, 0, X)})
    disk = FaultyDisk()
    # The first calls bring both headers up; the next ones give Signatory's right a slot.
    disk.fail_at = frozenset(range(5, 1000))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        use(base, nothing, disk)
    assert not marker(base).exists()
    assert read_signatory_marks(base) == {KEY: Mark(100, 0, X)}
    use(base, refused(100, Y))


# Beside Signatory


def test_signatory_is_kept_out_while_the_store_is_open_and_let_in_after_it(base: Path) -> None:
    async def scenario(_: FileWatermarkStore) -> None:
        assert marker(base).exists()

    use(base, scenario)
    assert not marker(base).exists()


@pytest.mark.parametrize("change", ["mark", "marker", "in place"])
def test_nothing_is_signed_after_another_program_changed_the_folder(base: Path, change: str) -> None:
    write_signatory_marks(base, {KEY: Mark(10, 0, Z)})
    file = base / FOLDER / f"{KEY.chain_id}.json"

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        match change:
            case "mark":
                write_signatory_marks(base, {KEY: Mark(300, 0, Y)})
            case "marker":
                marker(base).unlink()
            case _:
                with file.open("a") as stream:
                    stream.write("\n")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="changed by another program"):
                await store.advance(KEY, Mark(101, 0, X))
        assert store.problem is not None

    assert "changed by another program" in use_to_a_bad_end(base, scenario)
    # What it wrote is left alone, and counts at the next start.
    if change == "mark":
        assert read_signatory_marks(base)[KEY] == Mark(300, 0, Y)
        use(base, refused(250))
    use(base, refused(100, Y))
    use(base, advanced(1000, Z))


def test_a_change_without_a_request_is_noticed_at_the_stop(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        (base / FOLDER / "NetXdQprcVkpaWU.json").write_text("{}")

    assert "changed by another program" in use_to_a_bad_end(base, scenario)
    assert marker(base).exists()
    use(base, refused(100, Y))
    assert not marker(base).exists()


@pytest.mark.usefixtures("never_quiet")
def test_marks_that_cannot_be_handed_back_keep_signatory_out(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        shutil.rmtree(base / FOLDER)
        (base / FOLDER).write_text("in the way")

    assert "changed by another program" in use_to_a_bad_end(base, scenario)
    (base / FOLDER).unlink()
    use(base, refused(100, Y))


@pytest.mark.usefixtures("never_quiet")
def test_a_disk_that_fails_at_the_stop_leaves_the_marks_where_the_next_start_finds_them(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        await advanced(100)(store)
        disk.fail_next = 1000

    assert "Input/output error" in use_to_a_bad_end(base, scenario, disk)
    assert marker(base).exists()
    assert read_signatory_marks(base) == {KEY: Mark(100, 0, X)}
    use(base, refused(100, Y))
    assert not marker(base).exists()


# After a crash


@pytest.fixture
def crashed(base: Path, tmp_path: Path) -> Path:
    """What a kill of the host leaves."""
    folder = tmp_path / "crashed"

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, Mark(100, 0, X))
        shutil.copytree(base, folder)

    use(base, scenario)
    assert marker(folder).exists()
    return folder


def test_after_a_crash_the_store_goes_on_by_itself(crashed: Path) -> None:
    use(crashed, refused(100, Y))
    use(crashed, advanced(101, Z))
    assert not marker(crashed).exists()
    assert read_signatory_marks(crashed) == {KEY: Mark(101, 0, Z)}


def test_after_a_crash_a_missing_store_stops_everything_but_making_it_anew(crashed: Path) -> None:
    store_path(crashed).unlink()
    before = everything_in(crashed)
    for use_it in (open_and_close, created, export, lambda base: marks_of(base).raise_mark(KEY, Mark(500, 0, None))):
        with pytest.raises(
            ConfigError,
            match=r"did not end in order: put back the original file, never an earlier .*`enclave-host watermark rebuild",
        ):
            use_it(crashed)
    assert everything_in(crashed) == before
    assert marks_of(crashed).rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], 500), ".damaged") == 3
    assert not marker(crashed).exists()
    use(crashed, refused(500))
    use(crashed, advanced(501))


def test_after_a_crash_a_raise_does_not_stop_the_next_start(crashed: Path) -> None:
    marks_of(crashed).raise_mark(KEY, Mark(500, 0, None))
    use(crashed, refused(500))
    use(crashed, advanced(501))


def test_after_a_crash_an_export_lets_signatory_start(crashed: Path) -> None:
    export(crashed)
    assert not marker(crashed).exists()
    assert read_signatory_marks(crashed) == {KEY: Mark(100, 0, X)}


def test_a_refused_start_after_a_crash_still_keeps_signatory_out(crashed: Path) -> None:
    disk = FaultyDisk()
    disk.fail_next = 1
    with pytest.raises(StoreUnavailable):
        use(crashed, nothing, disk)
    assert SignatoryFolder(crashed).left_behind


# Going back to Signatory


def test_export_brings_both_together(base: Path) -> None:
    use(base, advanced(100))
    write_signatory_marks(base, {KEY: Mark(50, 0, Y), OTHER: Mark(7, 1, Y)})
    export(base)
    expected = {KEY: Mark(100, 0, X), OTHER: Mark(7, 1, Y)}
    assert read_signatory_marks(base) == read_marks(base) == expected
    kinds = json.loads((base / FOLDER / f"{KEY.chain_id}.json").read_text())[OTHER.pkh]
    assert kinds["attestation"] == kinds["attestation_with_dal"]
