"""What the host reads as operations has one spelling: a small share of `tests.endurance.reencoding`."""

import pytest

from host_backend.operations.messages import GenericMessage
from tests.doubles import operation_decoder
from tests.endurance import reencoding

MESSAGES = 4_000


@pytest.fixture(scope="module")
def counts() -> reencoding.Counts:
    return reencoding.run(MESSAGES)


def test_what_is_read_is_written_again_as_it_was(counts: reencoding.Counts) -> None:
    assert counts.messages == MESSAGES + len(reencoding.vectors())
    assert counts.faults == []


def test_the_messages_are_worth_reading(counts: reencoding.Counts) -> None:
    assert counts.refused > MESSAGES / 2
    read = {name.partition(":")[0] for name in counts.read} - {"stake", "unstake", "finalize_unstake"}
    assert len(read - {"set_delegate_parameters"}) == len(operation_decoder.TAGS)
    assert min(counts.read.values()) > 2


def test_they_are_the_same_in_every_run() -> None:
    assert list(reencoding.messages(200)) == list(reencoding.messages(200))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        # A fee in a longer form.
        ("6e" + "00" + "11" * 20 + "8000" + "010203" + "00", "written again as"),
        # A flag that is neither 00 nor ff.
        ("6e" + "00" + "11" * 20 + "00010203" + "01" + "00" + "11" * 20, "written again as"),
        # A number of a script in a longer form.
        ("6f" + "00" + "11" * 20 + "00010203" + "00000003" + "008000", "written again as"),
        ("07", "unreadable"),
    ],
)
def test_a_host_that_reads_another_spelling_is_found(data: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = b"\x03" + bytes(32) + bytes.fromhex(data)
    strict = reencoding.Counts()
    reencoding.check(message, strict)
    assert (strict.refused, strict.faults) == (1, [])
    monkeypatch.setattr(reencoding, "parse_message", lambda _: GenericMessage(("delegation",)))
    careless = reencoding.Counts()
    reencoding.check(message, careless)
    (found,) = careless.faults
    assert found.startswith(fault)
