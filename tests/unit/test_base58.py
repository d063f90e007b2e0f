"""Base58check: the table, the limits, and errors that name the fault without repeating the text."""

from hashlib import sha512

import pytest
from base58 import b58encode, b58encode_check
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.tezos import MAX_TEXT_CHARS, Family, Kind, MalformedBase58, decode, encode
from enclave_signer.tezos.base58 import _bytes

TZ1 = "tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb"
EDPK = "edpkvGfYw3LyB1UcCahKQk4rF2tvbMUk8GFiTuMjL75uGXrpvKXhjn"
EDSK = "edsk3QoqBuvdamxouPhin7swCvkQNgq4jP5KZPbwWNnwdZpSpJiEbq"


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("fill", [b"\x00", b"\x7f", b"\xff"])
def test_every_kind_comes_back_and_begins_with_its_label(kind: Kind, fill: bytes) -> None:
    payload = fill * kind.value.payload_bytes
    text = encode(kind, payload)
    assert text.startswith(kind.value.label)
    assert decode(text, kind.value.family) == (kind, payload)


def test_no_prefix_begins_another() -> None:
    prefixes = [kind.value.prefix for kind in Kind]
    assert not [(a, b) for a in prefixes for b in prefixes if a is not b and b.startswith(a)]


@pytest.mark.parametrize("family", Family)
def test_the_limit_is_the_longest_kind(family: Family) -> None:
    longest = max(len(encode(kind, b"\xff" * kind.value.payload_bytes)) for kind in Kind if kind.value.family is family)
    limit = max(longest, MAX_TEXT_CHARS)
    with pytest.raises(MalformedBase58, match=f"^{limit + 1} characters where .* longer than {limit}$"):
        decode("z" * (limit + 1), family)
    with pytest.raises(MalformedBase58, match=r"^invalid checksum"):
        decode("z" * limit, family)


def test_a_text_of_a_curve_proper_is_never_too_long() -> None:
    assert len(encode(Kind["BLS_SIGNATURE"], b"\xff" * 96)) == MAX_TEXT_CHARS


def test_a_long_text_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(MalformedBase58, match=r"^1000000 characters where a public key hash is needed; .* than 142$"):
        decode("z" * 1_000_000, Family.PUBLIC_KEY_HASH)
    with pytest.raises(MalformedBase58, match=r"^5298 characters where a public key hash is needed; .* than 142$"):
        decode(encode(Kind["ML_DSA_44_PRIVATE_KEY"], bytes(3872)), Family.PUBLIC_KEY_HASH)


@given(data=st.binary(max_size=5000))
def test_digits_are_read_as_another_library_reads_them(data: bytes) -> None:
    text = b58encode(data).decode()
    assert _bytes(text) == data


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "empty text where a public key hash is needed"),
        (TZ1[:-1] + "c", "invalid checksum where a public key hash is needed; copy it again in full"),
        (TZ1[:-1], "invalid checksum where a public key hash is needed; copy it again in full"),
        ("1", "invalid checksum where a public key hash is needed; copy it again in full"),
        ("1" * 36, "invalid checksum where a public key hash is needed; copy it again in full"),
        ("1" + TZ1, "invalid checksum where a public key hash is needed; copy it again in full"),
        (f" {TZ1}", "invalid character where a public key hash is needed; base58 has no 0, O, I, l and no spaces"),
        (f"{TZ1}\n", "invalid character where a public key hash is needed; base58 has no 0, O, I, l and no spaces"),
        ("tz1é", "invalid character where a public key hash is needed; base58 has no 0, O, I, l and no spaces"),
        ("notakey0", "invalid character where a public key hash is needed; base58 has no 0, O, I, l and no spaces"),
        (EDPK, "wrong kind: got a public key (edpk…) where a public key hash is needed"),
        (EDSK, "wrong kind: got a secret key (edsk…) where a public key hash is needed"),
        (
            encode(Kind["BLS_ENCRYPTED_PRIVATE_KEY"], b"\x00" * 56),
            "wrong kind: got an encrypted secret key (BLesk…) where a public key hash is needed",
        ),
    ],
)
def test_errors_name_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(MalformedBase58) as caught:
        decode(text, Family.PUBLIC_KEY_HASH)
    assert str(caught.value) == error


def test_an_unknown_prefix_is_not_a_bad_checksum() -> None:
    text = b58encode_check(b"\x00\x01\x02\x03" + b"\x00" * 20).decode()
    with pytest.raises(
        MalformedBase58, match=r"^unknown prefix where a secret key or an encrypted secret key is needed"
    ):
        decode(text, Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)


@pytest.mark.parametrize("size", [0, 19, 21, 40])
def test_a_payload_of_another_size_is_refused(size: int) -> None:
    text = b58encode_check(Kind["ED25519_PUBLIC_KEY_HASH"].value.prefix + b"\x07" * size).decode()
    with pytest.raises(MalformedBase58, match=rf"^a public key hash \(tz1…\) of {size} bytes instead of 20$"):
        decode(text, Family.PUBLIC_KEY_HASH)
    with pytest.raises(MalformedBase58, match=rf"of {size} bytes instead of 20$"):
        encode(Kind["ED25519_PUBLIC_KEY_HASH"], b"\x07" * size)


@pytest.mark.parametrize("kind", Kind)
def test_digits_are_those_of_the_library(kind: Kind) -> None:
    # Those of no kind begin with a zero byte, which base58 writes as a digit of its own.
    assert kind.value.prefix[0] != 0
    size = kind.value.payload_bytes
    for payload in (
        bytes(size),
        b"\xff" * size,
        *(sha512(bytes([seed])).digest()[:size].ljust(size) for seed in range(50)),
    ):
        assert encode(kind, payload) == b58encode_check(kind.value.prefix + payload).decode()
