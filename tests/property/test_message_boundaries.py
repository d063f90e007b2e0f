"""A message is whole, or refused: cut short, made longer, or written in any other than its canonical form."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_signer.tezos import ConsensusKind, ConsensusMessage, Kind, MalformedMessage, encode, parse_consensus
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, parse_message

VECTORS = Path(__file__).parents[1] / "vectors"
HASH = b"\xab" * 32
STEADY = settings(deadline=None, derandomize=True)
I32 = st.integers(-(2**31), 2**31 - 1)
NATURAL_I32 = st.integers(0, 2**31 - 1)
NEGATIVE_I32 = st.integers(-(2**31), -1)
VOTES = st.sampled_from([(0x12, 20), (0x12, 40), (0x13, 21), (0x13, 23), (0x13, 41)])

#: Operations whose last field is an option that earlier protocols had not: at the end of a message even its flag may be missing.
LATE_OPTION = {"reveal", "update_consensus_key"}
#: Messages of the vectors that end without that flag. In all the others it is there, and it is 00.
WITHOUT_FINAL_FLAG = {"policy_update_consensus_key", "policy_delegate_with_consesus_key"}
#: Where the operations of a batch end, in bytes, but for the last: each such beginning is a whole message, too.
ENDS = {
    "request_multiple_operations": [118],
    "policy_reveal": [97],
    "policy_very_long_batch": list(range(33 + 57, 8583, 57)),
    "policy_delegate_with_consesus_key": [96, 146],
    "forged 28 reveal+transaction": [97],
    "forged 29 delegation+transaction+transaction": [85, 141],
    "forged 30 transaction+set_deposits_limit": [89],
}


def messages() -> Iterator[tuple[str, bytes]]:
    signatory = json.loads((VECTORS / "signatory-vectors.json").read_text())["payloads"]
    for item in signatory:
        if item["kind"] != "pack":
            yield item["id"], bytes.fromhex(item["hex"])
    forged = json.loads((VECTORS / "forged-operations.json").read_text())["payloads"]
    for index, item in enumerate(forged):
        yield f"forged {index} {item['kind']}", bytes.fromhex(item["hex"])


MESSAGES = list(messages())
IDS = [name for name, _ in MESSAGES]


def accepted(message: bytes) -> bool:
    try:
        parse_message(message)
    except MalformedRequest:
        return False
    return True


def whole_beginnings(name: str, message: bytes) -> set[int]:
    """Tell at which lengths a message can be cut so that a whole message remains."""
    parsed = parse_message(message)
    if not isinstance(parsed, GenericMessage):
        return set()
    assert {*WITHOUT_FINAL_FLAG, *ENDS} <= set(IDS)
    ends = [*ENDS.get(name, []), len(message)]
    flagged = [operation in LATE_OPTION for operation in parsed.operations]
    if name in WITHOUT_FINAL_FLAG:
        assert flagged[-1]
        flagged[-1] = False
    without_flag = {end - 1 for end, flag in zip(ends, flagged, strict=True) if flag}
    return without_flag | set(ends[:-1])


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=IDS)
def test_no_beginning_of_a_message_is_a_message(name: str, message: bytes) -> None:
    exceptions = whole_beginnings(name, message)
    # The batch of 150 equal operations is cut in its first and its last ones only.
    lengths = [length for length in range(len(message)) if length < 400 or length > len(message) - 400]
    assert {length for length in lengths if accepted(message[:length])} == exceptions & set(lengths)


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=IDS)
def test_no_byte_may_follow_a_message(name: str, message: bytes) -> None:
    following = {byte for byte in range(256) if accepted(message + bytes([byte]))}
    assert following == ({0} if name in WITHOUT_FINAL_FLAG else set())


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=IDS)
def test_a_message_does_not_follow_itself(name: str, message: bytes) -> None:
    assert not accepted(message + message)
    assert not accepted(b"\x00" + message)
    assert not accepted(message[1:])


def vote(magic: int, tag: int, chain: bytes, level: int, round_: int) -> bytes:
    slot = b"" if tag in {40, 41} else b"\x00\x09"
    dal = b"\xa0\x01" if tag == 23 else b""
    return bytes([magic]) + chain + HASH + bytes([tag]) + slot + struct.pack(">ii", level, round_) + HASH + dal


def block(
    chain: bytes, level: int, fitness_level: int, round_: int, locked_round: int | None, payload_round: int
) -> bytes:
    locked = b"" if locked_round is None else struct.pack(">i", locked_round)
    parts = (b"\x02", struct.pack(">i", fitness_level), locked, b"\xff" * 4, struct.pack(">i", round_))
    fitness = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    head = b"\x11" + chain + struct.pack(">i", level) + b"\x16" + HASH + b"\x00" * 8 + b"\x04" + HASH
    tail = HASH + HASH + struct.pack(">i", payload_round) + b"\x01" * 8 + b"\x00\x00"
    return head + len(fitness).to_bytes(4, "big") + fitness + tail


@STEADY
@given(VOTES, st.binary(min_size=4, max_size=4), I32, I32)
def test_votes_say_level_and_round_or_are_refused(form: tuple[int, int], chain: bytes, level: int, round_: int) -> None:
    message = vote(*form, chain, level, round_)
    if level < 0 or round_ < 0:
        with pytest.raises(MalformedMessage, match="negative"):
            parse_consensus(message)
        return
    parsed = parse_consensus(message)
    assert (parsed.chain_id, parsed.level, parsed.round) == (encode(Kind.CHAIN_ID, chain), level, round_)


@STEADY
@given(st.binary(min_size=4, max_size=4), NATURAL_I32, NATURAL_I32, st.none() | NATURAL_I32, NATURAL_I32)
def test_blocks_say_level_and_round(
    chain: bytes, level: int, round_: int, locked_round: int | None, payload_round: int
) -> None:
    parsed = parse_consensus(block(chain, level, level, round_, locked_round, payload_round))
    assert parsed == ConsensusMessage(ConsensusKind.BLOCK, encode(Kind.CHAIN_ID, chain), level, round_)


@STEADY
@given(I32, I32, I32, st.none() | I32, I32)
def test_other_blocks_are_refused(
    level: int, fitness_level: int, round_: int, locked_round: int | None, payload_round: int
) -> None:
    numbers = (level, round_, payload_round, locked_round or 0)
    message = block(b"abcd", level, fitness_level, round_, locked_round, payload_round)
    if level == fitness_level and min(numbers) >= 0:
        parse_consensus(message)
        return
    with pytest.raises(MalformedMessage, match=r"negative|in the header"):
        parse_consensus(message)


@STEADY
@given(NATURAL_I32, NATURAL_I32)
def test_header_and_fitness_must_agree(level: int, fitness_level: int) -> None:
    message = block(b"abcd", level, fitness_level, 0, None, 0)
    assert accepted(message) == (level == fitness_level)


def natural(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def integer(number: int) -> bytes:
    rest, first = divmod(abs(number), 64)
    first |= 0x40 if number < 0 else 0
    return bytes([first | 0x80]) + natural(rest) if rest else bytes([first])


def longer(number: bytes, zeros: int) -> bytes:
    """Write the same number in more bytes."""
    return number[:-1] + bytes([number[-1] | 0x80]) + b"\x80" * (zeros - 1) + b"\x00"


SOURCE = b"\x00" + b"\xaa" * 20
BEFORE = b"\x03" + HASH


def transaction(number: bytes, script: bytes = b"\x00\x05") -> bytes:
    value = len(script).to_bytes(4, "big") + script
    return BEFORE + b"\x6c" + SOURCE + b"\x01\x01\x01\x01" + number + b"\x00" + SOURCE + b"\xff\x00" + value


@STEADY
@given(st.integers(0, 2**70 - 1), st.integers(1, 5))
def test_a_natural_number_has_one_form(number: int, zeros: int) -> None:
    assert accepted(transaction(natural(number)))
    assert not accepted(transaction(longer(natural(number), zeros)))


@STEADY
@given(st.integers(2**70))
def test_an_amount_has_a_limit(number: int) -> None:
    assert not accepted(transaction(natural(number)))


@STEADY
@given(st.integers(-(2**2000), 2**2000), st.integers(1, 5))
def test_an_integer_has_one_form(number: int, zeros: int) -> None:
    assert accepted(transaction(b"\x01", b"\x00" + integer(number)))
    assert not accepted(transaction(b"\x01", b"\x00" + longer(integer(number), zeros)))


@STEADY
@given(st.integers(0, 2**800), st.integers(1, 5))
def test_a_dal_bitset_has_one_form_and_no_sign(number: int, zeros: int) -> None:
    attestation = vote(0x13, 23, b"abcd", 5, 0)[:-2]
    assert parse_consensus(attestation + integer(number)).kind is ConsensusKind.ATTESTATION_WITH_DAL
    for wrong in (longer(integer(number), zeros), integer(-number - 1)):
        with pytest.raises(MalformedMessage, match="DAL bitset"):
            parse_consensus(attestation + wrong)


Micheline = st.recursive(
    st.integers(-(2**80), 2**80).map(lambda number: b"\x00" + integer(number))
    | st.tuples(st.sampled_from([b"\x01", b"\x0a"]), st.binary(max_size=9)).map(lambda pair: pair[0] + sized(pair[1]))
    | st.binary(min_size=1, max_size=1).map(lambda primitive: b"\x03" + primitive),
    lambda children: (
        st.lists(children, max_size=4).map(lambda nodes: b"\x02" + sized(b"".join(nodes)))
        | st.lists(children, max_size=2).map(lambda nodes: bytes([3 + 2 * len(nodes), 7]) + b"".join(nodes))
        | st.lists(children, max_size=2).map(
            lambda nodes: bytes([4 + 2 * len(nodes), 7]) + b"".join(nodes) + sized(b"%a")
        )
        | st.lists(children, max_size=4).map(lambda nodes: b"\x09\x07" + sized(b"".join(nodes)) + sized(b"%a @b"))
    ),
    max_leaves=12,
)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@STEADY
@given(Micheline)
def test_every_expression_is_read_to_its_end(expression: bytes) -> None:
    assert accepted(transaction(b"\x01", expression))
    assert not accepted(transaction(b"\x01", expression[:-1]))
    assert not accepted(transaction(b"\x01", expression + b"\x03"))


@STEADY
@given(st.integers(1, 254), Micheline)
def test_flags_are_00_or_ff(flag: int, expression: bytes) -> None:
    message = bytearray(transaction(b"\x01", expression))
    place = len(message) - len(expression) - 6
    assert message[place] == 0xFF
    message[place] = flag
    assert not accepted(bytes(message))
