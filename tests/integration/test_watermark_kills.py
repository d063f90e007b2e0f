"""`kill -9` at every call to the system, in everything that is done to marks, taking over the store of 0.1 among it.

Whatever is found then: no mark is lower than it was, nobody is needed for the next start, and version 0.1, where it starts
in between, signs nothing twice.
"""

import asyncio
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, WatermarkRejected
from host_backend.watermark.file.old_sqlite import TAKEN_OVER_SUFFIX
from host_backend.watermark.file.place import STORE_NAME, store_path
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from host_backend.watermark.signatory.layouts import FOLDER, IN_USE_NAME, read_signatory_marks, write_signatory_marks
from tests.doubles.killed_at_every_call import CHAIN, DEEDS, KEYS
from tests.doubles.old_host import NAME, OldHost, OldRefusal, connect, make_old_store, old_folder
from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import run
from tests.doubles.watermarks import advance, created, digest, gather, marks_of, opened, read_marks

SHM = Path("/dev/shm")
SIGNED = {key: Mark(100 + number, 0, digest(key)) for number, key in enumerate(KEYS)}


@pytest.fixture
def room() -> Iterator[Path]:
    folder = Path(f"{SHM if SHM.is_dir() else '/tmp'}/kills-{os.getpid()}-{random.getrandbits(32)}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def killed(deed: str, folder: Path, room: Path) -> list[Path]:
    """Do something to copies of a folder, with a death at every call; return the copies."""
    target = room / "killed"
    target.mkdir()
    command = [sys.executable, "-m", "tests.doubles.killed_at_every_call", deed, str(folder), str(target)]
    done = run(command, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    return [target / str(number) for number in range(1, int(done.stdout) + 1)]


def new_folder(base: Path) -> Path:
    base.mkdir()
    for key, mark in SIGNED.items():
        if not store_path(base).exists():
            created(base)
        advance(base, key, mark)
    return base


def other(mark: Mark) -> Mark:
    return Mark(mark.level, mark.round, digest("another", mark.level))


def nothing_is_signed_twice(base: Path, signed: dict[MarkKey, Mark]) -> None:
    """Start, ask for other messages where something was signed, go on, and stop."""

    async def life() -> None:
        store = await opened(base)
        answers = await gather(*(store.advance(key, other(mark)) for key, mark in signed.items()))
        assert answers == [WatermarkRejected] * len(signed)
        await store.aclose()

    asyncio.run(life())
    found = read_marks(base)
    assert all((found[key].level, found[key].round) >= (mark.level, mark.round) for key, mark in signed.items())
    assert not (base / FOLDER / IN_USE_NAME).exists()
    assert read_signatory_marks(base) == found


def old_host_signs(base: Path, signed: dict[MarkKey, Mark]) -> bool:
    """Start version 0.1 on a folder, if it starts; nothing is signed twice, and it signs something new."""
    try:
        host = OldHost(base)
    except OldRefusal:
        return False
    for key, mark in signed.items():
        with pytest.raises(WatermarkRejected):
            host.advance(key, other(mark))
        signed[key] = Mark(mark.level + 1, 0, digest("by 0.1", key))
        host.advance(key, signed[key])
    host.stop()
    return True


@pytest.mark.parametrize("end", ["stopped", "stopped without handing back"])
@pytest.mark.parametrize("between", ["nothing", "0.1"])
def test_taking_over_the_old_store_dies_anywhere(room: Path, end: str, between: str) -> None:
    host = old_folder(room / "old", SIGNED)
    if end == "stopped":
        host.stop()
    else:
        host.stop_without_handing_back()
    old_starts = 0
    folders = killed("start_and_stop", room / "old", room)
    for folder in folders:
        signed = dict(SIGNED)
        if between == "0.1":
            old_starts += old_host_signs(folder, signed)
        nothing_is_signed_twice(folder, signed)
        assert not (folder / NAME).exists()
        assert (folder / f"{NAME}{TAKEN_OVER_SUFFIX}").exists()
    if between == "0.1":
        assert len(folders) > old_starts > 5


def test_a_running_host_of_0_1_is_met(room: Path) -> None:
    host = old_folder(room / "old", SIGNED)
    for use in (
        lambda: nothing_is_signed_twice(host.base, SIGNED),
        lambda: marks_of(host.base).raise_mark(KEYS[0], Mark(500, 0, None)),
        lambda: marks_of(host.base).rebuild(Rebuilt([], [], 500), ".damaged"),
        lambda: marks_of(host.base).create(),
    ):
        with pytest.raises(ConfigError, match="is in use by process"):
            use()
    host.advance(KEYS[0], Mark(200, 0, digest("while it runs")))
    host.stop()
    nothing_is_signed_twice(host.base, SIGNED | {KEYS[0]: Mark(200, 0, digest("while it runs"))})


def test_0_1_does_not_start_beside_the_new_store(room: Path) -> None:
    old_folder(room / "old", SIGNED).stop()

    async def life() -> None:
        store = await opened(room / "old")
        with pytest.raises(OldRefusal, match="in use"):
            OldHost(room / "old")
        assert await store.advance(KEYS[0], Mark(300, 0, digest("new"))) is Verdict.ADVANCE
        await store.aclose()

    asyncio.run(life())
    # Stopped in order, it may: it makes its store of Signatory's files, and the next start merges that.
    signed = SIGNED | {KEYS[0]: Mark(300, 0, digest("new"))}
    assert old_host_signs(room / "old", signed)
    nothing_is_signed_twice(room / "old", signed)
    # A store of its own that was put back is refused by its content.
    (room / "old" / f"{NAME}{TAKEN_OVER_SUFFIX}").rename(room / "old" / NAME)
    with pytest.raises(OldRefusal, match="version 2"):
        OldHost(room / "old")
    nothing_is_signed_twice(room / "old", signed)


def test_an_old_store_that_was_taken_over_is_not_read_again_when_the_new_one_is_gone(room: Path) -> None:
    old_folder(room / "old", SIGNED).stop()
    nothing_is_signed_twice(room / "old", SIGNED)
    advance(room / "old", KEYS[0], Mark(400, 0, digest("new")))
    store_path(room / "old").unlink()
    for name in (f"{NAME}{TAKEN_OVER_SUFFIX}", NAME):
        with suppress(FileNotFoundError):
            (room / "old" / f"{NAME}{TAKEN_OVER_SUFFIX}").rename(room / "old" / name)
        with pytest.raises(ConfigError, match=r"took over that of version 0\.1 .*watermark rebuild --above-level"):
            nothing_is_signed_twice(room / "old", SIGNED)
    marks_of(room / "old").rebuild(Rebuilt([], [], 400), ".damaged")
    nothing_is_signed_twice(room / "old", SIGNED | {KEYS[0]: Mark(400, 0, digest("new"))})


def spoil_log(base: Path) -> None:
    (base / f"{NAME}-wal").write_bytes(b"")


def lose_log(base: Path) -> None:
    (base / f"{NAME}-wal").unlink()


def flip_log(base: Path) -> None:
    log = base / f"{NAME}-wal"
    data = bytearray(log.read_bytes())
    data[40] ^= 1
    log.write_bytes(data)


def keep_log(base: Path) -> None:
    assert (base / f"{NAME}-wal").stat().st_size


def lose_note_and_log(base: Path) -> None:
    """What a new container leaves of a store that was mounted as one file."""
    lose_log(base)
    (base / FOLDER / IN_USE_NAME).unlink()
    connection = connect(base / NAME)
    connection.execute("UPDATE marks SET level = level - 50")
    connection.close()
    os.link(base / NAME, base / "a second name")


@pytest.mark.parametrize("spoil", [keep_log, lose_log, spoil_log, flip_log, lose_note_and_log])
def test_an_old_store_that_did_not_end_in_order_is_not_believed(room: Path, spoil: object) -> None:
    host = old_folder(room / "old", SIGNED)
    host.kill()
    assert callable(spoil)
    spoil(room / "old")
    before = tree(room / "old")
    with pytest.raises(
        ConfigError, match=r"version 0\.1, .*`enclave-host watermark migrate --above-level N`"
    ) as caught:
        nothing_is_signed_twice(room / "old", SIGNED)
    assert "remov" not in str(caught.value)
    assert tree(room / "old") == before
    marks_of(room / "old").rebuild(Rebuilt([key.pkh for key in KEYS], [CHAIN], 200), ".damaged")
    nothing_is_signed_twice(room / "old", SIGNED)
    found = read_marks(room / "old")
    assert set(found) == set(KEYS)
    assert {mark.level for mark in found.values()} == {200}


def tree(base: Path) -> dict[str, bytes]:
    return {str(file.relative_to(base)): file.read_bytes() for file in base.rglob("*") if file.is_file()}


@pytest.mark.parametrize("deed", [name for name in DEEDS if name not in {"create", "retire"}])
@pytest.mark.parametrize("clean", [True, False])
def test_every_deed_dies_anywhere(room: Path, deed: str, clean: bool) -> None:
    base = new_folder(room / "new")
    if not clean:
        (base / FOLDER / IN_USE_NAME).write_bytes(b'"enclave-host has these keys: stop it before Signatory starts"\n')
    signed = dict(SIGNED)
    if deed == "reset_one":
        # That is what it is for.
        signed[KEYS[0]] = Mark(50, 0, None)
    for folder in killed(deed, base, room):
        in_use = (folder / FOLDER / IN_USE_NAME).exists()
        theirs = read_signatory_marks(folder)
        if not in_use:
            # Signatory starts now: it must find everything.
            assert all(theirs[key].level >= mark.level for key, mark in signed.items())
        nothing_is_signed_twice(folder, signed)
        again(deed, folder)
        nothing_is_signed_twice(folder, signed)
        assert not [file for file in folder.iterdir() if file.name.endswith(".tmp") and file.name.count("marks") == 0]


def again(deed: str, folder: Path) -> None:
    """Do it once more; only what moves up may say that it is there already."""
    with suppress(ConfigError) if deed == "raise_one" else nullcontext():
        DEEDS[deed](folder)


def test_making_a_store_dies_anywhere(room: Path) -> None:
    base = room / "theirs"
    base.mkdir()
    write_signatory_marks(base, SIGNED)
    for folder in killed("create", base, room):
        nothing_is_signed_twice(folder, SIGNED)


def test_giving_a_store_up_dies_anywhere(room: Path) -> None:
    base = new_folder(room / "new")
    for folder in killed("retire", base, room):
        if store_path(folder).exists():
            DEEDS["retire"](folder)
        assert not (folder / STORE_NAME).exists()
        # What was signed is found by the next host, and Signatory is kept out.
        assert read_signatory_marks(folder) == SIGNED
        assert (folder / FOLDER / IN_USE_NAME).exists()
        with pytest.raises(ConfigError, match="watermark rebuild --above-level"):
            nothing_is_signed_twice(folder, SIGNED)


def test_an_old_store_that_came_without_its_folder_is_not_believed(room: Path) -> None:
    """Its host was killed, and of its container the one file is left that was mounted: the last checkpoint."""
    base = room / "old"
    host = old_folder(base, SIGNED)
    host.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    host.advance(KEYS[0], Mark(500, 0, digest("after the checkpoint")))
    host.kill()
    (room / "new").mkdir()
    shutil.copyfile(base / NAME, room / "new" / NAME)
    for older in (False, True):
        if older:
            write_signatory_marks(room / "new", {key: Mark(50, 0, None) for key in SIGNED})
        with pytest.raises(ConfigError, match="do not have what an orderly stop writes there"):
            nothing_is_signed_twice(room / "new", SIGNED)


def test_an_old_store_that_never_signed_is_taken_over(room: Path) -> None:
    (room / "never opened").mkdir()
    make_old_store(room / "never opened")
    nothing_is_signed_twice(room / "never opened", {})
    old_folder(room / "opened", {}).stop()
    nothing_is_signed_twice(room / "opened", {})


@pytest.mark.parametrize("note", [b"", b'"enclave-host has these k'])
def test_an_old_store_with_a_note_that_is_not_whole_is_not_believed(room: Path, note: bytes) -> None:
    host = old_folder(room / "old", SIGNED)
    host.kill()
    lose_log(room / "old")
    (room / "old" / FOLDER / IN_USE_NAME).write_bytes(note)
    with pytest.raises(ConfigError, match="did not end in order"):
        nothing_is_signed_twice(room / "old", SIGNED)


def test_a_refused_rebuild_leaves_the_log_of_an_old_store_alone(room: Path) -> None:
    """Its log is the sign that its host did not end in order."""
    old_folder(room / "old", SIGNED).kill()
    before = tree(room / "old")
    with pytest.raises(ConfigError, match="level -1 must be from 0"):
        marks_of(room / "old").rebuild(Rebuilt([], [], -1), ".damaged")
    assert tree(room / "old") == before
    with pytest.raises(ConfigError, match="did not end in order"):
        nothing_is_signed_twice(room / "old", SIGNED)
