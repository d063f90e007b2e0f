"""The stand-in for tee-signer answers as tee-signer was recorded to, byte for byte."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tests.doubles.tee_signer import TeeSigner, tee_signer
from tests.doubles.wire import WireClient

TRANSCRIPTS = json.loads((Path(__file__).parents[1] / "vectors" / "enclave-transcripts.json").read_text())
#: Calls that make a key at random: their answers are compared without it.
RANDOM = {"Generate", "GenerateAndImport"}


@pytest.fixture
def signer() -> Iterator[TeeSigner]:
    with tee_signer() as running:
        yield running


def shape(body: bytes) -> object:
    """Return an answer with sizes in place of bytes."""

    def sizes(value: object) -> object:
        if isinstance(value, dict):
            return {name: sizes(entry) for name, entry in value.items()}
        return len(value) if isinstance(value, bytes) else value

    return sizes(cbor2.loads(body))


@pytest.mark.parametrize("session", TRANSCRIPTS["sessions"], ids=lambda session: session["name"])
def test_every_recorded_answer_is_given(signer: TeeSigner, session: dict[str, Any]) -> None:
    with WireClient(signer.address, initialize=False) as client:
        for step in session["steps"]:
            client.send_frame(bytes.fromhex(step["request_hex"]))
            answer = client.receive_frame()
            if "reply_hex" not in step:
                # A BLS signature under version 0.
                assert answer is None
                continue
            assert answer is not None
            recorded = bytes.fromhex(step["reply_hex"])
            if isinstance(step["request"], dict) and step["request"].keys() & RANDOM and "Ok" in cbor2.loads(recorded):
                assert shape(answer) == shape(recorded)
            else:
                assert answer == recorded, step["request"]


def test_the_recordings_are_all_there() -> None:
    assert sum(len(session["steps"]) for session in TRANSCRIPTS["sessions"]) == 215


def test_it_signs_two_messages_for_one_right(signer: TeeSigner) -> None:
    head, tail = b"\x13" + bytes(36) + b"\x29" + bytes(8), bytes(31)
    with WireClient(signer.address) as client:
        client.call({"GenerateAndImport": "Ed25519"})
        for last in (b"\1", b"\2"):
            assert "Ok" in client.call({"Sign": {"handle": 0, "message": head + tail + last, "version": 2}})
