"""`durable`: files replaced whole or not at all. Its locks: `test_locks`."""

import os
import stat
from pathlib import Path

import pytest

from host_backend.durable import (
    create_folder,
    fsync_directory,
    open_regular,
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


def test_syncing_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    assert all(time_s > 0 for time_s in sync_times_s(tmp_path, 3))
    assert len(sync_times_s(tmp_path, 3)) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        sync_times_s(tmp_path / "nowhere", 1)


def test_a_regular_file_is_opened_also_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"


def test_what_is_no_regular_file_is_an_error_at_once_and_stays_closed(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for path, text in ((pipe, "not a regular file"), (Path("/dev/zero"), "not a regular file"), (folder, "directory")):
        with pytest.raises(OSError, match=text), open_regular(path):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
