"""`enclave-host backup create | verify | restore` on real folders, beside running hosts and in empty folders."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.host_process import (
    BAKER,
    Outcome,
    base,
    import_keys,
    key_file,
    run_command,
    running_host,
    store_file,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, KEYS, attestation, block, transaction
from tests.doubles.processes import Enclave, running_local_enclave, unguarded_enclave

ALICE, BOB = KEYS["alice"], KEYS["bob"]
POLICIES = {ALICE.pkh: BAKER, BOB.pkh: BAKER}


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    config = write_config(tmp_path, local.port, POLICIES)
    import_keys(config, ALICE, BOB)
    return config


def create(config: Path, name: str = "backup") -> Path:
    outcome = run_command("backup", "create", "-c", config, config.parent / name)
    assert outcome.code == 0, outcome.stderr
    return config.parent / name


def restore(config: Path, file: Path, *words: str, given: str = "") -> Outcome:
    return run_command("backup", "restore", "-c", config, file, *words, given=given)


def levels(config: Path) -> dict[tuple[str, str], int]:
    marks = json.loads(run_command("watermark", "show", "--json", "-c", config).stdout)["marks"]
    assert all(mark["chain_id"] == CHAIN_ID for mark in marks)
    return {(mark["public_key_hash"], mark["right"]): mark["level"] for mark in marks}


def test_one_file_for_this_user_alone_is_made_beside_a_running_host(config: Path) -> None:
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, attestation(7)).status == 200
        file = create(config)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.parent.iterdir() if "backup" in path.name] == ["backup"]
    again = run_command("backup", "create", "-c", config, file)
    assert (again.code, again.error.partition(":")[0]) == (1, f"{file} exists")
    checked = run_command("backup", "verify", file)
    assert checked.code == 0
    assert "2 keys and 1 mark" in checked.stdout
    assert f"Chain {CHAIN_ID}: signed up to level 7" in checked.stdout
    # As `head -n 1 FILE | sha256sum` has it.
    line, last = file.read_bytes().splitlines(keepends=True)
    summed = subprocess.run(["sha256sum"], input=line, capture_output=True, check=True).stdout.decode()
    assert summed.split()[0] == json.loads(last)["sha256"]


def test_a_backup_that_cannot_be_written_leaves_nothing(config: Path) -> None:
    outcome = run_command("backup", "create", "-c", config, config.parent / "nowhere" / "backup")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.error.endswith("cannot be written: No such file or directory")


def test_a_damaged_backup_is_refused_by_both(config: Path) -> None:
    file = create(config)
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"level"', b'"lavel"').replace(ALICE.pkh.encode(), BOB.pkh.encode()))
    for command in (("verify", file), ("restore", file, "-c", config, "--above-level", "9", "--yes")):
        outcome = run_command("backup", *command)
        assert outcome.code == 1
        assert "damaged: its SHA-256" in outcome.error
    assert run_command("backup", "verify", config).code == 1


def test_the_enclave_opens_every_key_beside_a_running_host(config: Path, tmp_path: Path) -> None:
    file = create(config)
    with running_host(config) as host:
        checked = run_command("backup", "verify", "--enclave", "-c", config, file)
        assert checked.code == 0, checked.stderr
        assert "the enclave opened 2 of 2 keys" in checked.stdout
        assert host.sign(ALICE.pkh, transaction(1)).status == 200
    with running_local_enclave(tmp_path / "other.key") as other:
        elsewhere = write_config(tmp_path, other.port, POLICIES)
        checked = run_command("backup", "verify", "--enclave", "-c", elsewhere, file)
    assert checked.code == 1
    assert "the enclave opened 0 of 2 keys" in checked.stdout
    assert checked.stdout.count("does not open: ") == 2
    assert checked.error.startswith("2 keys of the backup cannot be opened")


def test_exchanged_blobs_are_found(config: Path) -> None:
    entries = json.loads(key_file(config).read_text())
    one, other = (entry["encrypted_private_key"] for entry in entries)
    entries[0]["encrypted_private_key"], entries[1]["encrypted_private_key"] = other, one
    key_file(config).write_text(json.dumps(entries))
    checked = run_command("backup", "verify", "--enclave", "-c", config, create(config))
    assert checked.code == 1
    assert f"{ALICE.pkh} does not open: its blob holds another key, {BOB.pkh}" in checked.stdout


def test_trying_keeps_no_key_longer_than_the_enclave_remembers(tmp_path: Path) -> None:
    """The enclave has room for two opened keys, and remembers none: a second trial finds the room free."""
    with running_local_enclave(tmp_path / "sealing.key", "--retain", "0", "--max-keys", "2") as enclave:
        config = write_config(tmp_path, enclave.port, POLICIES)
        import_keys(config, ALICE, BOB)
        file = create(config)
        for _ in range(3):
            assert run_command("backup", "verify", "--enclave", "-c", config, file).code == 0
        with running_host(config) as host:
            assert host.sign(ALICE.pkh, transaction(1)).status == 200


@pytest.mark.parametrize("words", [(), ("--yes",), ("--chain", CHAIN_ID)])
def test_nothing_is_restored_without_a_level(config: Path, words: tuple[str, ...]) -> None:
    file = create(config)
    shutil.rmtree(base(config))
    outcome = restore(config, file, *words)
    assert outcome.code == 2
    assert "Missing option '--above-level'" in outcome.stderr
    assert not base(config).exists()


def test_an_empty_folder_signs_again_above_the_level_only(tmp_path: Path) -> None:
    """The guard is off, as after a restart of the enclave: the marks alone decide."""
    with unguarded_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, POLICIES)
        import_keys(config, ALICE, BOB)
        with running_host(config) as host:
            assert host.sign(ALICE.pkh, attestation(100)).status == 200
            assert host.sign(BOB.pkh, block(300)).status == 200
            file = create(config)
            assert host.sign(ALICE.pkh, attestation(150)).status == 200
            refused = restore(config, file, "--above-level", "200", "--chain", CHAIN_ID, "--yes")
            assert "is in use by process" in refused.error
            host.discard()
        shutil.rmtree(base(config))
        for given in ("", "20\n"):
            assert restore(config, file, "--above-level", "200", "--chain", CHAIN_ID, given=given).code == 1
        assert stored_hashes(config) == []
        outcome = restore(config, file, "--above-level", "200", "--chain", CHAIN_ID, given="200\n")
        assert outcome.code == 0, outcome.stderr
        assert "2 keys restored" in outcome.stdout
        assert levels(config) == {
            (key.pkh, right): 300 if (key, right) == (BOB, "block") else 200
            for key in (ALICE, BOB)
            for right in ("block", "preattestation", "attestation")
        }
        with running_host(config) as host:
            for level in (100, 150, 200):
                assert host.sign(ALICE.pkh, attestation(level, payload=bytes(32))).status == 409
            assert host.sign(ALICE.pkh, attestation(201)).status == 200
            assert host.sign(BOB.pkh, block(300, payload=bytes(32))).status == 409
            assert host.sign(BOB.pkh, block(301)).status == 200
            assert host.stop() == 0


@pytest.mark.parametrize("listed", [True, False])
def test_a_chain_has_to_be_named_where_a_key_may_sign_on_any(config: Path, listed: bool) -> None:
    file = create(config)
    if not listed:
        config.write_text("\n".join(line for line in config.read_text().splitlines() if "tz1" not in line) + "\n")
    shutil.rmtree(base(config))
    outcome = restore(config, file, "--above-level", "5", "--yes")
    assert outcome.code == 2
    assert "--chain" in outcome.error
    assert stored_hashes(config) == []


def test_what_is_there_stays_and_it_may_be_done_again(config: Path) -> None:
    file = create(config)
    before = key_file(config).read_bytes()
    for _ in range(2):
        outcome = restore(config, file, "--above-level", "5", "--chain", CHAIN_ID, "--yes")
        assert outcome.code == 0, outcome.stderr
        assert "0 keys restored; 2 keys stored already: unchanged" in outcome.stdout
    assert key_file(config).read_bytes() == before
    assert [*base(config).glob("watermark.marks.before-restore-*")]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 5000)])
def test_there_is_no_backup_without_marks(config: Path, damage: Callable[[Path], object]) -> None:
    damage(store_file(config))
    outcome = run_command("backup", "create", "-c", config, config.parent / "backup")
    assert outcome.code == 1
    assert "watermark rebuild" in outcome.error
    assert not (config.parent / "backup").exists()


def test_keys_of_a_vault_that_the_configuration_has_not_stop_it(config: Path) -> None:
    file = create(config)
    config.write_text(config.read_text().replace("  enclave: {", "  other: {"))
    for words in (("verify", "--enclave"), ("restore", "--above-level", "5", "--yes")):
        outcome = run_command("backup", words[0], "-c", config, file, *words[1:])
        assert outcome.code == 2
        assert outcome.error.startswith("the backup has keys of vault enclave; ")
