"""Generic messages: names for the policy, one whole message, and texts that say where one broke."""

import re

import pytest

from enclave_signer.tezos import ConsensusKind, ConsensusMessage
from enclave_signer.tezos.protocols import MAX_MICHELINE_DEPTH
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import REQUEST_KINDS, GenericMessage, PackedMessage, parse_message, request_kind
from host_backend.operations.table import OPERATION_KINDS, OPERATIONS

CHAIN, CHAIN_ID = bytes.fromhex("ed9d217c"), "NetXxkAx4woPLyu"
HEAD = b"\x03" + b"\xbb" * 32
PKH = b"\x00" + b"\xaa" * 20
OTHER = b"\x00" + b"\xcc" * 20
CONTRACT = b"\x01" + b"\xdd" * 20 + b"\x00"
MANAGER = PKH + b"\x01\x02\x03\x04"
UNIT = b"\x03\x0b"
NOOP = b"\x11" + bytes(4)
ALONE = "failing_noop stands alone: only manager operations share a message"
PREFIX = b"\xff\x03" + b"\xee" * 32


def dynamic(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def parameters(entry_point: bytes, value: bytes = UNIT) -> bytes:
    return b"\xff" + entry_point + dynamic(value)


def transaction(
    destination: bytes = b"\x00" + PKH, parameters: bytes = b"\x00", manager: bytes = MANAGER, amount: bytes = b"\x05"
) -> bytes:
    return b"\x6c" + manager + amount + destination + parameters


def call(value: bytes) -> bytes:
    return HEAD + transaction(CONTRACT, parameters(b"\x00", value))


def names(message: bytes) -> tuple[str, ...]:
    parsed = parse_message(message)
    assert isinstance(parsed, GenericMessage)
    assert request_kind(parsed) == "generic"
    return parsed.operations


def refusal(message: bytes) -> str:
    with pytest.raises(MalformedRequest) as caught:
        parse_message(message)
    return str(caught.value)


def test_the_names_of_the_signatory_list_are_all_there() -> None:
    pseudo = {"stake", "unstake", "finalize_unstake", "set_delegate_parameters"}
    listed = {row.kind for row in OPERATIONS.values()} | pseudo
    assert len(listed) == 39
    assert listed == {name for name in OPERATION_KINDS if ":" not in name}
    assert {name for name in OPERATION_KINDS if ":" in name} == {"ballot:yay", "ballot:nay", "ballot:pass"}


def test_request_kinds() -> None:
    assert sorted(REQUEST_KINDS) == [
        "attestation",
        "attestation_with_dal",
        "block",
        "generic",
        "pack",
        "preattestation",
    ]


def test_consensus_messages_pass_through() -> None:
    message = b"\x13" + CHAIN + b"\x01" * 32 + b"\x29" + b"\x00\x00\x00\x07\x00\x00\x00\x01" + b"\x02" * 32
    parsed = parse_message(message)
    assert parsed == ConsensusMessage(ConsensusKind.ATTESTATION, CHAIN_ID, 7, 1)
    assert request_kind(parsed) == "attestation"
    assert refusal(message + b"\x00") == "attestation: message of 79 bytes instead of 78; send exactly one message"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", "empty message; send the bytes of an operation or a block, first byte included"),
        (b"\x02\xde\xad", "unknown first byte 0x02; expected 03 (operations), 05 (pack), 11 (block), 12 or 13"),
        (b"\x05\x00\x00\x00", "packed data at byte 3: 1 surplus byte(s)"),
        (b"\x05", "packed data at byte 1: 1 byte(s) needed, 0 left"),
        (b"\x05\x0b", "packed data at byte 1: unknown Micheline tag 11; known are 0 to 10"),
        (b"\x03" * (32 * 1024 + 1), "message of 32769 bytes; a Tezos operation has at most 32768"),
        (b"\x03", "field branch at byte 1: 32 byte(s) needed, 0 left"),
        (HEAD, "no operation after the branch; a message without operations is not signed"),
        (HEAD + b"\x6b", "operation 1 (reveal), field source at byte 34: 1 byte(s) needed, 0 left"),
        (
            HEAD + transaction() + transaction(manager=PKH + b"\x80\x00\x03\x04"),
            "operation 2 (transaction), field fee at byte 105: number not in its shortest form",
        ),
        (
            HEAD + transaction() + b"\xee",
            "operation 2 at byte 83: tag 238 is not an operation of the protocols 024, 025, alpha; are there surplus bytes?",
        ),
        (
            HEAD + b"\x07" + b"\x00" * 100,
            "operation 1 at byte 33: tag 7 is not an operation of the protocols 024, 025, alpha; are there surplus bytes?",
        ),
        (
            HEAD + transaction()[:-1],
            "operation 1 (transaction), field parameters at byte 82: 1 byte(s) needed, 0 left",
        ),
        (
            HEAD + PREFIX,
            "no operation after the branch; a message without operations is not signed",
        ),
        (HEAD + transaction() + NOOP, f"operation 2 at byte 83: {ALONE}"),
        (HEAD + NOOP + transaction(), f"operation 2 at byte 38: {ALONE}"),
        (HEAD + NOOP * 2, f"operation 2 at byte 38: {ALONE}"),
        (HEAD + transaction() + PREFIX * 2, "operation 3 at byte 117: nothing may follow signature_prefix"),
        (
            call(b"\x00\x00\x00"),
            "operation 1 (transaction), field parameters.value at byte 90: 1 surplus byte(s)",
        ),
    ],
)
def test_texts_say_where_a_message_broke(message: bytes, error: str) -> None:
    assert refusal(message) == error


def test_a_message_of_32_kib_is_decoded() -> None:
    message = HEAD + b"\x11" + dynamic(b"\x00" * (32 * 1024 - len(HEAD) - 5))
    assert len(message) == 32 * 1024
    assert names(message) == ("failing_noop",)


@pytest.mark.parametrize("tag", [20, 21, 23, 40, 41])
def test_consensus_operations_are_refused_inside_generic_messages(tag: int) -> None:
    error = refusal(HEAD + transaction() + bytes([tag]) + b"\x00" * 42)
    assert error.startswith(f"operation 2 at byte 83: tag {tag} is a consensus operation; its message begins with")


@pytest.mark.parametrize("tag", sorted(set(range(256)) - set(OPERATIONS)))
def test_every_tag_without_a_row_is_refused_by_number(tag: int) -> None:
    assert f"tag {tag} " in refusal(HEAD + bytes([tag]) + b"\x00" * 400)


def test_texts_never_dump_the_message() -> None:
    message = HEAD + transaction() + b"\x11" + dynamic(b"\x5a" * 4000) + b"\xee"
    assert len(refusal(message)) < 200
    assert "5a5a" not in refusal(message)


@pytest.mark.parametrize(
    ("tag", "name"), [(6, "stake"), (7, "unstake"), (8, "finalize_unstake"), (9, "set_delegate_parameters")]
)
def test_staking_is_a_transaction_to_oneself(tag: int, name: str) -> None:
    to = parameters(bytes([tag]))
    assert names(HEAD + transaction(b"\x00" + PKH, to)) == (name,)
    assert names(HEAD + transaction(b"\x00" + OTHER, to)) == ("transaction",)
    assert names(HEAD + transaction(CONTRACT, to)) == ("transaction",)


@pytest.mark.parametrize("tag", range(6))
def test_other_entry_points_to_oneself_are_plain_transactions(tag: int) -> None:
    assert names(HEAD + transaction(b"\x00" + PKH, parameters(bytes([tag])))) == ("transaction",)


def test_a_transfer_to_oneself_is_a_plain_transaction() -> None:
    assert names(HEAD + transaction(b"\x00" + PKH)) == ("transaction",)


@pytest.mark.parametrize("name", [b"stake", b"unstake", b"finalize_unstake", b"set_delegate_parameters", b"default"])
def test_a_built_in_entry_point_may_not_be_spelled_out(name: bytes) -> None:
    spelled = b"\xff" + bytes([len(name)]) + name
    error = refusal(HEAD + transaction(b"\x00" + PKH, parameters(spelled)))
    assert f"field parameters.entrypoint at byte 85: the entry point {name.decode()} spelled out" in error


@pytest.mark.parametrize(
    ("entry_point", "error"),
    [
        (b"\xff\x00", "name of 0 bytes; it has 1 to 31"),
        (b"\xff\x20" + b"a" * 32, "name of 32 bytes; it has 1 to 31"),
        (b"\x0a", "unknown entry point tag 10; known are 0 to 9 and 255"),
        (b"\xfe", "unknown entry point tag 254; known are 0 to 9 and 255"),
    ],
)
def test_other_entry_points_are_refused(entry_point: bytes, error: str) -> None:
    assert error in refusal(HEAD + transaction(CONTRACT, parameters(entry_point)))


def test_entry_points_by_name() -> None:
    for name in (b"a", b"stak", b"stakes", b"a" * 31, b"\xff" * 3):
        spelled = b"\xff" + bytes([len(name)]) + name
        assert names(HEAD + transaction(CONTRACT, parameters(spelled))) == ("transaction",)


@pytest.mark.parametrize(
    ("destination", "error"),
    [
        (b"\x02" + b"\xdd" * 20 + b"\x00", "unknown address tag 2; known here: 0, 1, 3, 4"),
        (b"\x05" + b"\xdd" * 20 + b"\x00", "unknown address tag 5; known here: 0, 1, 3, 4"),
        (b"\x01" + b"\xdd" * 20 + b"\x01", "the padding byte after the address is not zero"),
        (b"\x03" + b"\xdd" * 20 + b"\x01", "the padding byte after the address is not zero"),
        (b"\x04" + b"\xdd" * 20 + b"\x01", "the padding byte after the address is not zero"),
        (b"\x00\x05" + b"\xdd" * 20, "unknown public key hash tag 5; known are 0 to 4"),
    ],
)
def test_destinations(destination: bytes, error: str) -> None:
    assert error in refusal(HEAD + transaction(destination))


@pytest.mark.parametrize("flag", [0x01, 0x7F, 0x80, 0xFE])
@pytest.mark.parametrize(
    "operation",
    [
        transaction(parameters=b"{}\x00" + dynamic(UNIT)),
        b"\x6e" + MANAGER + b"{}" + PKH,
        b"\x70" + MANAGER + b"{}\x05",
        b"\x6d" + MANAGER + b"\x00{}" + PKH + dynamic(UNIT) * 2,
        b"\x6b" + MANAGER + PKH + b"\xaa" * 12 + b"{}" + dynamic(b"\x01" * 96),
        b"\xc8" + MANAGER + b"\x01" + dynamic(b"") + dynamic(UNIT) + b"{}" + dynamic(PKH * 2),
    ],
)
def test_flags_are_00_or_ff(operation: bytes, flag: int) -> None:
    names(HEAD + operation.replace(b"{}", b"\xff"))
    assert f"flag 0x{flag:02x}; expected 00 or ff" in refusal(HEAD + operation.replace(b"{}", bytes([flag])))


@pytest.mark.parametrize("size", [64, 95, 97])
def test_a_proof_of_possession_has_96_bytes(size: int) -> None:
    message = HEAD + b"\x73" + MANAGER + b"\x03" + b"\xaa" * 48 + b"\xff" + dynamic(b"\x01" * size)
    assert "operation 1 (update_companion_key), field proof at byte " in refusal(message)


@pytest.mark.parametrize("vote", [3, 0x80, 0xFF])
def test_unknown_ballots_are_refused(vote: int) -> None:
    ballot = HEAD + b"\x06" + PKH + b"\x00\x00\x00\x20" + b"\x07" * 32 + bytes([vote])
    assert refusal(ballot).endswith(
        f"(ballot), field ballot at byte 91: unknown value {vote}; known are 0 yay, 1 nay, 2 pass"
    )


def test_levels_and_periods_are_not_negative() -> None:
    message = HEAD + b"\x01" + b"\x80\x00\x00\x00" + b"\x00" * 32
    assert refusal(message) == "operation 1 (seed_nonce_revelation), field level at byte 34: negative number"
    assert "field period at byte 55: negative" in refusal(HEAD + b"\x06" + PKH + b"\xff" * 4 + b"\x07" * 32 + b"\x00")


@pytest.mark.parametrize("number", ["8000", "818000", "ff00", "80" * 9 + "00"])
def test_amounts_are_in_their_shortest_form(number: str) -> None:
    assert "number not in its shortest form" in refusal(HEAD + transaction(amount=bytes.fromhex(number)))


def test_the_size_of_amounts_is_limited() -> None:
    assert names(HEAD + transaction(amount=b"\xff" * 9 + b"\x7f")) == ("transaction",)
    assert "field amount at byte 59: number longer than 10 bytes" in refusal(
        HEAD + transaction(amount=b"\xff" * 10 + b"\x7f")
    )


@pytest.mark.parametrize("number", ["00", "3f", "7f", "41", "8001", "c001", "bf7f", "80" * 4095 + "01"])
def test_script_integers(number: str) -> None:
    assert names(call(b"\x00" + bytes.fromhex(number))) == ("transaction",)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        ("40", "zero with a minus sign"),
        ("8000", "not in its shortest form"),
        ("c000", "not in its shortest form"),
        ("80", "1 byte(s) needed, 0 left"),
        ("80" * 4096 + "01", "number longer than 4096 bytes"),
    ],
)
def test_other_script_integers_are_refused(number: str, error: str) -> None:
    assert error in refusal(call(b"\x00" + bytes.fromhex(number)))


ANNOTATIONS = dynamic(b"%a")


@pytest.mark.parametrize(
    "expression",
    [
        b"\x00\x05",
        b"\x01" + dynamic(b"text"),
        b"\x02" + dynamic(b""),
        b"\x02" + dynamic(UNIT * 3),
        UNIT,
        b"\x04\x0b" + ANNOTATIONS,
        b"\x05\x0b" + UNIT,
        b"\x06\x0b" + UNIT + ANNOTATIONS,
        b"\x07\x0b" + UNIT * 2,
        b"\x08\x0b" + UNIT * 2 + ANNOTATIONS,
        b"\x08\x0b" + b"\x06\x0b" + UNIT + ANNOTATIONS + UNIT + ANNOTATIONS,
        b"\x09\x0b" + dynamic(UNIT * 3) + ANNOTATIONS,
        b"\x09\x0b" + dynamic(b"") + dynamic(b""),
        b"\x02" + dynamic(b"\x09\x0b" + dynamic(b"\x02" + dynamic(UNIT) + UNIT) + ANNOTATIONS + UNIT),
        b"\x0a" + dynamic(b"\x00\x01"),
        b"\x03\xff",
    ],
)
def test_micheline(expression: bytes) -> None:
    assert names(call(expression)) == ("transaction",)
    assert "field parameters.value at byte " in refusal(call(expression + b"\x00"))
    assert "field parameters.value at byte " in refusal(call(expression[:-1]))


@pytest.mark.parametrize(
    "expression",
    [
        b"\x0b",
        b"\xff\x00",
        b"",
        b"\x02" + dynamic(UNIT)[:-1],
        b"\x02\xff\xff\xff\xff" + UNIT,
        b"\x02" + dynamic(UNIT + b"\x05\x0b") + UNIT,
        b"\x09\x0b" + dynamic(b"\x04\x0b") + ANNOTATIONS,
    ],
)
def test_other_expressions_are_refused(expression: bytes) -> None:
    assert "field parameters.value at byte " in refusal(call(expression))


@pytest.mark.parametrize("wrap", [b"\x05\x0b", b"\x07\x0b" + UNIT])
def test_the_depth_of_an_expression_is_limited_and_costs_no_stack(wrap: bytes) -> None:
    deepest = min(MAX_MICHELINE_DEPTH - 1, 32_000 // len(wrap))
    assert names(call(wrap * deepest + UNIT)) == ("transaction",)


def test_an_expression_deeper_than_the_limit_is_refused() -> None:
    assert "nested deeper than 10000 levels" in refusal(call(b"\x05\x0b" * MAX_MICHELINE_DEPTH + UNIT))


def test_deep_sequences_cost_no_stack() -> None:
    expression = b""
    for _ in range(6000):
        expression = b"\x02" + dynamic(expression)
    assert names(call(expression)) == ("transaction",)


@pytest.mark.parametrize(
    "operation",
    [
        b"\x05" + PKH + b"\x00" * 4 + dynamic(b"\x01" * 33),
        b"\xc9" + MANAGER + dynamic(dynamic(b"ab") + b"\x00"),
        b"\xc8" + MANAGER + b"\x03" + dynamic(b"") + dynamic(UNIT) + b"\x00",
        b"\x9e" + MANAGER + dynamic(UNIT) * 2 + CONTRACT + b"\x01" + CONTRACT + dynamic(b"a" * 32),
        b"\x9e" + MANAGER + dynamic(UNIT) * 2 + CONTRACT + b"\x01" + b"\x03" + b"\xdd" * 21 + dynamic(b"a"),
        b"\x71" + MANAGER + b"\x01\x00" + PKH,
        b"\x6b" + MANAGER + b"\x04" + b"\xaa" * 32 + b"\x00",
        b"\x11\x00\x00\x00\x05abcd",
        b"\x11\xff\xff\xff\xffabcd",
    ],
)
def test_other_fields_are_checked(operation: bytes) -> None:
    assert re.match(r"operation 1 \(\w+\), field \w+ at byte \d+: ", refusal(HEAD + operation))


@pytest.mark.parametrize("expression", [UNIT, b"\x00\x05", b"\x02" + dynamic(UNIT * 3)])
def test_packed_data_is_one_expression(expression: bytes) -> None:
    parsed = parse_message(b"\x05" + expression)
    assert parsed == PackedMessage()
    assert request_kind(parsed) == "pack"
    assert parsed.operations == ()


@pytest.mark.parametrize("tag", [b"\x6b", b"\x72"])
def test_a_proof_that_earlier_protocols_had_not_may_be_left_out_at_the_end_only(tag: bytes) -> None:
    older = tag + MANAGER + PKH + b"\xaa" * 12
    assert len(names(HEAD + older)) == 1
    assert len(names(HEAD + transaction() + older)) == 2
    refusal(HEAD + older + transaction())


@pytest.mark.parametrize(
    "operation",
    [
        b"\x73" + MANAGER + PKH + b"\xaa" * 12,
        b"\x6e" + MANAGER,
        b"\x70" + MANAGER,
        transaction()[:-1],
        b"\xc8" + MANAGER + b"\x01" + dynamic(b"") + dynamic(UNIT),
    ],
)
def test_any_other_flag_is_needed_at_the_end_too(operation: bytes) -> None:
    names(HEAD + operation + b"\x00")
    assert "1 byte(s) needed, 0 left" in refusal(HEAD + operation)
