"""Mounts, with real processes and without a guard: a store mounted as one file, and file systems that cannot keep marks."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from host_backend.watermark.file.place import STORE_NAME
from tests.doubles.host_process import (
    BAKER,
    BASE_NAME,
    Host,
    import_keys,
    in_use_file,
    key_file,
    refused,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import KEYS, attestation
from tests.doubles.old_host import NAME, old_folder
from tests.doubles.processes import Enclave, unguarded_enclave

ALICE = KEYS["alice"]
OTHER = bytes(range(32))
LEVELS = (1, 10, 25)
PLAIN = "{driver: file}"
Mount = Callable[..., Path]


@pytest.fixture(scope="module")
def enclave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as running:
        yield running


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mount something until the end of the test."""
    with ExitStack() as mounted:

        def mount(*words: str | Path) -> Path:
            subprocess.run(["mount", *map(str, words)], check=True)
            mounted.callback(subprocess.run, ["umount", "-l", str(words[-1])], check=False, stderr=subprocess.DEVNULL)
            return Path(words[-1])

        yield mount


class Containers:
    """Folders that come and go, with the keys and one file of marks mounted into each."""

    def __init__(self, root: Path, enclave: Enclave, mount: Mount) -> None:
        self.root, self.enclave, self.mount = root, enclave, mount
        self.volume = root / "volume" / STORE_NAME
        self.volume.parent.mkdir()
        (root / "first").mkdir()
        config = write_config(root / "first", enclave.port, {ALICE.pkh: BAKER})
        import_keys(config, ALICE)
        self.keys = key_file(config).read_bytes()
        store_file(config).rename(self.volume)
        shutil.rmtree(root / "first")

    def make(self, name: str) -> Path:
        """Return the configuration of a new container."""
        base = self.root / name / BASE_NAME
        base.mkdir(parents=True, mode=0o700)
        config = write_config(self.root / name, self.enclave.port, {ALICE.pkh: BAKER})
        key_file(config).write_bytes(self.keys)
        store_file(config).touch()
        self.mount("--bind", self.volume, store_file(config))
        return config


@pytest.fixture
def containers(tmp_path: Path, enclave: Enclave, mount: Mount) -> Containers:
    return Containers(tmp_path, enclave, mount)


def sign_levels(host: Host) -> None:
    for level in LEVELS:
        assert host.sign(ALICE.pkh, attestation(level)).status == 200


def nothing_is_signed_twice(host: Host) -> None:
    for level in LEVELS:
        assert host.sign(ALICE.pkh, attestation(level, payload=OTHER)).status == 409
    assert host.sign(ALICE.pkh, attestation(LEVELS[-1])).status == 200


@pytest.mark.parametrize("orderly", [True, False])
def test_a_container_made_anew_knows_what_was_signed(containers: Containers, orderly: bool) -> None:
    with running_host(containers.make("one")) as host:
        sign_levels(host)
        if orderly:
            assert host.stop() == 0
        host.discard()
    with running_host(containers.make("two")) as host:
        nothing_is_signed_twice(host)
        assert host.sign(ALICE.pkh, attestation(LEVELS[-1] + 1)).status == 200
        assert host.stop() == 0


def test_a_second_container_beside_the_first_does_not_start(containers: Containers) -> None:
    with running_host(containers.make("one")) as host:
        sign_levels(host)
        second = containers.make("two")
        text = refused(run_command("serve", "-c", second), 1)
        assert f"{store_file(second)} is in use by process {host.pid}" in text
        nothing_is_signed_twice(host)


def test_a_store_that_is_mounted_is_made_anew_where_it_lies(containers: Containers) -> None:
    config = containers.make("one")
    containers.volume.write_bytes(bytes(4096))
    assert "watermark rebuild --above-level N" in refused(run_command("serve", "-c", config), 1)
    words = ("watermark", "rebuild", "-c", config, "--above-level", "100", "--chain", "NetXdQprcVkpaWU", "--yes")
    assert "mounted as a file of its own" in refused(run_command(*words), 1)
    subprocess.run(["umount", str(store_file(config))], check=True)
    containers.mount("--bind", containers.volume.parent, base := config.parent / BASE_NAME)
    key_file(config).write_bytes(containers.keys)
    assert run_command(*words).code == 0
    assert (base / STORE_NAME).stat().st_size > 2**21
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, attestation(100, chain=0x7A06A770)).status == 409
        assert host.sign(ALICE.pkh, attestation(101, chain=0x7A06A770)).status == 200


def test_a_store_of_0_1_that_is_mounted_is_not_believed(tmp_path: Path, enclave: Enclave, mount: Mount) -> None:
    old_folder(tmp_path / "volume", {}).stop()
    config = write_config(tmp_path, enclave.port, {ALICE.pkh: BAKER})
    (tmp_path / BASE_NAME).mkdir()
    (tmp_path / BASE_NAME / NAME).touch()
    mount("--bind", tmp_path / "volume" / NAME, tmp_path / BASE_NAME / NAME)
    text = refused(run_command("serve", "-c", config), 1)
    assert "it is mounted as a file of its own" in text
    assert "watermark migrate --above-level N" in text


def test_a_file_system_in_memory_has_to_be_allowed(tmp_path: Path, enclave: Enclave, mount: Mount) -> None:
    (tmp_path / BASE_NAME).mkdir()
    mount("-t", "tmpfs", "none", tmp_path / BASE_NAME)
    config = write_config(tmp_path, enclave.port, {ALICE.pkh: BAKER}, watermark=PLAIN)
    for words in (["import", "--vault", "enclave", ALICE.secret], ["watermark", "init"]):
        assert "is on a file system in memory (tmpfs)" in refused(run_command(words[0], *words[1:], "-c", config), 2)
    config = write_config(tmp_path, enclave.port, {ALICE.pkh: BAKER})
    import_keys(config, ALICE)
    with running_host(config) as host:
        sign_levels(host)
        assert "its marks are forgotten at a restart of the machine" in host.log
        assert host.stop() == 0
    assert "file system in memory" in run_command("doctor", "-c", config).stdout


def test_the_layer_of_a_container_is_warned_of(tmp_path: Path, enclave: Enclave, mount: Mount) -> None:
    for name in ("lower", "upper", "work", BASE_NAME):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount("-t", "overlay", "overlay", "-o", layers, tmp_path / BASE_NAME)
    config = write_config(tmp_path, enclave.port, {ALICE.pkh: BAKER}, watermark=PLAIN)
    import_keys(config, ALICE)
    with running_host(config) as host:
        sign_levels(host)
        assert "its marks go with the container" in host.log
        host.discard()
    with running_host(config) as host:
        nothing_is_signed_twice(host)


def test_a_key_file_that_is_mounted_keeps_every_key(tmp_path: Path, enclave: Enclave, mount: Mount) -> None:
    config = write_config(tmp_path, enclave.port, {ALICE.pkh: BAKER})
    import_keys(config, ALICE)
    key_file(config).rename(tmp_path / "keys.json")
    key_file(config).touch()
    mount("--bind", tmp_path / "keys.json", key_file(config))
    before = key_file(config).read_bytes()
    outcome = run_command("generate", "-c", config, "--vault", "enclave", "--type", "tz1")
    assert outcome.code == 1
    assert str(key_file(config)) in outcome.error
    assert "Traceback" not in outcome.stderr
    assert key_file(config).read_bytes() == before
    with running_host(config) as host:
        sign_levels(host)
        assert host.stop() == 0
    assert not in_use_file(config).exists()


def test_a_key_file_that_is_mounted_alone_is_named(tmp_path: Path, enclave: Enclave, mount: Mount) -> None:
    config = write_config(tmp_path, enclave.port)
    import_keys(config, ALICE)
    mount("--bind", key_file(config), key_file(config))
    error = refused(run_command("generate", "-c", config, "-v", "enclave"), 1)
    assert error.endswith("it is mounted as a single file, which cannot be replaced: mount its folder")
