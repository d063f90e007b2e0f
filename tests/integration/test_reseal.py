"""`enclave-host reseal`, with the daemon and Cloud KMS's double: where keys may go, the state when they do not."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from grpc import StatusCode as Code

from enclave_signer.protocol.blob import LEGACY, sealed_under
from tests.doubles.google.blobs import read_key_file, sealed, write_key_file
from tests.doubles.google.cloud import GoogleCloud, running_google_cloud
from tests.doubles.google.kms import ENCRYPT, KEY, Fault, Key
from tests.doubles.google.sts import PROVIDER
from tests.doubles.google.tokens import DIGEST
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Outcome,
    key_file,
    refused,
    run_command,
    running_host,
    write_config,
)
from tests.doubles.known_keys import FOUR, KnownKey, transaction
from tests.doubles.processes import PATIENCE_S, Enclave, running_gcp_enclave, running_local_enclave
from tests.doubles.starting import run
from tests.doubles.wire import WireClient

TZ1, TZ2, TZ3, TZ4 = FOUR
RING = KEY.rpartition("cryptoKeys/")[0]
OLD, NEW = f"{RING}cryptoKeys/old", f"{RING}cryptoKeys/new"
IMAGE = f"""
sealers = ["gcp_kms"]
[gcp_kms]
identity_providers = ["{PROVIDER}"]
seal_keys = ["{KEY}", "{NEW}"]
open_keys = ["{RING}"]
[[reseal]]
from = "legacy"
to = "{KEY}"
[[reseal]]
from = "{KEY}"
to = "{KEY}"
[[reseal]]
from = "{OLD}"
to = "{NEW}"
[[reseal]]
from = "legacy"
to = "{NEW}"
"""


class World:
    """A key file, a host's configuration, and an image that may move keys."""

    def __init__(self, folder: Path, cloud: GoogleCloud) -> None:
        self.folder = folder
        self.cloud = cloud
        cloud.kms.keys |= {OLD: Key(), NEW: Key()}
        self.image = folder / "image.toml"
        self.image.write_text(IMAGE)
        self.config = write_config(folder, 1, key=KEY)
        self.file = key_file(self.config)

    def enclave(self, retain_s: int = 0) -> AbstractContextManager[Enclave]:
        return running_gcp_enclave(self.image, self.cloud.environment(), "--retain", str(retain_s))

    def blob(self, key: KnownKey, kek: str) -> bytes:
        """Seal a key; a legacy blob is under the key of the sessions."""
        return sealed(self.cloud.kms, key, KEY if kek == LEGACY else kek, legacy=kek == LEGACY)

    def store(self, *keks: str) -> bytes:
        """Store one key under each, and return the content of the file then."""
        write_key_file(self.file, [(key, self.blob(key, kek)) for key, kek in zip(FOUR, keks, strict=False)])
        return self.file.read_bytes()

    def keks(self) -> list[str]:
        return [sealed_under(blob) for _, blob in read_key_file(self.file)]

    def copies(self) -> list[Path]:
        return sorted(self.file.parent.glob(f"{self.file.name}.before-reseal-*"))

    def reseal(self, enclave: Enclave | None, *arguments: str, key: str | None = KEY) -> Outcome:
        policies = {each.pkh: BAKER for each in FOUR}
        config = write_config(self.folder, enclave.port if enclave is not None else 1, policies, key=key)
        return run_command("reseal", "-c", config, *arguments)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_google_cloud(tmp_path) as cloud:
        yield World(tmp_path, cloud)


def lines(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout.splitlines()


def test_legacy_blobs_become_ours_and_sign(world: World) -> None:
    before = world.store(*[LEGACY] * 4)
    assert lines(world.reseal(None, "--dry-run")) == [
        f"{VAULT}: 4 keys would be resealed, from legacy to {KEY}",
    ]
    assert (world.file.read_bytes(), world.copies()) == (before, [])
    with world.enclave() as enclave:
        said = lines(world.reseal(enclave))
        (copy,) = world.copies()
        assert said == [
            f"{VAULT}: 4 keys resealed, from legacy to {KEY}",
            f"{VAULT}: the old blobs are in {copy}: they are needed until every key has signed",
        ]
        assert copy.read_bytes() == before
        assert copy.stat().st_mode & 0o777 == 0o600
        assert world.keks() == [KEY] * 4
        assert [pkh for pkh, _ in read_key_file(world.file)] == [key.pkh for key in FOUR]
        after, asked = world.file.read_bytes(), len(world.cloud.kms.calls)
        assert lines(world.reseal(enclave))[:2] == [
            f"{VAULT}: 4 keys sealed under {KEY} already",
            f"{VAULT}: nothing resealed",
        ]
        assert (world.file.read_bytes(), world.copies()) == (after, [copy])
        assert len(world.cloud.kms.calls) == asked
        lines(run_command("watermark", "init", "-c", world.config))
        with running_host(world.config) as host:
            host.wait_for("the link to the enclave is ready")
            assert [host.sign(key.pkh, transaction(1)).status for key in FOUR] == [200] * 4


def test_a_host_that_serves_goes_on_signing(world: World) -> None:
    world.store(*[LEGACY] * 4)
    with world.enclave() as enclave:
        config = write_config(world.folder, enclave.port, {key.pkh: BAKER for key in FOUR}, key=KEY)
        lines(run_command("watermark", "init", "-c", config))
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            lines(world.reseal(enclave))
            # A look after the change, at the latest.
            host.process.send_signal(1)
            host.wait_for("policies reloaded")
            assert [host.sign(key.pkh, transaction(1)).status for key in FOUR] == [200] * 4
            assert host.health() == (200, {"ready": True})


def test_to_another_key_by_name(world: World) -> None:
    world.store(OLD, NEW, LEGACY)
    with world.enclave() as enclave:
        outcome = world.reseal(enclave, "-v", VAULT, "--to", NEW, "--json")
    common = {"vault": VAULT, "to": NEW, "outcome": "resealed", "reason": None}
    assert json.loads(outcome.stdout) == {
        "keys": [{**common, "public_key_hash": key.pkh, "from": source} for key, source in ((TZ1, OLD), (TZ3, LEGACY))],
        "vaults": [{"vault": VAULT, "kept": str(world.copies()[0])}],
    }
    assert world.keks() == [NEW] * 3


def test_to_a_new_version_of_the_same_key(world: World) -> None:
    before = world.store(KEY, LEGACY)
    key = world.cloud.kms.keys[KEY]
    key.rotate()
    with world.enclave() as enclave:
        said = lines(world.reseal(enclave, "--again"))
        assert said[:2] == [
            f"{VAULT}: 1 key resealed, from {KEY} to {KEY}",
            f"{VAULT}: 1 key resealed, from legacy to {KEY}",
        ]
        assert [copy.read_bytes() for copy in world.copies()] == [before]
        key.destroy(1)
        listed = json.loads(run_command("list", "-c", world.config, "--json").stdout)["keys"]
    assert [(each["public_key_hash"], each["out_of_service"]) for each in listed] == [(TZ1.pkh, None), (TZ2.pkh, None)]
    assert world.keks() == [KEY, KEY]


def test_what_the_image_does_not_list_is_refused_before_google_hears_of_it(world: World) -> None:
    before = world.store(OLD, KEY)
    with world.enclave() as enclave:
        for target, sources in ((KEY, {OLD}), (f"{NEW}2", {OLD, KEY}), (OLD, {KEY}), ("local:0123", {OLD, KEY})):
            outcome = world.reseal(enclave, "--to", target)
            assert outcome.code == 1
            for source in sources:
                assert f"this image does not allow resealing from '{source}' to '{target}'" in outcome.stderr
            many = len(sources) > 1
            assert (
                outcome.error
                == f"not resealed, and stored as before: {'2 keys' if many else '1 key'}; the log says why"
            )
    assert world.cloud.kms.calls == []
    assert (world.file.read_bytes(), world.copies()) == (before, [])


def test_an_enclave_without_image_is_no_target(world: World) -> None:
    before = world.store(LEGACY)
    with running_local_enclave(world.folder / "sealing.key") as enclave:
        outcome = world.reseal(enclave)
    assert outcome.code == 1
    assert "this enclave seals by a file on its machine: it cannot reseal" in outcome.stderr
    assert (world.file.read_bytes(), world.copies()) == (before, [])


def test_a_target_has_to_be_named(world: World) -> None:
    world.store(LEGACY)
    text = refused(world.reseal(None, "--dry-run", key=None), 2)
    assert text == f"reseal: vault {VAULT} has no encryption_key_path: name the key with --to"
    assert world.reseal(None, "--undo", "--to", NEW).code == 2
    assert world.reseal(None, "--undo", "--again").code == 2
    assert "vault other is not found" in refused(world.reseal(None, "-v", "other"), 2)


def test_one_that_does_not_open_keeps_no_other_back(world: World) -> None:
    corrupt = world.blob(TZ1, LEGACY)[:-1]
    unreadable = world.blob(TZ3, OLD)[:9]
    write_key_file(
        world.file, [(TZ1, corrupt), (TZ2, world.blob(TZ2, LEGACY)), (TZ3, unreadable), (TZ4, world.blob(TZ2, LEGACY))]
    )
    before = read_key_file(world.file)
    with world.enclave() as enclave:
        outcome = world.reseal(enclave)
    assert outcome.code == 1
    assert outcome.error.startswith("not resealed, and stored as before: 3 keys")
    for pkh, why in ((TZ1.pkh, "blob corrupt"), (TZ3.pkh, "blob corrupt: truncated"), (TZ4.pkh, "another key")):
        assert re.search(f'"not resealed: [^"]*{why}[^"]*" pkh={pkh}', outcome.stderr)
    assert f"the blob holds another key, {TZ2.pkh}" in outcome.stderr
    after = read_key_file(world.file)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]
    assert f"{VAULT}: 1 key resealed, from legacy to {KEY}" in outcome.stdout


def test_a_key_that_may_seal_and_not_open_changes_nothing(world: World) -> None:
    before = world.store(OLD, OLD)
    world.cloud.kms.keys[NEW].grants = {DIGEST: frozenset({ENCRYPT})}
    with world.enclave() as enclave:
        outcome = world.reseal(enclave, "--to", NEW)
    assert outcome.code == 1
    assert "useToDecrypt" in outcome.stderr
    assert (world.file.read_bytes(), world.copies()) == (before, [])


def test_what_google_leaves_half_done_the_next_run_finishes(world: World) -> None:
    before = world.store(OLD, LEGACY, OLD, LEGACY)
    with world.enclave() as enclave:
        # Not tried again: two of the four keys get no answer.
        world.cloud.kms.break_with(Fault(Code.RESOURCE_EXHAUSTED, method="Encrypt", times=2))
        first = world.reseal(enclave, "--to", NEW)
        assert first.code == 1
        assert "unavailable: Cloud KMS: the project's quota" in first.error
        assert world.keks().count(NEW) == 2
        (copy,) = world.copies()
        assert f"the old blobs are in {copy}" in first.stdout
        lines(world.reseal(enclave, "--to", NEW))
    assert world.keks() == [NEW] * 4
    assert world.copies() == [copy]
    assert copy.read_bytes() == before


def test_an_entry_that_is_changed_meanwhile_stays_as_it_is(world: World) -> None:
    world.store(LEGACY, LEGACY)
    theirs = world.blob(TZ2, KEY)
    with world.enclave() as enclave:
        # The third party of the barrier is this test: both keys are being opened when it changes the file.
        together = threading.Barrier(3)
        world.cloud.kms.break_with(Fault(gathered=together, method="Decrypt", times=2))
        outcomes: list[Outcome] = []
        running = threading.Thread(target=lambda: outcomes.append(world.reseal(enclave)))
        running.start()
        assert world.cloud.kms.asked.wait(PATIENCE_S)
        (_, first), _ = read_key_file(world.file)
        write_key_file(world.file, [(TZ1, first), (TZ2, theirs)])
        together.wait(PATIENCE_S)
        running.join(PATIENCE_S)
        (outcome,) = outcomes
        assert outcome.code == 1
        assert f'not resealed: its entry was changed meanwhile" pkh={TZ2.pkh}' in outcome.stderr
        assert f"{VAULT}: 1 key resealed, from legacy to {KEY}" in outcome.stdout
        assert read_key_file(world.file)[1] == (TZ2.pkh, theirs)
        assert world.keks() == [KEY, KEY]


def test_undo_puts_back_what_was_kept(world: World) -> None:
    before = world.store(LEGACY, OLD, NEW)
    assert lines(world.reseal(None, "--undo")) == [f"{VAULT}: nothing put back"]
    with world.enclave() as enclave:
        lines(world.reseal(enclave, "--to", NEW))
        # A key that is made in between has nothing to be put back.
        assert run_command("generate", "-c", world.config, "-v", VAULT).code == 0
        made = read_key_file(world.file)[3]
        assert lines(world.reseal(None, "--undo", "--dry-run")) == [
            f"{VAULT}: 1 key would be put back, from {NEW} to legacy",
            f"{VAULT}: 1 key would be put back, from {NEW} to {OLD}",
        ]
        said = lines(world.reseal(enclave, "--undo"))
    assert said[:2] == [
        f"{VAULT}: 1 key put back, from {NEW} to legacy",
        f"{VAULT}: 1 key put back, from {NEW} to {OLD}",
    ]
    (copy,) = world.copies()
    assert copy.read_bytes() == before
    assert read_key_file(world.file) == [*read_key_file(copy), made]
    (undone,) = world.file.parent.glob(f"{world.file.name}.before-undo-*")
    assert said[-1].startswith(f"{VAULT}: the old blobs are in {undone}: ")
    assert world.reseal(None, "--undo", "--redo").code == 2
    with world.enclave() as enclave:
        lines(world.reseal(enclave, "--redo"))
    assert read_key_file(world.file) == read_key_file(undone)
    assert (world.keks(), world.copies()) == ([NEW, NEW, NEW, KEY], [copy])


def test_undo_leaves_what_does_not_open_any_more(world: World) -> None:
    world.store(LEGACY, OLD)
    with world.enclave() as enclave:
        lines(world.reseal(enclave, "--to", NEW))
        after = read_key_file(world.file)
        world.cloud.kms.keys[OLD].destroy(1)
        outcome = world.reseal(enclave, "--undo")
    assert outcome.code == 1
    assert outcome.error == "not put back, and stored as before: 1 key; the log says why"
    assert f"pkh={TZ2.pkh}" in outcome.stderr
    assert world.keks() == [LEGACY, NEW]
    assert read_key_file(world.file)[1] == after[1]


def test_undo_proves_old_blobs_by_cloud_kms_although_the_enclave_has_them_open(world: World) -> None:
    world.store(OLD)
    with world.enclave(retain_s=300) as enclave:
        config = write_config(world.folder, enclave.port, {TZ1.pkh: BAKER}, key=KEY)
        lines(run_command("watermark", "init", "-c", config))
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            lines(world.reseal(enclave, "--to", NEW))
            after = world.file.read_bytes()
            world.cloud.kms.keys[OLD].destroy(1)
            outcome = world.reseal(enclave, "--undo")
        assert outcome.code == 1
        assert f"cannot use {OLD}: enable or restore the version" in outcome.stderr
        assert world.file.read_bytes() == after


class TestKilled:
    """`kill -9` before every call that changes a file: every key opens, and the next run finishes."""

    def killed(self, world: World, enclave: Enclave, folder: Path, target: Path, *arguments: str) -> int:
        config = write_config(world.folder, enclave.port, key=KEY)
        command = [sys.executable, "-m", "tests.doubles.killed_resealing", str(config), str(folder), str(target)]
        done = run([*command, *arguments], timeout=PATIENCE_S * 5)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def blobs(self, folder: Path) -> set[tuple[str, bytes]]:
        """Return the content of the key file and in its copies."""
        name = key_file(Path("x")).name
        return {each for file in folder.glob(f"{name}*") if file.suffix != ".lock" for each in read_key_file(file)}

    def test_at_every_step(self, world: World, tmp_path: Path) -> None:
        world.store(LEGACY, OLD, LEGACY, OLD)
        name, before = world.file.name, read_key_file(world.file)
        there: set[tuple[str, bytes]] = set()
        with world.enclave() as enclave:
            count = self.killed(world, enclave, world.file.parent, tmp_path / "there", "--to", NEW)
            resealed = tmp_path / "there" / str(count)
            back = self.killed(world, enclave, resealed, tmp_path / "back", "--undo")
            for number in range(1, count + 1):
                left, finished = tmp_path / "there" / f"{number}.left", tmp_path / "there" / str(number)
                there |= self.blobs(left) | self.blobs(finished)
                assert [pkh for pkh, _ in read_key_file(left / name)] == [key.pkh for key in FOUR]
                assert {sealed_under(blob) for _, blob in read_key_file(finished / name)} == {NEW}
                (copy,) = finished.glob(f"{name}.before-reseal-*")
                assert read_key_file(copy) == before
            for number in range(1, back + 1):
                there |= self.blobs(tmp_path / "back" / f"{number}.left")
                assert read_key_file(tmp_path / "back" / str(number) / name) == before
            print(f"\nkilled at {count - 1} and at {back - 1} calls")
            assert min(count, back) > 2 * 4
            with WireClient(enclave.address, initialize=False) as client:
                assert client.call({"Initialize": {"encryption_key_path": KEY}}) == {"Ok": None}
                known = {key.pkh: key.public_key_bytes for key in FOUR}
                for pkh, blob in there:
                    opened = client.call({"PublicKeyFrom": blob})["Ok"]
                    assert isinstance(opened, dict)
                    assert [*opened.values()] == [known[pkh]]
