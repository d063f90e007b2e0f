"""Blocks, preattestations, attestations: exactly one message, nothing negative, one fitness."""

import struct

import pytest

from enclave_signer.tezos import (
    CONSENSUS_MAGIC,
    ConsensusKind,
    ConsensusMessage,
    MalformedMessage,
    Right,
    parse_consensus,
)

CHAIN = bytes.fromhex("ed9d217c")
CHAIN_ID = "NetXxkAx4woPLyu"
HASH = b"\xab" * 32
HIGHEST = 2**31 - 1
VOTES = [
    (0x12, 20, ConsensusKind.PREATTESTATION),
    (0x12, 40, ConsensusKind.PREATTESTATION),
    (0x13, 21, ConsensusKind.ATTESTATION),
    (0x13, 23, ConsensusKind.ATTESTATION_WITH_DAL),
    (0x13, 41, ConsensusKind.ATTESTATION),
]


def vote(magic: int, tag: int, level: int = 7, round_: int = 2, dal: bytes = b"\x00") -> bytes:
    slot = b"" if tag in {40, 41} else b"\x00\x09"
    body = slot + struct.pack(">ii", level, round_) + HASH
    return bytes([magic]) + CHAIN + HASH + bytes([tag]) + body + (dal if tag == 23 else b"")


def fitness(level: int = 7, round_: int = 2, locked: bytes = b"", predecessor: bytes = b"\xff" * 4) -> bytes:
    parts = (b"\x02", struct.pack(">i", level), locked, predecessor, struct.pack(">i", round_))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def block(
    level: int = 7,
    fit: bytes | None = None,
    payload_round: int = 1,
    seed: bytes = b"\x00",
    votes: bytes = b"\x00",
) -> bytes:
    fit = fitness(level) if fit is None else fit
    head = b"\x11" + CHAIN + struct.pack(">i", level) + b"\x16" + HASH + b"\x00" * 8 + b"\x04" + HASH
    tail = HASH + HASH + struct.pack(">i", payload_round) + b"\x01" * 8
    return head + len(fit).to_bytes(4, "big") + fit + tail + seed + votes


@pytest.mark.parametrize(("magic", "tag", "kind"), VOTES)
@pytest.mark.parametrize(("level", "round_"), [(0, 0), (7, 2), (HIGHEST, HIGHEST)])
def test_votes(magic: int, tag: int, kind: ConsensusKind, level: int, round_: int) -> None:
    assert parse_consensus(vote(magic, tag, level, round_)) == ConsensusMessage(kind, CHAIN_ID, level, round_)


@pytest.mark.parametrize("magic", [0x12, 0x13])
@pytest.mark.parametrize("tag", [0, 20, 21, 22, 23, 40, 41, 42, 255])
def test_the_magic_byte_decides_which_operations_may_follow(magic: int, tag: int) -> None:
    if (magic, tag) in {(known, operation) for known, operation, _ in VOTES}:
        parse_consensus(vote(magic, tag))
        return
    with pytest.raises(MalformedMessage, match=f"^operation tag {tag} after first byte 0x{magic:02x}; expected 2"):
        parse_consensus(vote(magic, tag))


@pytest.mark.parametrize(("magic", "tag", "kind"), VOTES)
@pytest.mark.parametrize(("level", "round_", "field"), [(-1, 0, "level"), (0, -1, "round"), (-(2**31), 0, "level")])
def test_negative_votes(magic: int, tag: int, kind: ConsensusKind, level: int, round_: int, field: str) -> None:
    with pytest.raises(MalformedMessage, match=f"^{kind}: negative {field} -"):
        parse_consensus(vote(magic, tag, level, round_))


@pytest.mark.parametrize(("magic", "tag", "kind"), VOTES)
def test_votes_of_another_length(magic: int, tag: int, kind: ConsensusKind) -> None:
    message = vote(magic, tag)
    for wrong in (message[:-2], message + b"\x00"):
        with pytest.raises(MalformedMessage, match=rf"^{kind}: "):
            parse_consensus(wrong)


@pytest.mark.parametrize("dal", ["00", "01", "3f", "8001", "bf7f", "bfffffff7f", "80" * 132 + "01"])
def test_a_dal_bitset_is_any_natural_number(dal: str) -> None:
    assert parse_consensus(vote(0x13, 23, dal=bytes.fromhex(dal))).kind is ConsensusKind.ATTESTATION_WITH_DAL


@pytest.mark.parametrize(
    ("dal", "error"),
    [
        ("", "of 0 bytes"),
        ("41", "negative"),
        ("40", "negative"),
        ("c101", "negative"),
        ("80", "does not end where"),
        ("0100", "does not end where"),
        ("8080", "does not end where"),
        ("800180", "does not end where"),
        ("8000", "not in its shortest form"),
        ("818000", "not in its shortest form"),
        ("80" * 1064 + "01", "of 1065 bytes; expected 1 to 1064"),
    ],
)
def test_other_dal_bitsets_are_refused(dal: str, error: str) -> None:
    with pytest.raises(MalformedMessage, match=error):
        parse_consensus(vote(0x13, 23, dal=bytes.fromhex(dal)))


@pytest.mark.parametrize(("level", "round_"), [(0, 0), (7, 2), (HIGHEST, HIGHEST)])
@pytest.mark.parametrize("locked", [b"", b"\x00" * 4, b"\x7f" + b"\xff" * 3])
@pytest.mark.parametrize("predecessor", [b"\xff" * 4, b"\x00" * 4, b"\x80" + b"\x00" * 3])
@pytest.mark.parametrize("seed", [b"\x00", b"\xff" + HASH])
@pytest.mark.parametrize("votes", [b"\x00", b"\x0a", b"\xff"])
def test_blocks(level: int, round_: int, locked: bytes, predecessor: bytes, seed: bytes, votes: bytes) -> None:
    message = block(level, fitness(level, round_, locked, predecessor), seed=seed, votes=votes)
    assert parse_consensus(message) == ConsensusMessage(ConsensusKind.BLOCK, CHAIN_ID, level, round_)


def test_the_round_of_a_block_is_that_of_its_fitness() -> None:
    assert parse_consensus(block(payload_round=0, fit=fitness(round_=5))).round == 5


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (block(level=-1), "negative level -1"),
        (block(payload_round=-1), "negative payload_round -1"),
        (block(fit=fitness(round_=-1)), "negative round -1"),
        (block(fit=fitness(locked=b"\xff" * 4)), "negative locked_round -1"),
        (block(level=7, fit=fitness(level=8)), "level 7 in the header, 8 in the fitness"),
        (block(fit=b""), "fitness of 0 bytes"),
        (block(fit=fitness()[:-1]), "fitness of 32 bytes"),
        (block(fit=fitness() + b"\x00"), "fitness of 34 bytes"),
        (block(fit=fitness(locked=b"\x00" * 3)), "fitness of 36 bytes"),
        (block(fit=b"\x00" * 33), "not that of Tenderbake"),
        (block(fit=b"\x00" * 37), "not that of Tenderbake"),
        (block(fit=fitness().replace(b"\x01\x02", b"\x01\x01", 1)), "not that of Tenderbake"),
        (block(fit=fitness(predecessor=b"", locked=b"\xff" * 4)), "not that of Tenderbake"),
        (block(seed=b"\x01" + HASH), "flag 0x01 of the seed nonce hash; expected 00 or ff"),
        (block(seed=b"\x01"), "flag 0x01 of the seed nonce hash; expected 00 or ff"),
        (block(seed=b"\xff"), "message of 198 bytes instead of 230"),
        (block(votes=b""), "message of 197 bytes instead of 198"),
        (block(votes=b"\x00\x00"), "message of 199 bytes instead of 198"),
        (block()[:86], "ends before the fitness"),
        (block()[:83] + b"\xff" * 4 + block()[87:], "message of 198 bytes where at least"),
    ],
)
def test_other_blocks_are_refused(message: bytes, error: str) -> None:
    with pytest.raises(MalformedMessage, match=error) as caught:
        parse_consensus(message)
    assert str(caught.value).startswith("block: ")


@pytest.mark.parametrize("offset", [0, 4, 5, 13, 17, 25])
def test_the_fixed_bytes_of_a_fitness_are_fixed(offset: int) -> None:
    spoiled = bytearray(fitness())
    spoiled[offset] ^= 0x01
    with pytest.raises(MalformedMessage, match="not that of Tenderbake"):
        parse_consensus(block(fit=bytes(spoiled)))


@pytest.mark.parametrize("magic", sorted(set(range(256)) - set(CONSENSUS_MAGIC)))
def test_other_first_bytes(magic: int) -> None:
    with pytest.raises(MalformedMessage, match=f"^first byte 0x{magic:02x}; "):
        parse_consensus(bytes([magic]) + block()[1:])


def test_an_empty_message() -> None:
    with pytest.raises(MalformedMessage, match=r"^empty message"):
        parse_consensus(b"")


def test_both_kinds_of_attestation_use_one_right() -> None:
    assert {kind: kind.right for kind in ConsensusKind} == {
        ConsensusKind.BLOCK: Right.BLOCK,
        ConsensusKind.PREATTESTATION: Right.PREATTESTATION,
        ConsensusKind.ATTESTATION: Right.ATTESTATION,
        ConsensusKind.ATTESTATION_WITH_DAL: Right.ATTESTATION,
    }


def test_chains_are_told_apart() -> None:
    other = vote(0x13, 21).replace(CHAIN, bytes.fromhex("b3d79f99"))
    assert parse_consensus(other).chain_id == "NetXo5iVw1vBoxM"
