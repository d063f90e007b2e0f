"""The table of protocols: where its bounds come from, and what they are."""

import json
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES
from enclave_signer.tezos import PROTOCOLS, Family, Kind, Protocol, decode
from enclave_signer.tezos import protocols as bounds

VECTORS = Path(__file__).parents[1] / "vectors"
BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}


def test_protocols_are_given_by_name_and_hash() -> None:
    assert list(BY_NAME) == ["024", "025", "alpha"]
    for protocol in PROTOCOLS:
        assert decode(protocol.hash, Family.PROTOCOL_HASH)[0] is Kind.PROTOCOL_HASH


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: str(protocol.name))
def test_every_protocol_has_vectors(protocol: Protocol) -> None:
    messages = json.loads((VECTORS / "protocols.json").read_text())["operations"]
    own = [item for item in messages if protocol.name in item["protocols"]]
    assert len(own) > 150
    assert {"attestation", "preattestation", "block", "generic"} <= {item["kind"] for item in own}


@pytest.mark.parametrize(("name", "bits", "size"), [("024", 32, 5), ("025", 925, 133), ("alpha", 925, 133)])
def test_the_largest_dal_bitset_of_a_protocol(name: str, bits: int, size: int) -> None:
    assert (BY_NAME[name].dal_bitset_bits, BY_NAME[name].dal_bitset_bytes) == (bits, size)


def test_a_dal_bitset_has_room_for_what_slots_can_be_numbered() -> None:
    future = Protocol("", "", 256, 16, 0, 0, 0, 0, 0)
    assert (future.dal_bitset_bits, future.dal_bitset_bytes) == (4752, 679)
    assert future.dal_bitset_bytes < bounds.MAX_DAL_BITSET_BYTES


def test_the_smallest_bitset_has_a_byte() -> None:
    assert [Protocol("", "", slots, 1, 0, 0, 0, 0, 0).dal_bitset_bytes for slots in (1, 6, 7, 13, 14)] == [
        1,
        1,
        2,
        2,
        3,
    ]


def test_the_largest_operation_of_every_protocol_is_a_message() -> None:
    assert max(protocol.operation_bytes for protocol in PROTOCOLS) <= MAX_MESSAGE_BYTES
