"""Every operation of the table, as Octez' documentation has it written: named as it should be, and whole or refused."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from enclave_signer.tezos import PROTOCOLS, MalformedMessage, parse_consensus
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, PackedMessage, parse_message
from host_backend.operations.table import OPERATION_KINDS, OPERATIONS
from tests.doubles import operation_encoder, operation_vectors

DOCUMENT = operation_vectors.load()
GENERIC: list[dict[str, Any]] = DOCUMENT["made"] + DOCUMENT["recorded"]
PACKED: list[dict[str, Any]] = DOCUMENT["packed"]
SIGNATORY = json.loads((operation_vectors.FILE.parent / "signatory-vectors.json").read_text())["payloads"]
FORGED = json.loads((operation_vectors.FILE.parent / "forged-operations.json").read_text())["payloads"]

#: Operations that no other program was found to write, so that their vectors rest on the documentation alone.
DOCUMENTED_ONLY = {
    "double_baking_evidence": "but a block header is: the recorded blocks are read inside of it, see below",
    "signature_prefix": "it occurs in signed operations, which nobody asks to have signed",
    "zk_rollup_origination": "validity rollups were never switched on",
    "zk_rollup_publish": "as above",
    "zk_rollup_update": "as above",
}
#: Operations whose last field is an option whose flag earlier protocols had not, and its bytes when it is there.
LATE_OPTION_BYTES = {"reveal": 101, "update_consensus_key": 101}


def vectors(items: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("item", items, ids=[item["name"] for item in items])


def operations(message: bytes) -> tuple[str, ...]:
    parsed = parse_message(message)
    assert isinstance(parsed, GenericMessage)
    return parsed.operations


def accepted(message: bytes) -> bool:
    try:
        parse_message(message)
    except MalformedRequest:
        return False
    return True


def test_the_file_is_what_the_encoder_writes() -> None:
    assert operation_vectors.text(operation_vectors.filled(DOCUMENT)) == operation_vectors.FILE.read_text()
    assert DOCUMENT["protocols"] == [protocol.name for protocol in PROTOCOLS]


@vectors(DOCUMENT["recorded"])
def test_the_encoder_writes_what_another_program_wrote(item: dict[str, Any]) -> None:
    assert operation_vectors.encoded(item) == item["hex"]


@vectors(GENERIC)
def test_operations_are_named(item: dict[str, Any]) -> None:
    assert list(operations(bytes.fromhex(item["hex"]))) == item["operations"]


#: Manager operations, by the tags that Octez' `operation_repr.ml` gives them.
MANAGER_TAGS = {*range(107, 116), 158, *range(200, 208), 230, *range(250, 253)}
MANAGER = {OPERATIONS[tag].kind for tag in MANAGER_TAGS}


@vectors(GENERIC)
def test_a_manager_operation_may_follow_another(item: dict[str, Any]) -> None:
    message = bytes.fromhex(item["hex"])
    if {content["kind"] for content in item["contents"]} <= MANAGER:
        assert list(operations(message + message[33:])) == item["operations"] * 2
    else:
        assert not accepted(message + message[33:])


def one_of_each_kind() -> dict[str, bytes]:
    """Return, of each kind, the bytes of its longest vector, whose late option is there."""
    single = sorted((item for item in GENERIC if len(item["contents"]) == 1), key=lambda item: len(item["hex"]))
    return {item["contents"][0]["kind"]: bytes.fromhex(item["hex"])[33:] for item in single}


def test_every_pair_of_operations() -> None:
    head = b"\x03" + b"\xab" * 32
    each = one_of_each_kind()
    assert set(each) == operation_encoder.KINDS - {"signature_prefix"}
    allowed = {(a, b) for a, first in each.items() for b, second in each.items() if accepted(head + first + second)}
    assert allowed == {(a, b) for a in MANAGER for b in MANAGER}
    prefix = b"\xff\x03" + b"\xee" * 32
    assert all(accepted(head + operation + prefix) for operation in each.values())
    assert not any(accepted(head + a + prefix + b) for a in each.values() for b in each.values())


@vectors(PACKED)
def test_packed_data(item: dict[str, Any]) -> None:
    assert parse_message(bytes.fromhex(item["hex"])) == PackedMessage()


def test_every_operation_has_a_small_and_a_rich_vector() -> None:
    assert {row.kind for row in OPERATIONS.values()} == operation_encoder.KINDS
    made = Counter(name for item in DOCUMENT["made"] for name in item["operations"])
    assert set(made) == {name for name in OPERATION_KINDS if name != "ballot"}
    assert min(count for name, count in made.items() if not name.startswith("ballot:")) >= 2


def test_every_row_has_a_vector_of_another_program_or_a_reason() -> None:
    written = [item["hex"] for item in (*SIGNATORY, *FORGED, *DOCUMENT["recorded"]) if item["hex"].startswith("03")]
    seen = {name.split(":")[0] for message in written for name in operations(bytes.fromhex(message))}
    assert {row.kind for row in OPERATIONS.values()} - seen == set(DOCUMENTED_ONLY)


def whole_beginnings(item: dict[str, Any]) -> Iterator[int]:
    """Yield the lengths at which a message can be cut so that a whole message remains: between its operations."""
    contents = item["contents"]
    ends = [len(operation_encoder.message(item["branch"], contents[:count])) for count in range(len(contents) + 1)]
    for operation, (_, end) in zip(contents, pairwise(ends), strict=True):
        yield end
        if operation["kind"] in LATE_OPTION_BYTES:
            yield end - (LATE_OPTION_BYTES[operation["kind"]] if "proof" in operation else 1)


@vectors(GENERIC)
def test_no_beginning_of_a_message_is_a_message(item: dict[str, Any]) -> None:
    message = bytes.fromhex(item["hex"])
    lengths = {length for length in range(len(message) + 1) if accepted(message[:length])}
    assert lengths == set(whole_beginnings(item))


@vectors(PACKED)
def test_no_beginning_of_packed_data_is_packed_data(item: dict[str, Any]) -> None:
    message = bytes.fromhex(item["hex"])
    assert not any(accepted(message[:length]) for length in range(len(message)))


@vectors(GENERIC + PACKED)
def test_no_byte_may_follow_a_message(item: dict[str, Any]) -> None:
    message = bytes.fromhex(item["hex"])
    assert not any(accepted(message + bytes([byte])) for byte in range(256))
    assert not accepted(message + message)


def evidence(header: bytes) -> bytes:
    """Put a block header twice into evidence of double baking."""
    part = (len(header) + 64).to_bytes(4, "big") + header + b"\x5a" * 64
    return b"\x03" + b"\xab" * 32 + b"\x03" + part + part


def is_block(header: bytes) -> bool:
    """Ask the other decoder, the one of what bakers sign. Any votes will do for it; the protocols have three."""
    try:
        parse_consensus(b"\x11abcd" + header)
    except MalformedMessage:
        return False
    return header[-1] in {0, 1, 2}


BLOCKS = [bytes.fromhex(item["hex"])[5:] for item in SIGNATORY if item["kind"] == "block"]


def test_there_are_recorded_blocks() -> None:
    assert sum(is_block(header) for header in BLOCKS) >= 2


@pytest.mark.parametrize("header", BLOCKS, ids=range(len(BLOCKS)))
def test_headers_in_evidence_are_read_as_strictly_as_blocks(header: bytes) -> None:
    assert accepted(evidence(header)) == is_block(header)
    for place in range(len(header)):
        for value in (0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF, header[place] ^ 0x01):
            changed = header[:place] + bytes([value]) + header[place + 1 :]
            assert accepted(evidence(changed)) == is_block(changed), f"byte {place} is {value}"
