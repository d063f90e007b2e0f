"""A running host whose disk, folder or store goes wrong: a clear error, no signature, nothing lost."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host_backend.watermark.file.layout import file_bytes, slot_offset
from tests.doubles.host_process import (
    BAKER,
    LIMITED,
    UNPRIVILEGED,
    Host,
    base,
    import_keys,
    in_use_file,
    refused,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, KEYS, attestation, block
from tests.doubles.processes import Enclave, unguarded_enclave
from tests.doubles.watermarks import some_pkh

ALICE = KEYS["alice"]
OTHER = bytes(32)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    path = write_config(tmp_path, local.port, {ALICE.pkh: BAKER})
    import_keys(path, ALICE)
    return path


def signs(host: Host, message: bytes) -> bool:
    answer = host.sign(ALICE.pkh, message)
    assert answer.status in (200, 409), answer.body
    return answer.status == 200


def unavailable(host: Host, message: bytes, text: str) -> None:
    """Nothing is signed, the answer says why, and so does the health of the host."""
    answer = host.sign(ALICE.pkh, message)
    assert answer.status == 503, answer.body
    assert text in answer.message
    status, health = host.health()
    assert status == 503
    assert health["ready"] is False


def start_is_refused(config: Path, text: str, code: int = 1) -> None:
    assert text in refused(run_command("serve", "-c", config), code)


def limit_files(host: Host, limit_bytes: int | None) -> None:
    """Let the host write nothing beyond a place of any file, as on a disk that is full there; None ends that."""
    _, hard = resource.prlimit(host.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (hard if limit_bytes is None else limit_bytes, hard))


def test_disk_that_takes_no_marks(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(1))
        limit_files(host, slot_offset(0, 0))
        for message in (block(2), block(2), block(1)):
            unavailable(host, message, f"watermark store {store_file(config)}: {os.strerror(errno.EFBIG)}; look at the")
        for _ in range(10):
            answer = host.sign(ALICE.pkh, block(2))
        assert "`enclave-host watermark rebuild --above-level N`" in answer.message
        limit_files(host, None)
        # What failed is written first, so the mark has moved: to the message that was asked for.
        assert not signs(host, block(1))
        assert not signs(host, block(2, payload=OTHER))
        assert signs(host, block(2))
        assert host.health() == (200, {"ready": True})
        assert host.stop() == 0


def test_stop_while_the_disk_takes_no_marks(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(1))
        limit_files(host, slot_offset(0, 0))
        unavailable(host, block(2), f"watermark store {store_file(config)}: {os.strerror(errno.EFBIG)}")
        assert host.stop() == 1
        assert "marks are not handed back to Signatory's files, so it must not start" in host.log
        # The limit holds for what measures the coverage of tests, too, and that may complain.
        assert "host_backend/" not in host.log.partition("Traceback")[2]
    assert in_use_file(config).exists()
    with running_host(config) as host:
        assert not signs(host, block(1, payload=OTHER))
        # No one got a signature at this level.
        assert signs(host, block(2, payload=OTHER))
        assert host.stop() == 0
    assert not in_use_file(config).exists()


def take_all_slots(config: Path, *also: str) -> int:
    """Make a store whose slots are all taken, one of them by `block` of the key; return its size.

    Signatory's files then have marks for other rights of the key, too.
    """
    store_file(config).unlink()
    level = {"level": 1}
    others = {
        some_pkh(number): dict.fromkeys(("block", "preattestation", "attestation"), level) for number in range(85)
    }
    theirs = base(config) / "watermark_v2" / f"{CHAIN_ID}.json"
    theirs.parent.mkdir()
    theirs.write_text(json.dumps({**others, ALICE.pkh: {"block": level}}))
    assert run_command("watermark", "init", "-c", config).code == 0
    theirs.write_text(json.dumps({**others, ALICE.pkh: dict.fromkeys(("block", *also), level)}))
    assert store_file(config).stat().st_size == file_bytes(256)
    return file_bytes(256)


def test_disk_that_is_full_keeps_new_rights_out_and_nobody_else(config: Path) -> None:
    size = take_all_slots(config)
    with running_host(config, prefix=(*LIMITED, str(size))) as host:
        for _ in range(2):
            answer = host.sign(ALICE.pkh, attestation(1))
            assert answer.status == 503
            assert answer.message == (
                f"watermark store {store_file(config)}: no slot for the first mark of another right: "
                f"{os.strerror(errno.EFBIG)}; rights that have one go on"
            )
        assert signs(host, block(2))
        assert not signs(host, block(2, payload=OTHER))
        assert host.health() == (200, {"ready": True})
        limit_files(host, None)
        assert signs(host, attestation(1))
        assert not signs(host, attestation(1, payload=OTHER))
        assert host.stop() == 0
    assert store_file(config).stat().st_size == file_bytes(257) > size


def test_disk_that_is_full_where_signatory_has_marks_for_more_rights(config: Path) -> None:
    size = take_all_slots(config, "attestation")
    for words in (["serve"], ["watermark", "raise", CHAIN_ID, ALICE.pkh, "preattestation", "5"]):
        text = refused(run_command(*words, "-c", config, prefix=(*LIMITED, str(size))), 1)
        assert text.startswith(f"watermark store {store_file(config)}: no slot for the first mark of another right: ")
    with running_host(config) as host:
        assert not signs(host, attestation(1))
        assert signs(host, attestation(2))
        assert host.stop() == 0


def test_folder_that_may_only_be_read(config: Path) -> None:
    folders = (base(config), base(config) / "watermark_v2")
    with running_host(config) as host:
        assert signs(host, block(1))
        assert host.stop() == 0
    before = store_file(config).read_bytes()
    for folder in folders:
        folder.chmod(0o555)
    try:
        text = refused(run_command("serve", "-c", config, prefix=UNPRIVILEGED), 1)
        assert text.startswith(f"{in_use_file(config)} cannot be written: ")
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert store_file(config).read_bytes() == before
    with running_host(config, prefix=UNPRIVILEGED) as host:
        assert not signs(host, block(1, payload=OTHER))
        assert signs(host, block(2))


def test_store_that_may_only_be_read(config: Path) -> None:
    store_file(config).chmod(0o400)
    text = refused(run_command("serve", "-c", config, prefix=UNPRIVILEGED), 1)
    assert text.startswith(f"watermark store {store_file(config)}: {os.strerror(errno.EACCES)}; ")
    assert not in_use_file(config).exists()


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"nonsense" * (path.stat().st_size // 8))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_one_byte(path: Path) -> None:
    """Of the first slot's first copy."""
    with path.open("r+b") as file:
        file.seek(slot_offset(0, 0) + 50)
        (byte,) = file.read(1)
        file.seek(slot_offset(0, 0) + 50)
        file.write(bytes([byte ^ 1]))


def replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"nonsense" * 1000)
    path.with_suffix(".new").replace(path)


def replace_by_a_copy(path: Path) -> None:
    """The same bytes in another file: later marks would not be in it."""
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("spoil", [overwrite, empty, cut, change_one_byte, replace, replace_by_a_copy, Path.unlink])
def test_store_that_is_spoilt_while_the_host_runs(config: Path, spoil: Callable[[Path], None]) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert signs(host, attestation(8))
        spoil(store_file(config))
        for message in (block(9), block(7), block(7, payload=OTHER)):
            unavailable(host, message, f"watermark store {store_file(config)} was changed, replaced or removed")
        assert host.stop() == 1
        assert "marks are not handed back" in host.log
    assert in_use_file(config).exists()
    # What was answered for had been saved in Signatory's files, at once: nothing need be raised.
    rebuilt = run_command("watermark", "rebuild", "--above-level", "0", "--chain", CHAIN_ID, "--yes", "-c", config)
    assert rebuilt.code == 0, rebuilt.stderr
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))
        assert not signs(host, attestation(8, payload=OTHER))
        assert signs(host, block(7))
        assert signs(host, block(9))
        assert host.stop() == 0
    assert not in_use_file(config).exists()


def test_store_that_is_spoilt_and_whose_host_is_killed_then(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        replace(store_file(config))
        unavailable(host, block(8), "was changed, replaced or removed")
        host.discard()
    start_is_refused(config, f"watermark store {store_file(config)}: neither of its two headers is whole")
    assert (
        run_command("watermark", "rebuild", "--above-level", "0", "--chain", CHAIN_ID, "--yes", "-c", config).code == 0
    )
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(7))


@pytest.mark.parametrize("in_place", [False, True])
def test_store_that_is_put_back_in_an_older_state_while_the_host_runs(
    config: Path, tmp_path: Path, in_place: bool
) -> None:
    with running_host(config) as host:
        assert signs(host, block(1))
        assert host.stop() == 0
    older = Path(shutil.copy(store_file(config), tmp_path / "older"))
    with running_host(config) as host:
        assert signs(host, block(7))
        if in_place:
            shutil.copyfile(older, store_file(config))
        else:
            older.replace(store_file(config))
        for message in (block(7, payload=OTHER), block(8)):
            unavailable(host, message, "was changed, replaced or removed")
        host.discard()
    # The older store is whole, and what it lacks was saved at once.
    with running_host(config) as host:
        assert "1 marks taken over from other files" in host.log
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(7))
        assert host.stop() == 0


def test_store_that_is_touched_while_the_host_runs_and_is_as_it_was(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        store_file(config).chmod(0o640)
        os.utime(store_file(config), (0, 0))
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(8))
        assert host.stop() == 0
        assert (
            f"watermark store {store_file(config)} was touched by another program, but its content is unchanged"
            in host.log
        )


def test_garbage_in_place_of_a_stopped_store(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert host.stop() == 0
    replace(store_file(config))
    start_is_refused(config, f"watermark store {store_file(config)}: neither of its two headers is whole")


def test_store_that_is_gone_after_an_orderly_stop_is_made_of_what_was_handed_back(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert host.stop() == 0
    store_file(config).unlink()
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))


def test_store_that_is_missing_after_a_kill(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        host.discard()
    kept = store_file(config).with_suffix(".kept")
    store_file(config).rename(kept)
    for _ in range(2):
        start_is_refused(config, f"no watermark store at {store_file(config)}, though the last host here did not end")
    kept.rename(store_file(config))
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))


def test_second_host_on_a_folder_with_a_link_to_the_store_is_refused(config: Path) -> None:
    """The lock is on the file itself, by whatever name it is reached."""
    other = config.parent / "other"
    other.mkdir()
    with running_host(config) as host:
        assert signs(host, block(7))
        link = other / store_file(config).name
        os.link(store_file(config), link)
        text = refused(run_command("serve", "-c", config, "--base-dir", other), 1)
        assert text.startswith(f"watermark store {link} is in use by process {host.pid}: ")
        assert list(other.iterdir()) == [link]
        assert signs(host, block(8))
        assert host.stop() == 0


def test_second_host_on_one_folder_is_refused_and_the_first_goes_on(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        start_is_refused(config, f"is in use by process {host.pid}")
        assert signs(host, block(8))
        assert not signs(host, block(8, payload=OTHER))
        assert host.stop() == 0
    with running_host(config) as host:
        assert not signs(host, block(8, payload=OTHER))


@pytest.mark.parametrize("years", [-20, 20])
def test_files_of_another_time_change_nothing(config: Path, years: int) -> None:
    """What a clock that was wrong leaves behind; that none is asked is `test_no_clock_decides_about_marks`."""
    with running_host(config) as host:
        assert signs(host, block(7))
        host.discard()
    folder = base(config)
    for path in (folder, *folder.rglob("*")):
        then = path.stat().st_mtime + years * 365 * 86400
        os.utime(path, (then, then))
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(7))
        assert signs(host, block(8))
        assert host.stop() == 0
