"""A running host whose disk, folder or store goes wrong: a clear error, no signature, nothing lost."""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, BASE_NAME, Host, import_keys, refused, run_command, running_host
from tests.doubles.host_process import write_config as write
from tests.doubles.known_keys import KEYS, attestation, block
from tests.doubles.processes import Enclave, unguarded_enclave

ALICE = KEYS["alice"]
OTHER = bytes(32)
UNPRIVILEGED = (sys.executable, "-m", "tests.doubles.unprivileged")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    path = write(tmp_path, local.port, {ALICE.pkh: BAKER})
    import_keys(path, ALICE)
    return path


def store(config: Path, end: str = "") -> Path:
    return config.parent / BASE_NAME / f"watermark.sqlite{end}"


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


def start_is_refused(config: Path, text: str, code: int = 2) -> None:
    assert text in refused(run_command("serve", "-c", config), code)


def test_full_disk(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(1))
        limit = store(config, "-wal").stat().st_size
        soft, hard = resource.prlimit(host.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (limit, hard))
        for message in (block(2), block(2), block(1)):
            unavailable(host, message, str(store(config)))
        resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert not signs(host, block(1, payload=OTHER))
        assert signs(host, block(1))
        assert signs(host, block(2))
        assert host.health() == (200, {"ready": True})
        assert host.stop() == 0


def test_folder_that_may_only_be_read(config: Path) -> None:
    folder = store(config).parent
    with running_host(config) as host:
        assert signs(host, block(1))
        assert host.stop() == 0
    folder.chmod(0o555)
    try:
        host = Host(config, prefix=UNPRIVILEGED)
        try:
            assert host.process.wait(60) == 1
            assert host.stop() == 1
            assert f"Error: watermark store {store(config)}: " in host.log
            assert "Traceback" not in host.log
        finally:
            host.discard()
    finally:
        folder.chmod(0o700)
    with running_host(config, prefix=UNPRIVILEGED) as host:
        assert not signs(host, block(1, payload=OTHER))
        assert signs(host, block(2))


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"nonsense" * (path.stat().st_size // 8))


def replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"nonsense" * 1000)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("spoil", [overwrite, replace, Path.unlink])
def test_store_that_is_spoilt_while_the_host_runs(config: Path, spoil: Callable[[Path], None]) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert signs(host, attestation(8))
        spoil(store(config))
        for message in (block(9), block(7), block(7, payload=OTHER)):
            unavailable(host, message, str(store(config)))
        assert host.stop() == 0
        assert "marks are not handed back" in host.log
    start_is_refused(config, str(store(config)))
    # The way on that the documents tell, but for `raise`: what was answered for had been saved at the stop.
    for end in ("", "-wal", "-shm"):
        store(config, end).unlink(missing_ok=True)
    (store(config).parent / "watermark_v2" / "in-use-by-enclave-host.json").unlink()
    assert run_command("watermark", "init", "-c", config).code == 0
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))
        assert not signs(host, attestation(8, payload=OTHER))
        assert signs(host, block(7))
        assert signs(host, block(9))


def test_log_that_is_removed_while_the_host_runs(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        store(config, "-wal").unlink()
        unavailable(host, block(8), "removed by another program")
        # The store is opened anew, with all that it had.
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(8))
        host.discard()
    with running_host(config) as host:
        assert not signs(host, block(8, payload=OTHER))


def test_store_that_is_put_back_in_an_older_state_while_the_host_runs(config: Path, tmp_path: Path) -> None:
    with running_host(config) as host:
        assert host.stop() == 0
    shutil.copy(store(config), tmp_path / "backup")
    with running_host(config) as host:
        assert signs(host, block(7))
        for end in ("-wal", "-shm"):
            store(config, end).unlink()
        shutil.copy(tmp_path / "backup", tmp_path / "copy")
        (tmp_path / "copy").replace(store(config))
        unavailable(host, block(7, payload=OTHER), "removed by another program")
        for message in (block(7, payload=OTHER), block(8)):
            unavailable(host, message, "went back")


def test_garbage_in_place_of_a_stopped_store(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert host.stop() == 0
    replace(store(config))
    start_is_refused(config, f"{store(config)} is not a sound watermark store")


def test_store_that_is_gone_after_an_orderly_stop_is_made_of_what_was_handed_back(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        assert host.stop() == 0
    store(config).unlink()
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))


def test_log_that_is_missing_after_a_kill(config: Path) -> None:
    with running_host(config) as host:
        assert signs(host, block(7))
        host.discard()
    store(config, "-wal").rename(store(config, ".kept"))
    for _ in range(2):
        start_is_refused(config, f"{store(config, '-wal')} is missing")
    store(config, ".kept").rename(store(config, "-wal"))
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))


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
    folder = store(config).parent
    for path in (folder, *folder.rglob("*")):
        then = path.stat().st_mtime + years * 365 * 86400
        os.utime(path, (then, then))
    with running_host(config) as host:
        assert not signs(host, block(7, payload=OTHER))
        assert signs(host, block(7))
        assert signs(host, block(8))
        assert host.stop() == 0
