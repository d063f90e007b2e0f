"""What one enclave process signs once, and what it refuses ever after."""

from collections.abc import Callable

import pytest

from enclave_signer.errors import GuardRefused
from enclave_signer.guard import Guard
from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import MAX_CHAINS_PER_KEY, parse_public_key
from enclave_signer.tezos.marks import DEFAULT_MAX_LEVEL_JUMP
from tests.doubles.known_keys import (
    CHAIN_ID,
    FOUR,
    attestation,
    attestation_with_dal,
    block,
    preattestation,
    transaction,
)

KEYS = [parse_public_key(key.public_key) for key in FOUR]
KEY, OTHER_KEY = KEYS[0], KEYS[1]
A, B = b"\xaa" * 32, b"\xbb" * 32
Maker = Callable[..., bytes]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def guard(told: list[str]) -> Guard:
    return Guard(3, told.append)


def refusal(guard: Guard, message: bytes, key: PublicKey = KEY) -> str:
    with pytest.raises(GuardRefused) as refused:
        guard.check(key, message)
    return str(refused.value)


@pytest.mark.parametrize("make", [block, preattestation, attestation, attestation_with_dal])
def test_one_message_per_right_and_the_same_one_again(guard: Guard, make: Maker) -> None:
    guard.check(KEY, make(5, payload=A))
    guard.check(KEY, make(5, payload=A))
    assert "another message was allowed there" in refusal(guard, make(5, payload=B))
    assert "a higher level or round may have been signed already" in refusal(guard, make(4, payload=B))
    guard.check(KEY, make(6, payload=B))
    assert "a higher level or round" in refusal(guard, make(5, payload=A))
    assert guard.refused == 3


def test_a_refusal_says_who_what_and_where_and_is_told(guard: Guard, told: list[str]) -> None:
    guard.check(KEY, attestation(5, payload=A))
    text = refusal(guard, attestation(5, round_=0, payload=B))
    assert text == (
        f"guard refused: attestation of {FOUR[0].pkh} on {CHAIN_ID}: asked level 5 round 0, this enclave has signed "
        "level 5 round 0: another message was allowed there"
    )
    assert told == [text]
    assert not text.startswith("watermark")


def test_both_kinds_of_attestation_are_one_right(guard: Guard) -> None:
    guard.check(KEY, attestation(5))
    refusal(guard, attestation_with_dal(5))
    guard.check(KEY, attestation_with_dal(6))
    refusal(guard, attestation(6))


def test_rights_keys_and_chains_do_not_affect_each_other(guard: Guard) -> None:
    guard.check(KEY, attestation(9))
    guard.check(KEY, preattestation(5))
    guard.check(KEY, block(5))
    guard.check(OTHER_KEY, attestation(5))
    guard.check(KEY, attestation(5, chain=7))


def test_keys_of_two_curves_with_the_same_bytes_are_two_keys(guard: Guard) -> None:
    guard.check(PublicKey(KeyType.SECP256K1, b"\2" * 33), attestation(5, payload=A))
    guard.check(PublicKey(KeyType.P256, b"\2" * 33), attestation(5, payload=B))


@pytest.mark.parametrize("magic", [0x11, 0x12, 0x13])
def test_what_only_begins_like_a_consensus_message_is_refused(guard: Guard, magic: int) -> None:
    for message in (bytes([magic]), bytes([magic]) + bytes(200), attestation(5, magic=0x13)[:-1]):
        text = refusal(guard, bytes([magic]) + message[1:])
        assert "begins like a consensus message and is not one" in text
        assert FOUR[0].pkh in text
    assert guard.refused == 3


def test_other_messages_are_none_of_its_business(guard: Guard) -> None:
    for message in (b"", b"\3", transaction(1), b"\x10" + bytes(79), b"\x14" + bytes(79), b"\4\1"):
        for key in KEYS:
            guard.check(key, message)
    assert guard.refused == 0


def test_a_malformed_message_moves_no_mark(guard: Guard) -> None:
    refusal(guard, attestation(9) + b"\0")
    guard.check(KEY, attestation(5))


def test_a_full_guard_refuses_newcomers_and_forgets_nobody(guard: Guard, told: list[str]) -> None:
    for key in KEYS[:3]:
        guard.check(key, attestation(5, payload=A))
    text = refusal(guard, attestation(5), KEYS[3])
    assert "the guard is full with 3 keys" in text
    assert FOUR[3].pkh in text
    assert "the guard is full" in refusal(guard, attestation(5, chain=7), KEY)
    assert "another message" in refusal(guard, attestation(5, payload=B))
    # A key that is in it has all its rights: one that attests must be able to make its block.
    guard.check(KEY, block(5))
    guard.check(KEY, preattestation(5))
    guard.check(KEY, attestation(6))
    assert len(told) == 3


def test_invented_chains_of_one_key_do_not_fill_it(told: list[str]) -> None:
    guard = Guard(MAX_CHAINS_PER_KEY + 2, told.append)
    for chain in range(MAX_CHAINS_PER_KEY):
        guard.check(KEY, attestation(5, payload=A, chain=chain))
    for chain in range(MAX_CHAINS_PER_KEY, 10 * MAX_CHAINS_PER_KEY):
        text = refusal(guard, attestation(5, chain=chain))
        assert f"on {MAX_CHAINS_PER_KEY} other chains, the most that one key may" in text
        assert FOUR[0].pkh in text
    # What it has signed stays; its other rights there, and other keys, have their room.
    assert "another message" in refusal(guard, attestation(5, payload=B, chain=0))
    guard.check(KEY, attestation(6, chain=0))
    guard.check(KEY, block(5, chain=0))
    guard.check(OTHER_KEY, attestation(5))
    guard.check(OTHER_KEY, attestation(5, chain=0))
    assert "the guard is full" in refusal(guard, attestation(5), KEYS[2])


def test_a_leap_is_refused_until_a_restart(guard: Guard) -> None:
    guard.check(KEY, attestation(5))
    far = 5 + DEFAULT_MAX_LEVEL_JUMP
    assert "restart the enclave" in refusal(guard, attestation(far + 1))
    guard.check(KEY, attestation(far))
    Guard(3, print).check(KEY, attestation(2**31 - 1))
