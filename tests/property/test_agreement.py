"""Host and guard read alike whatever begins like a consensus message: a small share of `tests.endurance.agreement`."""

import pytest

from enclave_signer.tezos import ConsensusKind, ConsensusMessage
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import parse_message
from tests.endurance import agreement

MESSAGES = 20_000


@pytest.fixture(scope="module")
def counts() -> agreement.Counts:
    return agreement.run(MESSAGES)


def test_host_and_guard_agree(counts: agreement.Counts) -> None:
    assert counts.messages == MESSAGES + len(agreement.vectors())
    assert counts.disagreements == []


def test_the_messages_are_worth_asking_about(counts: agreement.Counts) -> None:
    assert set(counts.read) == set(ConsensusKind)
    assert min(counts.read.values()) > MESSAGES // 50
    assert counts.refused > MESSAGES // 2
    assert counts.in_evidence > MESSAGES // 3


def test_the_messages_are_the_same_in_every_run() -> None:
    assert list(agreement.messages(200)) == list(agreement.messages(200))


@pytest.mark.parametrize("off_by", [1, -1])
def test_a_disagreement_is_seen(monkeypatch: pytest.MonkeyPatch, off_by: int) -> None:
    def dishonest(message: bytes) -> object:
        parsed = parse_message(message)
        if isinstance(parsed, ConsensusMessage):
            return ConsensusMessage(parsed.kind, parsed.chain_id, parsed.level, parsed.round + off_by)
        return parsed

    monkeypatch.setattr(agreement, "parse_message", dishonest)
    counts = agreement.run(0)
    assert len(counts.disagreements) == counts.messages - counts.refused


def test_a_refusal_by_one_is_a_disagreement(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(message: bytes) -> object:
        raise MalformedRequest("nothing is read")

    monkeypatch.setattr(agreement, "parse_message", refuse)
    counts = agreement.run(0)
    assert counts.refused == counts.messages
    assert len(counts.disagreements) == counts.messages - 1
