"""Commands that are said to change nothing change no byte; and every refused start names a way back, which is gone here."""

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory.layouts import write_signatory_marks
from tests.doubles.host_process import (
    BAKER,
    LIMITED,
    UNPRIVILEGED,
    base,
    in_use_file,
    refused,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, attestation, block, preattestation
from tests.doubles.processes import ROOT, Enclave, unguarded_enclave
from tests.doubles.spoilt_folders import (
    ALICE,
    DANGEROUS_ADVICE,
    LAST_ATTESTATION,
    LAST_BLOCK,
    LOCK,
    OLD_STORE,
    OTHER,
    REFUSED,
    Refused,
    looks,
    no_store,
    old_store,
    signatory_file,
    signed_folder,
    signs,
    spread,
    tree,
)

#: Above everything that was signed.
FLOOR = 20
_COMMAND = re.compile(r"`enclave-host (watermark [^`]+)`")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory, local: Enclave) -> dict[bool, Path]:
    """Folders of a key that has signed, by whether the last host was killed."""
    return {killed: signed_folder(tmp_path_factory.mktemp("history"), local, killed=killed) for killed in (False, True)}


@pytest.mark.parametrize(
    ("killed", "lock_file"), [(True, True), (False, False)], ids=["killed", "stopped, without a lock file"]
)
@pytest.mark.parametrize("state", REFUSED, ids=str)
def test_a_refused_start_changes_no_byte_and_names_the_way_back(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path], state: Refused, killed: bool, lock_file: bool
) -> None:
    config = spread(tmp_path, local, histories[killed])
    state.make(config)
    if not lock_file:
        (base(config) / LOCK).unlink()
    show, show_json, doctor, listed, checked = looks(config)
    assert (listed.code, checked.code) == (0, 0)
    before = tree(config)
    text = refused(run_command("serve", "-c", config), 1)
    assert tree(config) == before
    assert str(base(config) / state.names) in text
    assert state.command in _COMMAND.findall(text)
    assert not DANGEROUS_ADVICE.search(text)
    # The doctor knows before a start is tried; what cannot be shown is reported in the same way.
    assert doctor.code == 1
    (failed,) = (line for line in doctor.stdout.splitlines() if line.startswith("failed: watermarks: "))
    assert _COMMAND.search(failed)
    for each in (show, show_json):
        assert each.code == 0 or _COMMAND.search(refused(each, 1))

    go_back(config, state.command)
    with running_host(config) as host:
        for message in (block(LAST_BLOCK, payload=OTHER), attestation(LAST_ATTESTATION, payload=OTHER)):
            assert not signs(host, message)
        for make in (block, attestation, preattestation):
            assert not signs(host, make(FLOOR))
            assert signs(host, make(FLOOR + 1))
        assert host.stop() == 0
    assert not in_use_file(config).exists()


def go_back(config: Path, command: str) -> None:
    """Do what a refusal names."""
    words = command.replace(" N", f" {FLOOR}").split()
    outcome = run_command(*words, "--yes", "-c", config)
    if "name every chain" in outcome.stderr:
        outcome = run_command(*words, "--chain", CHAIN_ID, "--yes", "-c", config)
    assert outcome.code == 0, outcome.stderr
    assert not DANGEROUS_ADVICE.search(outcome.stderr)


@pytest.mark.parametrize("state", [state for state in REFUSED if state.make is not no_store], ids=str)
def test_a_way_back_that_cannot_be_gone_to_its_end_leaves_the_start_refused(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path], state: Refused
) -> None:
    config = spread(tmp_path, local, histories[True])
    state.make(config)
    refused(run_command("serve", "-c", config), 1)
    words = state.command.replace(" N", f" {FLOOR}").split()
    outcome = run_command(*words, "--chain", CHAIN_ID, "--yes", "-c", config, prefix=(*LIMITED, str(1 << 20)))
    assert os.strerror(errno.EFBIG) in refused(outcome, 1)
    assert in_use_file(config).exists()
    assert str(base(config) / state.names) in refused(run_command("serve", "-c", config), 1)
    go_back(config, state.command)
    with running_host(config) as host:
        assert not signs(host, block(FLOOR))
        assert host.stop() == 0


def test_files_that_may_not_be_read_stop_the_start_and_stay(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path]
) -> None:
    """Not to be reached is not damaged: nothing is to be remade."""
    config = spread(tmp_path, local, histories[False])
    for file in (store_file(config), signatory_file(config)):
        # Root may read it all the same.
        before = tree(config)
        file.chmod(0o000)
        text = refused(run_command("serve", "-c", config, prefix=UNPRIVILEGED), 1)
        assert str(file) in text
        assert "Permission denied" in text
        file.chmod(0o600)
        assert tree(config) == before
    with running_host(config, prefix=UNPRIVILEGED) as host:
        assert not signs(host, block(LAST_BLOCK, payload=OTHER))


@pytest.mark.parametrize("lock_file", [True, False], ids=["lock file", "no lock file"])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_looking_at_a_whole_store_changes_no_byte(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path], killed: bool, lock_file: bool
) -> None:
    config = spread(tmp_path, local, histories[killed])
    if not lock_file:
        (base(config) / LOCK).unlink()
    for outcome in looks(config):
        assert outcome.code == 0, outcome.stdout
    # A crash needs no hand: the store is there.
    with running_host(config) as host:
        assert not signs(host, block(LAST_BLOCK, payload=OTHER))
        assert signs(host, block(LAST_BLOCK))
        assert host.stop() == 0


def test_looking_at_a_new_folder_changes_no_byte(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port, {ALICE.pkh: BAKER})
    for folder_is_there in (False, True):
        if folder_is_there:
            base(config).mkdir()
        looks(config)
        before = tree(config)
        refused(run_command("serve", "-c", config), 1 if folder_is_there else 2)
        assert tree(config) == before


def test_looking_at_a_running_host_changes_no_byte_and_nobody_starts_beside_it(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path]
) -> None:
    config = spread(tmp_path, local, histories[False])
    with running_host(config) as host:
        assert signs(host, block(30))
        before = tree(config, running=True)
        for words in (
            ["watermark", "show"],
            ["watermark", "show", "--json"],
            ["doctor"],
            ["list"],
            ["config", "check"],
        ):
            outcome = run_command(*words, "-c", config)
            assert outcome.code == 0, outcome.stdout
        for words in (
            ["serve"],
            ["watermark", "init"],
            ["watermark", "export"],
            ["watermark", "raise", CHAIN_ID, ALICE.pkh, "block", "40"],
            ["watermark", "reset", "--yes", CHAIN_ID, ALICE.pkh, "block", "1"],
            ["watermark", "rebuild", "--yes", "--above-level", "40", "--chain", CHAIN_ID],
            ["watermark", "migrate", "--yes", "--above-level", "40", "--chain", CHAIN_ID],
        ):
            text = refused(run_command(*words, "-c", config), 1)
            assert text.startswith(f"{base(config)} is in use by process {host.pid} ")
            assert not DANGEROUS_ADVICE.search(text)
        assert tree(config, running=True) == before
        assert not signs(host, block(30, payload=OTHER))
        assert signs(host, block(31))
        assert host.health() == (200, {"ready": True})
        assert host.stop() == 0


def test_a_store_of_version_0_1_that_ended_in_order_is_taken_over_once(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path]
) -> None:
    config = spread(tmp_path, local, histories[False])
    old_store(config)
    with closing(sqlite3.connect(base(config) / OLD_STORE, isolation_level=None)) as connection:
        connection.execute("UPDATE marks SET level = ?", (FLOOR,))
    # As its orderly stop does.
    theirs = {MarkKey(CHAIN_ID, ALICE.pkh, right): Mark(FLOOR, 0, None) for right in (Right.BLOCK, Right.ATTESTATION)}
    write_signatory_marks(base(config), theirs)
    _, _, doctor, *_ = looks(config)
    assert "ok: watermarks: no store yet: the first serve makes one of 2 marks that others left" in doctor.stdout
    before = tree(config)
    assert "the next `serve` makes it of the 2 marks in" in refused(run_command("watermark", "init", "-c", config), 1)
    assert tree(config) == before
    with running_host(config) as host:
        assert not signs(host, block(FLOOR))
        assert signs(host, block(FLOOR + 1))
        assert host.stop() == 0
    assert not (base(config) / OLD_STORE).exists()
    assert (base(config) / f"{OLD_STORE}.taken-over").exists()
    # It is not read again: without the new store there is none.
    store_file(config).unlink()
    shutil.rmtree(base(config) / "watermark_v2")
    looks(config)
    before = tree(config)
    text = refused(run_command("serve", "-c", config), 1)
    assert text.startswith(f"no watermark store at {store_file(config)}, though it took over that of version 0.1")
    assert tree(config) == before


def test_no_text_advises_to_take_marks_away() -> None:
    """Nor the file that keeps Signatory out."""
    advice = re.compile(r"\b(remove|delete|erase|unlink|rm)\b(?!\()", re.IGNORECASE)
    files = [file for room in ("watermark", "cli") for file in (ROOT / "host_backend" / room).rglob("*.py")]
    assert len(files) > 20
    assert [file for file in files if advice.search(file.read_text())] == []
