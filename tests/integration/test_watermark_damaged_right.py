"""A damaged copy of a mark costs its right, and nothing else: reported everywhere, and mended by `watermark raise` alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.watermark.file.layout import COPIES, header_offset, slot_offset
from tests.doubles.host_process import Host, Outcome, ask, in_use_file, refused, run_command, running_host
from tests.doubles.known_keys import CHAIN_ID, attestation, block, preattestation
from tests.doubles.processes import Enclave, unguarded_enclave
from tests.doubles.spoilt_folders import (
    ALICE,
    DANGEROUS_ADVICE,
    LAST_ATTESTATION,
    LAST_BLOCK,
    OTHER,
    looks,
    signed_folder,
    signs,
    slot_of,
    spoil,
    spread,
)

#: Above everything that was signed.
FLOOR = 20
RIGHT = f"block of {ALICE.pkh} on {CHAIN_ID}"
WHERE = (CHAIN_ID, ALICE.pkh, "block")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory, local: Enclave) -> dict[bool, Path]:
    """Folders of a key that has signed, by whether the last host was killed."""
    return {killed: signed_folder(tmp_path_factory.mktemp("history"), local, killed=killed) for killed in (False, True)}


def watermark(config: Path, *words: str) -> Outcome:
    return run_command("watermark", *words, "-c", config)


def metric(host: Host) -> float:
    text = ask(host.utility_port, "GET", "/metrics").body.decode()
    (value,) = (line.split()[1] for line in text.splitlines() if line.startswith("watermark_rights_refused "))
    return float(value)


def told(text: str, known: int) -> None:
    """The text names the right, the level that is known, and the way back."""
    assert f"the mark for {RIGHT} is damaged, and nothing is signed for it" in text
    assert f"above level {known} " in text
    assert f"`enclave-host watermark raise {' '.join(WHERE)} LEVEL`" in text
    assert not DANGEROUS_ADVICE.search(text)


def named(text: str) -> None:
    """The text names the right and the command, if not all words of it."""
    assert RIGHT in text
    assert "`enclave-host watermark raise`" in text
    assert not DANGEROUS_ADVICE.search(text)


def shown(config: Path, known: int) -> None:
    show, _, doctor, *_ = looks(config)
    assert (show.code, doctor.code) == (0, 1)
    told(show.stderr, known)
    (line,) = (line for line in show.stdout.splitlines() if " block " in line)
    assert line.split() == [ALICE.pkh, CHAIN_ID, "block", str(known), "0", "damaged:", "refused"]
    told(doctor.stdout, known)
    assert re.search(
        r"^failed: watermarks: \d marks?, and 1 damaged: those rights are not signed$", doctor.stdout, re.MULTILINE
    )


def refuses_this_right_alone(host: Host, known: int) -> None:
    told(host.log, known)
    for message in (block(LAST_BLOCK), block(LAST_BLOCK, payload=OTHER), block(FLOOR + 1)):
        answer = host.sign(ALICE.pkh, message)
        assert answer.status == 503
        told(answer.message, known)
    assert not signs(host, attestation(LAST_ATTESTATION, payload=OTHER))
    assert signs(host, attestation(LAST_ATTESTATION))
    assert signs(host, preattestation(1))
    status, health = host.health()
    assert (status, health["ready"]) == (200, True)
    degraded = health["degraded"]
    assert isinstance(degraded, list)
    (reason,) = degraded
    told(reason, known)
    assert metric(host) == 1


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
@pytest.mark.parametrize("newest", [True, False], ids=["newest copy", "older copy"])
def test_a_damaged_copy_costs_one_right_until_it_is_raised(
    tmp_path: Path, local: Enclave, histories: dict[bool, Path], newest: bool, killed: bool
) -> None:
    config = spread(tmp_path, local, histories[killed])
    number, slot = slot_of(config, Right.BLOCK)
    spoil(config, slot_offset(number, (slot.record.sequence + (not newest)) % COPIES))
    stored = LAST_BLOCK - 1 if newest else LAST_BLOCK
    # A host that stopped in order has handed the last one to Signatory's files, where it is found.
    known = stored if killed else LAST_BLOCK
    shown(config, known)
    named(refused(watermark(config, "init"), 1))
    # It outlives a stop, a crash, and Signatory's files, which may know what was signed.
    for stopped in (True, False, True):
        with running_host(config) as host:
            refuses_this_right_alone(host, known)
            if stopped:
                assert host.stop() == 1
                assert "marks are not handed back" in host.log
                (last,) = (line for line in host.log.splitlines() if line.startswith("Error: "))
                named(last)
            else:
                host.discard()
        assert in_use_file(config).exists()
        shown(config, known)
    named(refused(watermark(config, "export"), 1))
    told(refused(watermark(config, "raise", *WHERE, str(known)), 1), known)
    told(refused(watermark(config, "reset", "--yes", *WHERE, str(FLOOR)), 1), known)
    # Others can be raised meanwhile.
    assert watermark(config, "raise", CHAIN_ID, ALICE.pkh, "attestation", str(FLOOR)).code == 0
    assert in_use_file(config).exists()

    raised = watermark(config, "raise", *WHERE, str(FLOOR))
    assert raised.code == 0, raised.stderr
    for outcome in looks(config):
        assert outcome.code == 0, outcome.stdout
    with running_host(config) as host:
        for message in (block(LAST_BLOCK), block(FLOOR), attestation(FLOOR)):
            assert not signs(host, message)
        for message in (block(FLOOR + 1), attestation(FLOOR + 1)):
            assert signs(host, message)
        assert host.health() == (200, {"ready": True})
        assert metric(host) == 0
        assert host.stop() == 0
    assert not in_use_file(config).exists()


def test_a_store_made_anew_mends_it_too(tmp_path: Path, local: Enclave, histories: dict[bool, Path]) -> None:
    config = spread(tmp_path, local, histories[True])
    number, _ = slot_of(config, Right.BLOCK)
    spoil(config, slot_offset(number, 0))
    assert watermark(config, "rebuild", "--above-level", str(FLOOR), "--chain", CHAIN_ID, "--yes").code == 0
    with running_host(config) as host:
        assert not signs(host, block(FLOOR))
        assert signs(host, block(FLOOR + 1))
        assert host.stop() == 0
    assert not in_use_file(config).exists()


@pytest.mark.parametrize(
    "offset", [header_offset(0), header_offset(1), slot_offset(200, 0)], ids=["one header", "other header", "no slot"]
)
def test_damage_that_costs_nothing(tmp_path: Path, local: Enclave, histories: dict[bool, Path], offset: int) -> None:
    config = spread(tmp_path, local, histories[False])
    spoil(config, offset)
    for outcome in looks(config):
        assert outcome.code == 0, outcome.stdout
    with running_host(config) as host:
        for message in (block(LAST_BLOCK, payload=OTHER), attestation(LAST_ATTESTATION, payload=OTHER)):
            assert not signs(host, message)
        assert signs(host, block(LAST_BLOCK + 1))
        assert host.stop() == 0
