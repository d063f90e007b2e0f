"""The larger fields of operations: nested ones are read as strictly as others."""

import re
from collections.abc import Callable

import pytest

from enclave_signer.tezos.protocols import MAX_RAW_DATA_BYTES
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, parse_message

HEAD = b"\x03" + b"\xbb" * 32
PKH = b"\x00" + b"\xaa" * 20
MANAGER = PKH + b"\x01\x02\x03\x04"
TRANSACTION = b"\x6c" + MANAGER + b"\x05" + b"\x00" + PKH + b"\x00"


def dynamic(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def names(message: bytes) -> tuple[str, ...]:
    parsed = parse_message(message)
    assert isinstance(parsed, GenericMessage)
    return parsed.operations


def refusal(message: bytes) -> str:
    with pytest.raises(MalformedRequest) as caught:
        parse_message(message)
    return str(caught.value)


VOTE = b"\x00\x07" + b"\x00\x00\x00\x05" + b"\x00\x00\x00\x01" + b"\x22" * 32
AGGREGATE = VOTE[2:] + dynamic(b"\x00\x01\x00" + b"\x00\x02\xff\x05")


def inlined(body: bytes, signature: bytes = b"\x33" * 64) -> bytes:
    return dynamic(b"\x11" * 32 + body + signature)


def double(first: bytes, second: bytes = b"\x15" + VOTE) -> bytes:
    return HEAD + b"\x02\x00\x07" + inlined(first) + inlined(second)


@pytest.mark.parametrize(
    "body",
    [
        b"\x14" + VOTE,
        b"\x15" + VOTE,
        b"\x17" + VOTE + b"\xbf\x01",
        b"\x1e" + VOTE[2:] + dynamic(b"\x00\x01"),
        b"\x1f" + AGGREGATE,
    ],
)
def test_inlined_operations(body: bytes) -> None:
    assert names(double(body)) == ("double_consensus_operation_evidence",)
    assert names(double(b"\x15" + VOTE, body)) == ("double_consensus_operation_evidence",)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\x28" + VOTE, "op1.operations at byte 72: unknown tag 40; known are 20 preattestation, 21 attestation"),
        (b"\x6c" + VOTE, "op1.operations at byte 72: unknown tag 108"),
        (b"\x14\x00\x07\xff\xff\xff\xff" + VOTE[6:], "op1.operations.preattestation.level at byte 75: negative number"),
        (b"\x15" + VOTE[:6] + b"\x80\x00\x00\x00" + VOTE[10:], "op1.operations.attestation.round at byte 79: negative"),
        (b"\x17" + VOTE + b"\x41", "attestation_with_dal.dal_attestation at byte 115: negative number"),
        (
            b"\x17" + VOTE + b"\x81\x00",
            "attestation_with_dal.dal_attestation at byte 115: number not in its shortest form",
        ),
        (b"\x17" + VOTE + b"\x80" * 1064 + b"\x01", "dal_attestation at byte 115: number longer than 1064 bytes"),
        (
            b"\x1e" + VOTE[2:] + dynamic(b"\x00"),
            "preattestations_aggregate.committee at byte 117: 2 byte(s) needed, 1 left",
        ),
        (
            b"\x1f" + VOTE[2:] + dynamic(b"\x00\x01\x01"),
            "attestations_aggregate.committee.dal_attestation at byte 119: flag 0x01",
        ),
        (b"\x15" + VOTE + b"\x00", "op1.signature at byte 115: 65 byte(s) where a signature has 64 or 96"),
        (b"\x15" + VOTE[:-1], "op1.signature at byte 115: 63 byte(s) where a signature has 64 or 96"),
    ],
)
def test_other_inlined_operations_are_refused(body: bytes, error: str) -> None:
    assert error in refusal(double(body))


@pytest.mark.parametrize("size", [0, 32, 63, 65, 95, 97, 128])
def test_an_inlined_operation_ends_with_a_signature(size: int) -> None:
    message = HEAD + b"\x02\x00\x07" + inlined(b"\x15" + VOTE) + inlined(b"\x15" + VOTE, b"\x33" * size)
    assert "field op2.signature at byte " in refusal(message)


def header(
    level: int = 5,
    fitness_level: int = 5,
    *,
    round_: bytes = b"\x00\x00\x00\x01",
    locked: bytes = b"",
    version: bytes = b"\x02",
    votes: int = 2,
) -> bytes:
    parts = (version, fitness_level.to_bytes(4, "big"), locked, b"\xff\xff\xff\xfe", round_)
    fitness = dynamic(b"".join(dynamic(part) for part in parts))
    shell = (
        level.to_bytes(4, "big")
        + b"\x18"
        + b"\x44" * 32
        + b"\x00" * 8
        + b"\x04"
        + b"\x55" * 32
        + fitness
        + b"\x66" * 32
    )
    return shell + b"\x77" * 32 + b"\x00" * 4 + b"\x88" * 8 + b"\x00" + bytes([votes])


def double_baking(first: bytes, second: bytes | None = None) -> bytes:
    other = header() if second is None else second
    return HEAD + b"\x03" + dynamic(first + b"\x99" * 64) + dynamic(other + b"\x99" * 96)


def test_evidence_of_double_baking() -> None:
    for first in (header(), header(7, 7, locked=b"\x00\x00\x00\x00"), header(votes=0)):
        assert names(double_baking(first)) == ("double_baking_evidence",)


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (header(5, 6), "bh1 at byte 38: level 5 in the header, 6 in the fitness"),
        (header(1 << 31, 1 << 31), "bh1.level at byte 38: negative number"),
        (header(version=b"\x01"), "bh1.fitness.version at byte 124: unknown value 1; known are 2 Tenderbake"),
        (header(version=b""), "bh1.fitness.version at byte 124: 1 byte(s) needed, 0 left"),
        (header(round_=b"\x80\x00\x00\x00"), "bh1.fitness.round at byte 149: negative number"),
        (header(locked=b"\x00\x00\x00"), "bh1.fitness.locked_round at byte 137: 4 byte(s) needed, 3 left"),
        (header(locked=b"\xff\xff\xff\xff"), "bh1.fitness.locked_round at byte 137: negative number"),
        (header(votes=3), "bh1.per_block_votes at byte 230: unknown value 3; known are 0 on, 1 off, 2 pass"),
        (header() + b"\x00", "bh1.signature at byte 231: 65 byte(s) where a signature has 64 or 96"),
        (header()[:4], "bh1.operations_hash at byte 84: 32 byte(s) needed, 22 left"),
    ],
)
def test_other_headers_are_refused(first: bytes, error: str) -> None:
    assert f"operation 1 (double_baking_evidence), field {error}" in refusal(double_baking(first))


def proof(input_proof: bytes) -> bytes:
    return HEAD + b"\xcc" + MANAGER + b"\xdd" * 20 + PKH + b"\x01\x05\x01" + dynamic(b"") + b"\xff" + input_proof


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            proof(b"\x03"),
            "input_proof at byte 108: unknown tag 3; known are 0 inbox_proof, 1 reveal_proof, 2 first_input",
        ),
        (
            proof(b"\x01\x04"),
            "reveal_proof at byte 109: unknown tag 4; known are 0 raw_data, 1 metadata, 2 dal_page, 3 dal_",
        ),
        (
            proof(b"\x01\x00" + (MAX_RAW_DATA_BYTES + 1).to_bytes(2, "big") + b"\x00" * (MAX_RAW_DATA_BYTES + 1)),
            "raw_data at byte 110: a length of 4097 bytes; at most 4096 are allowed",
        ),
        (proof(b"\x00\xff\xff\xff\xff\x00" + dynamic(b"")), "inbox_proof.level at byte 109: negative number"),
        (
            proof(b"\x01\x02\xff\xff\xff\xff\x01\x00\x02" + dynamic(b"")),
            "dal_page.published_level at byte 110: negative number",
        ),
        (proof(b"")[:107] + b"\x02", "refutation.move.step.proof.input_proof at byte 107: flag 0x02; expected"),
        (proof(b"")[:100] + b"\x02", "refutation at byte 100: unknown tag 2; known are 0 start, 1 move"),
    ],
)
def test_other_refutations_are_refused(message: bytes, error: str) -> None:
    assert error in refusal(message)


def test_the_largest_raw_data() -> None:
    raw_data = MAX_RAW_DATA_BYTES.to_bytes(2, "big") + b"\x00" * MAX_RAW_DATA_BYTES
    assert names(proof(b"\x01\x00" + raw_data)) == ("smart_rollup_refute",)


def publish(inbox_level: bytes, number_of_ticks: bytes) -> bytes:
    return HEAD + b"\xcb" + MANAGER + b"\xdd" * 20 + b"\x01" * 32 + inbox_level + b"\x02" * 32 + number_of_ticks


def test_commitments() -> None:
    assert names(publish(b"\x00" * 4, b"\x7f" + b"\xff" * 7)) == ("smart_rollup_publish",)
    assert "commitment.inbox_level at byte 111: negative number" in refusal(publish(b"\xff" * 4, b"\x00" * 8))
    assert "commitment.number_of_ticks at byte 147: negative" in refusal(publish(b"\x00" * 4, b"\xff" * 8))


def test_a_member_of_a_committee_says_whether_it_attests_dal() -> None:
    message = HEAD + b"\x1f" + VOTE[2:] + dynamic(b"\x00\x01\x00\x00\x02")
    assert "field committee.dal_attestation at byte 83: 1 byte(s) needed, 0 left" in refusal(message)


def test_proposals() -> None:
    def proposals(count: int, period: bytes = b"\x00" * 4) -> bytes:
        return HEAD + b"\x05" + PKH + period + dynamic(b"\x01" * 32 * count)

    assert names(proposals(20)) == ("proposals",)
    assert "field proposals at byte 703: more than 20 items" in refusal(proposals(21))
    assert "field period at byte 55: negative number" in refusal(proposals(1, b"\xff" * 4))


def origination(nb_ops: int) -> bytes:
    return HEAD + b"\xfa" + MANAGER + dynamic(b"") * 3 + nb_ops.to_bytes(4, "big", signed=True)


def shard(index: int, lag: bytes = b"\x00", share: bytes = b"\x01" * 32) -> bytes:
    proven = index.to_bytes(4, "big", signed=True) + dynamic(share) + b"\x02" * 48
    return HEAD + b"\x18" + inlined(b"\x15" + VOTE) + b"\x00\x07\x03" + lag + proven


@pytest.mark.parametrize("index", [0, 1, 255, 511, 2**30 - 1, -1])
@pytest.mark.parametrize("lag", ["", "00", "ff00", "ff04", "ff05", "ffff"])
@pytest.mark.parametrize("share", [b"\x01" * 32, b"\x00" * 32 * 129])
def test_evidence_of_entrapment_with_and_without_a_lag(index: int, lag: str, share: bytes) -> None:
    message = shard(index, bytes.fromhex(lag), share)
    assert names(message) == ("dal_entrapment_evidence",)
    for wrong in (message + b"\x00", message[:-1], message + message[33:]):
        refusal(wrong)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (shard(5, b"\x01"), "field shard_with_proof.lag_index at byte 180: flag 0x01; expected 00 or ff"),
        (shard(5, b"\xff"), "field shard_with_proof.shard.share at byte 186: a length of 8193 bytes where"),
        (shard(5, b"\x00\x00"), "field shard_with_proof.shard.share at byte 185: a length of 83886080 bytes where"),
        (shard(5, share=b"\x01" * 31), "field shard_with_proof.shard.share at byte 189: 32 byte(s) needed, 31 left"),
        (shard(5) + b"\x00", "operation 2 at byte 269: tag 0 is not an operation of the protocols 024, 025, alpha"),
        (shard(5)[:-1], "field shard_with_proof.proof at byte 221: 48 byte(s) needed, 47 left"),
    ],
)
def test_other_evidence_of_entrapment_is_refused(message: bytes, error: str) -> None:
    assert error in refusal(message)


@pytest.mark.parametrize(("make", "place"), [(origination, 71), (shard, 181)])
def test_a_number_of_31_bits(make: Callable[[int], bytes], place: int) -> None:
    for number in (-(2**30), -1, 0, 2**30 - 1):
        names(make(number))
    for number in (-(2**31), -(2**30) - 1, 2**30, 2**31 - 1):
        assert re.search(rf"at byte {place}: number of more than 31 bits", refusal(make(number)))


@pytest.mark.parametrize(
    "operation",
    [
        b"\xfa" + MANAGER + dynamic(b"") + dynamic(dynamic(b"a") + b"\x03") + dynamic(b"") + b"\x00" * 4,
        b"\xfa" + MANAGER + dynamic(b"") * 2 + dynamic(b"\x01" * 31) + b"\x00" * 4,
        b"\xfc"
        + MANAGER
        + b"\xdd" * 20
        + dynamic(dynamic(b"a") + dynamic(b"") + b"\x01" * 32 + b"\x01")
        + dynamic(b"") * 3,
        b"\xfb"
        + MANAGER
        + b"\xdd" * 20
        + dynamic(b"\x00" * 4 + b"\x01" * 32 + b"\x40" + PKH + b"\x02" * 20 + dynamic(b"") + b"\x00"),
        b"\xfb"
        + MANAGER
        + b"\xdd" * 20
        + dynamic(b"\x00" * 4 + b"\x01" * 32 + b"\x00" + PKH + b"\x02" * 20 + dynamic(b"") + b"\xff"),
        TRANSACTION + b"\xff\x02" + b"\xee" * 32,
    ],
)
def test_other_parts_are_checked(operation: bytes) -> None:
    assert re.match(r"operation [12] \(\w+\), field [\w.]+ at byte \d+: ", refusal(HEAD + operation))
