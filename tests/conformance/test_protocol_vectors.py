"""Messages of protocols 024, 025 and alpha: read as their fields say, by both programs, but for those that are named here."""

import json
from typing import Any

import pytest

from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, PackedMessage, parse_message, request_kind
from tests.doubles import rpc_json
from tests.doubles.operation_vectors import FILE
from tests.endurance import agreement

ITEMS: list[dict[str, Any]] = json.loads((FILE.parent / "protocols.json").read_text())["operations"]
CHAIN_ID = "NetXdQprcVkpaWU"

#: Messages that no protocol of today has on a chain, with the reason.
REFUSED = {
    "octez operation.unsigned-double-baking-evidence": "a fitness of the time before Tenderbake",
    "octez block_header.unsigned": "a fitness of the time before Tenderbake",
    "double_baking_evidence, signatures of 2420 bytes": "a tz5 key cannot bake",
}
READ = [item for item in ITEMS if item["name"] not in REFUSED]
#: Without a JSON form: packed data, and what no one signs.
WITHOUT_JSON = 6
STAKING = {"stake", "unstake", "finalize_unstake", "set_delegate_parameters"}


def named(items: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("item", items, ids=[item["name"] for item in items])


def test_every_message_is_read_or_named() -> None:
    assert (len(ITEMS), len(REFUSED), len(READ)) == (252, 3, 249)
    assert len({item["name"] for item in ITEMS} | {*REFUSED}) + len(repeated_names()) == len(ITEMS)


def repeated_names() -> list[str]:
    """Return the samples of Octez whose bytes differ between the protocols, under one name."""
    names = [item["name"] for item in ITEMS]
    return sorted(name for name in set(names) for _ in range(names.count(name) - 1))


def test_samples_that_protocols_write_differently() -> None:
    assert repeated_names() == [
        "octez operation.unsigned-dal-entrapment-aggregate-evidence",
        "octez operation.unsigned-dal-entrapment-evidence",
    ]


@named([item for item in ITEMS if item["name"] in REFUSED])
def test_refusals(item: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match=r"fitness|2420 byte\(s\) where a signature has 64 or 96"):
        parse_message(bytes.fromhex(item["hex"]))


def test_every_vector_says_who_confirms_it() -> None:
    assert all(item["confirmed_by"] and item["source"] for item in ITEMS)


def consensus_kind(item: dict[str, Any]) -> str:
    kind = item["kind"] if item["kind"] == "block" else item["decoded"]["contents"][0]["kind"]
    return str(kind).removeprefix("bls_mode_")


def place(item: dict[str, Any]) -> tuple[int, int]:
    """Return level and round, from the JSON form."""
    decoded = item["decoded"]
    if item["kind"] == "block":
        return decoded["level"], int(decoded["fitness"][4], 16)
    return decoded["contents"][0]["level"], decoded["contents"][0]["round"]


@named([item for item in READ if item["kind"] not in {"generic", "pack"}])
def test_consensus_messages(item: dict[str, Any]) -> None:
    parsed = parse_message(bytes.fromhex(item["hex"]))
    assert isinstance(parsed, ConsensusMessage)
    assert parsed.kind.value == consensus_kind(item)
    assert parsed.kind.right.value == item["kind"]
    assert (parsed.chain_id, parsed.level, parsed.round) == (CHAIN_ID, *place(item))


def policy_names(item: dict[str, Any]) -> list[str]:
    """Say what a policy should call the operations, from their JSON form."""
    names = []
    for content in item["decoded"]["contents"]:
        entry_point = content.get("parameters", {}).get("entrypoint")
        if content["kind"] == "ballot":
            names.append(f"ballot:{content['ballot']}")
        elif entry_point in STAKING and content["source"] == content["destination"]:
            names.append(entry_point)
        else:
            names.append(content["kind"])
    return names


@named([item for item in READ if item["kind"] == "generic"])
def test_generic_messages(item: dict[str, Any]) -> None:
    parsed = parse_message(bytes.fromhex(item["hex"]))
    assert isinstance(parsed, GenericMessage)
    assert list(parsed.operations) == item["operations"]
    if item["decoded"] is not None:
        assert list(parsed.operations) == policy_names(item)


@named([item for item in READ if item["kind"] == "pack"])
def test_packed_data(item: dict[str, Any]) -> None:
    parsed = parse_message(bytes.fromhex(item["hex"]))
    assert isinstance(parsed, PackedMessage)
    assert request_kind(parsed) == "pack"


@named([item for item in ITEMS if item["decoded"] is not None and item["name"] not in REFUSED])
def test_the_encoder_writes_the_same_bytes(item: dict[str, Any]) -> None:
    assert rpc_json.encoded(item).hex() == item["hex"]


def test_all_but_a_few_have_a_json_form() -> None:
    assert sum(item["decoded"] is None for item in ITEMS) == WITHOUT_JSON


def test_host_and_guard_agree_on_every_consensus_message() -> None:
    counts = agreement.run(0)
    assert counts.disagreements == []
    assert counts.messages > 28
    # The block of before Tenderbake: neither reads it.
    assert counts.refused == 1
    assert set(counts.read) == {"attestation", "attestation_with_dal", "block", "preattestation"}
