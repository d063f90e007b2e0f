"""Any bytes are a message or a refusal; any text is a Tezos value or a refusal; nothing else ever comes out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enclave_signer.tezos import (
    ConsensusMessage,
    EncryptedSecretKey,
    Family,
    MalformedBase58,
    MalformedMessage,
    check_public_key_hash,
    decode,
    encode,
    parse_consensus,
    parse_public_key,
    parse_secret_key,
    parse_signature,
)
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import REQUEST_KINDS, GenericMessage, parse_message, request_kind
from host_backend.operations.table import OPERATION_KINDS
from tests.doubles import operation_vectors

VECTORS = Path(__file__).parents[1] / "vectors"
SIGNATORY = json.loads((VECTORS / "signatory-vectors.json").read_text())
FORGED = json.loads((VECTORS / "forged-operations.json").read_text())
OPERATIONS = operation_vectors.load()
MESSAGES = [
    bytes.fromhex(item["hex"])
    for item in SIGNATORY["payloads"] + FORGED["payloads"] + OPERATIONS["made"] + OPERATIONS["packed"]
    if len(item["hex"]) < 2000
]
TEXTS = [key[name] for key in SIGNATORY["keypairs"] for name in ("sk", "pk", "pkh")] + [
    item["signature"] for item in SIGNATORY["signatures"]
]
STEADY = settings(deadline=None, derandomize=True)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

MAGIC = st.sampled_from([b"", b"\x03", b"\x05", b"\x11", b"\x12", b"\x13", b"\x03" + b"\x00" * 32])
ANY_BYTES = st.tuples(MAGIC, st.binary(max_size=300)).map(b"".join)


@st.composite
def spoiled_messages(draw: st.DrawFn) -> bytes:
    """Take a message of the vectors and replace, remove, insert or repeat a few bytes."""
    message = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(message)))
        end = min(len(message), start + draw(st.integers(0, 4)))
        message[start:end] = draw(st.binary(max_size=4) | st.just(bytes(message[start : start + 40])))
    return bytes(message)


def check(message: bytes) -> None:
    """Parse; whatever is accepted must make sense to policy and watermark."""
    try:
        parsed = parse_message(message)
    except MalformedRequest as error:
        check_text(str(error))
        return
    assert request_kind(parsed) in REQUEST_KINDS
    if isinstance(parsed, GenericMessage):
        assert parsed.operations
        assert set(parsed.operations) <= OPERATION_KINDS
    elif isinstance(parsed, ConsensusMessage):
        check_consensus(parsed)
        assert parse_consensus(message) == parsed
    else:
        assert (request_kind(parsed), message[0]) == ("pack", 0x05)


def check_text(error: str, secret: str = "") -> None:
    """An error is short and does not repeat the input; shorter inputs can be words of the error by chance."""
    assert 0 < len(error) < 300
    assert len(secret) < 20 or not set(secret) <= set(BASE58) or secret not in error


def check_consensus(parsed: ConsensusMessage) -> None:
    assert 0 <= parsed.level < 2**31
    assert 0 <= parsed.round < 2**31
    assert decode(parsed.chain_id, Family.CHAIN_ID)


@given(ANY_BYTES)
@example(b"")
@settings(STEADY, max_examples=500)
def test_any_bytes(message: bytes) -> None:
    check(message)


@given(spoiled_messages())
@settings(STEADY, max_examples=1500)
def test_spoiled_messages(message: bytes) -> None:
    check(message)


@given(ANY_BYTES | spoiled_messages())
@settings(STEADY, max_examples=500)
def test_the_guard_gets_a_message_or_a_refusal(message: bytes) -> None:
    try:
        check_consensus(parse_consensus(message))
    except MalformedMessage as error:
        check_text(str(error))


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_every_single_byte_may_be_anything(message: bytes) -> None:
    for place in range(len(message)):
        for value in (0x00, 0x01, 0x7F, 0x80, 0xFF, message[place] ^ 0x01):
            check(message[:place] + bytes([value]) + message[place + 1 :])


READERS: list[Callable[[str], object]] = [
    check_public_key_hash,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    lambda text: decode(text, Family.CHAIN_ID),
]


@given(st.text(max_size=200) | st.text(BASE58, max_size=200) | st.sampled_from(TEXTS))
@settings(STEADY, max_examples=500)
def test_any_text(text: str) -> None:
    for read in READERS:
        try:
            read(text)
        except (MalformedBase58, EncryptedSecretKey) as error:
            check_text(str(error), text)


@given(st.sampled_from(TEXTS), st.integers(0, 200), st.sampled_from(BASE58))
@settings(STEADY, max_examples=500)
def test_a_changed_character_is_noticed(text: str, place: int, character: str) -> None:
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    if changed == text:
        kind, payload = decode(text, *Family)
        assert encode(kind, payload) == text
        return
    with pytest.raises(MalformedBase58):
        decode(changed, *Family)
