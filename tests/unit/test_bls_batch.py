"""BLS signatures that are verified together: as good as one by one, also against an attacker who knows all of them."""

import random
from collections.abc import Callable

import pytest

from enclave_signer.curves import SignatureCheck, bls_batch, curve, verify_each
from enclave_signer.curves.base import CurveError
from enclave_signer.curves.bls import BlsSigningKey
from enclave_signer.curves.bls_batch import all_verify
from enclave_signer.curves.blst import CData
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion

BLS = curve(KeyType.BLS)
KEYS = [BLS.open(PrivateKey(KeyType.BLS, number.to_bytes(32))) for number in range(1, 6)]
LATEST = SigningVersion.LATEST
#: Compressed: on the curve, though not in the group; found by trial. And infinity.
OUTSIDE, INFINITY = b"\x80" + bytes(94) + b"\x02", b"\xc0" + bytes(95)
#: The first key's signature of 43 zeros, plus a point of order 13: a weight takes that away once in 13 times.
NEARLY_RIGHT = bytes.fromhex(
    "92574ebd5eb607f7aac407e0f12da4697ed715ac1329d7d1590cdb83d453b16a512d0b0e59e1afb218d5fae81910fafa"
    "0b1d5e9c3b2af8c69fabe0e93c2370516b6049e37ee9de434f0caede7a62f099791d60c4003d7a11962fc0d081e1c065"
)


def check_of(number: int, message: bytes, version: SigningVersion = LATEST) -> SignatureCheck:
    key = KEYS[number]
    assert isinstance(key, BlsSigningKey)
    return SignatureCheck(BLS.parse_public_key(key.public_key.data), key.sign(message, version), message, version)


def checks(version: SigningVersion = LATEST) -> list[SignatureCheck]:
    return [check_of(number, b"message %d" % number, version) for number in range(len(KEYS))]


def with_bytes(check: SignatureCheck, data: bytes) -> SignatureCheck:
    return check._replace(signature=Signature(check.signature.key_type, data))


def test_no_weight_takes_away_what_is_outside_of_the_group() -> None:
    nearly_right = with_bytes(check_of(0, bytes(43)), NEARLY_RIGHT)
    assert not verifies(nearly_right)
    # Of so many, some would pass if the group were not looked at; none of them would in one of 3000 runs.
    assert not any(all_verify([nearly_right, check_of(1, b"right")]) for _ in range(100))


@pytest.mark.parametrize(("other", "passes"), [(1, True), (1 + 2**127, False)])
def test_all_of_a_weight_counts(monkeypatch: pytest.MonkeyPatch, other: int, *, passes: bool) -> None:
    """Two signatures that are exchanged pass by chance: where both have the same weight, to its last bit."""
    weights = [number.to_bytes(bls_batch.WEIGHT_BYTES, "little") for number in (1, other)]
    monkeypatch.setattr("secrets.token_bytes", {32: b"".join(weights)}.__getitem__)
    assert all_verify(exchanged([])) == passes


@pytest.mark.parametrize("version", [LATEST, SigningVersion.V1, SigningVersion.V2])
@pytest.mark.parametrize("count", [2, 5])
def test_right_ones_pass_together(version: SigningVersion, count: int) -> None:
    assert all_verify(checks(version)[:count])


@pytest.mark.parametrize("version", [LATEST, SigningVersion.V1])
def test_signatures_of_some_messages_pass_together_in_any_order(version: SigningVersion) -> None:
    some = [check_of(number, message, version) for number in range(5) for message in (b"one", b"two")]
    some += [some[3], check_of(0, b"three", version)]
    random.Random(1).shuffle(some)
    assert all_verify(some)


def test_one_signature_asked_for_twice_passes() -> None:
    assert all_verify([check_of(0, b"one")] * 2)


def test_a_hash_and_a_pairing_are_shared_by_all_who_sign_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is saved is seen nowhere else.
    add, added = bls_batch.add, []

    def note(context: CData, key: CData, signature: CData, *hashed: bytes) -> bool:
        added.append(hashed[:1])
        return add(context, key, signature, *hashed)

    monkeypatch.setattr(bls_batch, "add", note)
    assert all_verify([check_of(number, b"two" if number == 1 else b"one") for number in range(5)])
    assert added == [(), (b"one",), (b"two",)]


def exchanged(right: list[SignatureCheck]) -> list[SignatureCheck]:
    """Their sum is what it should be: only weights tell that each belongs to the other key."""
    one, two = check_of(0, b"same"), check_of(1, b"same")
    return [one._replace(signature=two.signature), two._replace(signature=one.signature), *right]


def wrong_among_one_message(right: list[SignatureCheck]) -> list[SignatureCheck]:
    same = [check_of(number, b"same") for number in range(4)]
    return [*same, with_bytes(same[0], check_of(4, b"same").signature.data), *right]


def signed_otherwise(right: list[SignatureCheck]) -> list[SignatureCheck]:
    return [*right[:-1], right[-1]._replace(message=b"another")]


def flipped(right: list[SignatureCheck]) -> list[SignatureCheck]:
    data = bytearray(right[2].signature.data)
    data[0] ^= 0x20  # the other point with this x
    return [*right[:2], with_bytes(right[2], bytes(data)), *right[3:]]


def infinite(right: list[SignatureCheck]) -> list[SignatureCheck]:
    return [*right, with_bytes(right[0], INFINITY)]


def outside(right: list[SignatureCheck]) -> list[SignatureCheck]:
    return [with_bytes(right[0], OUTSIDE), *right[1:]]


def cut_short(right: list[SignatureCheck]) -> list[SignatureCheck]:
    return [with_bytes(right[0], right[0].signature.data[:-1]), *right[1:]]


def of_another_curve(right: list[SignatureCheck]) -> list[SignatureCheck]:
    return [right[0]._replace(signature=Signature(KeyType.ED25519, bytes(64))), *right[1:]]


@pytest.mark.parametrize(
    "spoil",
    [exchanged, wrong_among_one_message, signed_otherwise, flipped, infinite, outside, cut_short, of_another_curve],
)
def test_a_wrong_one_fails_all_and_is_found(spoil: Callable[[list[SignatureCheck]], list[SignatureCheck]]) -> None:
    spoilt = spoil(checks())
    assert not all_verify(spoilt)
    wrong = [error is not None for error in verify_each(spoilt)]
    assert wrong == [not verifies(check) for check in spoilt]
    assert any(wrong)


def test_any_bit_that_is_wrong_fails() -> None:
    right = checks()
    chosen = random.Random(1)
    for _ in range(40):
        index, bit = chosen.randrange(len(right)), chosen.randrange(96 * 8)
        data = (int.from_bytes(right[index].signature.data) ^ 1 << bit).to_bytes(96)
        assert not all_verify([*right[:index], with_bytes(right[index], data), *right[index + 1 :]])


def test_suites_are_not_mixed_and_each_is_verified_all_the_same() -> None:
    mixed = [check_of(0, b"a", SigningVersion.V1), check_of(1, b"b")]
    assert not all_verify(mixed)
    assert verify_each(mixed) == [None, None]


def test_a_version_that_bls_has_not_is_refused() -> None:
    old = check_of(0, b"a")._replace(version=SigningVersion.V0)
    first, second = verify_each([old, check_of(1, b"b")])
    assert isinstance(first, CurveError)
    assert second is None


def verifies(check: SignatureCheck) -> bool:
    try:
        check.verify()
    except CurveError:
        return False
    return True
