"""What an `Err` means is in its first words, from one list."""

import json
from pathlib import Path

import pytest

from enclave_signer import errors
from enclave_signer.errors import EnclaveSignerError
from enclave_signer.protocol.errors import Family, family_of, with_family

TRANSCRIPTS = json.loads((Path(__file__).parents[1] / "vectors" / "enclave-transcripts.json").read_text())
#: What tee-signer says, without what stands below it.
PEERS = {
    step["reply"]["Err"]["message"]
    for session in TRANSCRIPTS["sessions"]
    for step in session["steps"]
    if "Err" in (step.get("reply") or {})
}


def test_a_peers_texts_are_refusals_but_for_the_two_that_both_programs_have() -> None:
    shared = {Family.UNINITIALIZED.value, Family.INITIALIZED.value}
    assert shared < PEERS
    assert len(PEERS) > len(shared)
    assert {family_of(text) for text in PEERS - shared} == {Family.REFUSED}


@pytest.mark.parametrize("family", Family)
def test_a_text_says_its_family_once(family: Family) -> None:
    for text in ("no answer", f"{family}: no answer"):
        said = with_family(family, text)
        assert family_of(said) is family
        assert said.count(family) <= 1


@pytest.mark.parametrize("family", Family)
def test_a_refusal_is_not_taken_for_another_family(family: Family) -> None:
    assert family_of(with_family(Family.REFUSED, f"{family}: says somebody else")) is Family.REFUSED


def test_no_family_begins_like_another() -> None:
    assert not [(one, other) for one in Family for other in Family if one is not other and one.startswith(other)]


def test_every_error_of_the_daemon_has_a_family() -> None:
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, EnclaveSignerError)
    ]
    assert {each.family for each in classes} == {*Family}
