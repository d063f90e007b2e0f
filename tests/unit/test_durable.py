"""`durable`: files replaced whole or not at all, and locks that say who holds them."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from host_backend.durable import (
    LockHeld,
    create_folder,
    fsync_directory,
    holder_of,
    locked,
    sync_times_s,
    write_durably,
)
from tests.doubles.small_disk import files_up_to


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_new_file_has_content_and_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        write_durably(path, b"content", mode)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"content"
    assert mode_of(path) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o640


def test_replacing_keeps_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    # Only root may give a file away.
    owner = (12345, 12346) if os.getuid() == 0 else (os.getuid(), os.getgid())
    os.chown(path, *owner)
    write_durably(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_replacing_makes_a_new_file(tmp_path: Path) -> None:
    """A reader who has the old file open keeps all of it."""
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    with path.open("rb") as reader:
        write_durably(path, b"new")
        assert reader.read() == b"old content"


def test_content_is_on_disk_before_its_name_and_the_name_before_returning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    fsync = os.fsync
    seen: list[tuple[bool, bytes]] = []

    def recording(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    write_durably(path, b"new")
    assert seen == [(False, b"old"), (True, b"new")]


def test_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "volume" / "file"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_durably(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with files_up_to(64 * 1024), pytest.raises(OSError, match="File too large"):
        write_durably(path, bytes(256 * 1024))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_failing_rename_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_durably(path, b"content")
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "missing" / "file", b"content")
    with pytest.raises(FileNotFoundError):
        fsync_directory(tmp_path / "missing")


def test_create_folder_makes_all_missing_ones_private(tmp_path: Path) -> None:
    create_folder(tmp_path / "a" / "b")
    create_folder(tmp_path / "a" / "b")
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o700


def test_create_folder_keeps_an_existing_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    create_folder(tmp_path / "a")
    assert mode_of(tmp_path / "a") == 0o755


def test_create_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match="exists"):
        create_folder(tmp_path / "a")


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
        assert holder_of(path) == os.getpid()
        # A lock that the list names for another process is on another file of that number.
        path.write_text("1\n")
        assert holder_of(path) is None
    assert path.exists()
    assert holder_of(path) is None


def test_syncing_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    assert all(time_s > 0 for time_s in sync_times_s(tmp_path, 3))
    assert len(sync_times_s(tmp_path, 3)) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        sync_times_s(tmp_path / "nowhere", 1)
