"""`durable`: locks that say who holds them, and quiet ones that leave no trace."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from host_backend.durable import LockHeld, holder_of, holder_of_inode, locked, locked_quietly, record_locked


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_lock_refuses_a_second_holder_and_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with locked(path):
        assert mode_of(path) == 0o600
        with pytest.raises(LockHeld) as caught, locked(path):
            pytest.fail("two holders")
        assert str(caught.value) == (
            f"{tmp_path} is in use by process {os.getpid()} (lock file the.lock): stop it first, or use another folder"
        )
    with locked(path):
        pass


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"9" * 100])
def test_lock_file_with_anything_in_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "the.lock"
    with locked(path):
        path.write_bytes(content)
        with pytest.raises(LockHeld, match="in use by "), locked(path):
            pytest.fail("two holders")
    with locked(path):
        assert path.read_bytes() == b"%d\n" % os.getpid()


def test_lock_is_free_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with pytest.raises(KeyError), locked(path):
        raise KeyError
    with locked(path):
        pass


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    got_it = threading.Event()

    def second() -> None:
        with locked(path, wait_s=60):
            got_it.set()

    waiter = threading.Thread(target=second)
    with locked(path):
        waiter.start()
    assert got_it.wait(60)
    waiter.join()


def test_waiting_for_a_lock_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with locked(path), pytest.raises(LockHeld), locked(path, wait_s=0.05):
        pytest.fail("two holders")


def test_lock_binds_other_processes_and_ends_with_them(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    program = (
        "import sys; from pathlib import Path; from host_backend.durable import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(LockHeld, match=f"process {child.pid} "), locked(path):
            pytest.fail("two holders")
        child.kill()
    with locked(path):
        pass


def test_who_holds_a_lock_is_seen_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "folder.lock"
    assert holder_of(path) is None
    assert not path.exists()
    with locked(path):
        # Whatever the file says: its last holder may not have signed it yet.
        for content in (b"", b"1\n", b"garbage"):
            path.write_bytes(content)
            assert holder_of(path) == os.getpid()
            assert holder_of_inode(path.stat()) == os.getpid()
    assert path.exists()
    assert holder_of(path) is None


def test_who_holds_a_lock_is_seen_by_any_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with locked(path):
        (tmp_path / "symbolic").symlink_to(path)
        (tmp_path / "hard").hardlink_to(path)
        (tmp_path / "other").write_bytes(b"")
        assert holder_of(tmp_path / "symbolic") == holder_of(tmp_path / "hard") == os.getpid()
        assert holder_of(tmp_path / "other") is holder_of(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("listed", "holder"),
    [
        ([], None),
        (["1: FLOCK ADVISORY WRITE 42 fd:01:7 0 EOF"], 42),
        # Of several files with that number the one on the same device counts; of one, it alone.
        (["1: FLOCK ADVISORY WRITE 41 00:1f:7 0 EOF", "2: FLOCK ADVISORY WRITE 42 fd:01:7 0 EOF"], 42),
        (["1: FLOCK ADVISORY WRITE 42 00:1f:7 0 EOF"], 42),
        (["1: FLOCK ADVISORY WRITE 41 00:1f:7 0 EOF", "2: FLOCK ADVISORY WRITE 42 00:2a:7 0 EOF"], None),
        # Other files, kinds of locks, and those who only wait.
        (["1: FLOCK ADVISORY WRITE 42 fd:01:77 0 EOF"], None),
        (["1: POSIX ADVISORY WRITE 42 fd:01:7 0 EOF"], None),
        (["1: -> FLOCK ADVISORY WRITE 42 fd:01:7 0 EOF"], None),
        # A process that is not seen from in here.
        (["1: FLOCK ADVISORY WRITE 0 fd:01:7 0 EOF"], None),
        (["", "1:", "1: FLOCK", "something else altogether"], None),
    ],
)
def test_the_list_of_locks(monkeypatch: pytest.MonkeyPatch, listed: list[str], holder: int | None) -> None:
    read_text = Path.read_text

    def read(path: Path, encoding: str) -> str:
        return "\n".join(listed) if path == Path("/proc/locks") else read_text(path, encoding)

    monkeypatch.setattr(Path, "read_text", read)
    stat = os.stat_result((0o100600, 7, os.makedev(0xFD, 1), 1, 0, 0, 0, 0, 0, 0))
    assert holder_of_inode(stat) == holder


def test_where_locks_are_not_listed_nobody_seems_to_hold_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, encoding: str) -> str:
        raise PermissionError

    path = tmp_path / "the.lock"
    with locked(path):
        monkeypatch.setattr(Path, "read_text", read)
        assert holder_of(path) is None
        with pytest.raises(LockHeld, match="in use by another process"), locked(path):
            pytest.fail("two holders")


# Quietly


def _changes_of(path: Path) -> tuple[int, int, int, int]:
    # Without the time of the last read, which reading moves where the mount says so.
    seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def test_a_quiet_lock_leaves_no_trace_before_it_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with locked_quietly(path):
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with locked_quietly(path) as claim:
        claim()
        claim()
        assert path.read_bytes() == b"%d\n" % os.getpid()
        assert mode_of(path) == 0o600
    # As with any lock the file stays.
    assert list(tmp_path.iterdir()) == [path]


def test_a_quiet_lock_names_its_holder_in_the_file_only_when_it_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    path.write_bytes(b"4711, the last one\n")
    seen = _changes_of(path)
    with locked_quietly(path) as claim:
        assert path.read_bytes() == b"4711, the last one\n"
        assert _changes_of(path) == seen
        claim()
        assert path.read_bytes() == b"%d\n" % os.getpid()


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("claimed", [False, True])
def test_a_quiet_lock_refuses_a_second_holder_and_names_the_first(
    tmp_path: Path, there_before: bool, claimed: bool
) -> None:
    path = tmp_path / "the.lock"
    if there_before:
        path.write_bytes(b"")
    with locked_quietly(path) as claim:
        if claimed:
            claim()
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(LockHeld, match=f"^{tmp_path} is in use by process {os.getpid()} "), locked_quietly(path):
            pytest.fail("two holders")
        if there_before or claimed:
            with pytest.raises(LockHeld, match=f"^{tmp_path} is in use by process {os.getpid()} "), locked(path):
                pytest.fail("two holders")
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    with locked_quietly(path), pytest.raises(LockHeld), locked_quietly(path):
        pytest.fail("two holders")


def test_a_lock_file_that_another_holds_keeps_a_quiet_one_out(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"
    with locked(path):
        content = path.read_bytes()
        with pytest.raises(LockHeld, match=f"in use by process {os.getpid()} "), locked_quietly(path):
            pytest.fail("two holders")
        assert path.read_bytes() == content


def test_a_lock_file_that_appears_meanwhile_and_is_held_makes_the_claim_fail(tmp_path: Path) -> None:
    """A program that makes the file, as version 0.1 does, has not looked at the folder's lock."""
    path = tmp_path / "the.lock"
    with locked_quietly(path) as claim:
        with locked(path):
            path.write_bytes(b"another")
            for _ in range(2):
                with pytest.raises(LockHeld, match="in use by process"):
                    claim()
            assert path.read_bytes() == b"another"
        claim()
        with pytest.raises(LockHeld), locked(path):
            pytest.fail("two holders")


def test_a_quiet_lock_is_free_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "the.lock"

    def fail(*, claimed: bool) -> None:
        with locked_quietly(path) as claim:
            if claimed:
                claim()
            raise KeyError

    for claimed in (False, True):
        with pytest.raises(KeyError):
            fail(claimed=claimed)
    with locked(path):
        pass


def test_a_quiet_lock_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked_quietly(tmp_path / "missing" / "the.lock"):
        pytest.fail("no folder")


#: Holds a lock as Octez does until its input ends.
OCTEZ = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"


def test_a_lock_of_octez_is_waited_for_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "wallet_lock"
    with record_locked(path, 0):
        assert not path.exists()
    path.write_text("theirs")
    with subprocess.Popen(
        [sys.executable, "-c", OCTEZ, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(LockHeld, match="is in use by"), record_locked(path, 0):
            pass
        other.communicate()
    with record_locked(path, 0):
        pass
    assert path.read_text() == "theirs"
