"""Keys, hashes and signatures as text: the right kind, the right byte order, and no secret in an error."""

import pytest

from enclave_signer.protocol.messages import (
    KeyType,
    PublicKey,
    Signature,
)
from enclave_signer.tezos import (
    EncryptedSecretKey,
    Kind,
    MalformedBase58,
    TezosError,
    check_public_key_hash,
    encode,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    public_key_hash,
)

SEED = bytes(range(32))
SECRET_KINDS = [
    Kind["ED25519_PRIVATE_KEY"],
    Kind["ED25519_PRIVATE_KEY_2"],
    Kind["SECP256K1_PRIVATE_KEY"],
    Kind["P256_PRIVATE_KEY"],
    Kind["BLS_PRIVATE_KEY"],
]
ENCRYPTED_KINDS = [
    Kind["ED25519_ENCRYPTED_PRIVATE_KEY"],
    Kind["SECP256K1_ENCRYPTED_PRIVATE_KEY"],
    Kind["P256_ENCRYPTED_PRIVATE_KEY"],
    Kind["BLS_ENCRYPTED_PRIVATE_KEY"],
]


@pytest.mark.parametrize("key_type", list(KeyType))
def test_public_keys_and_their_hashes_come_back(key_type: KeyType) -> None:
    key = PublicKey(key_type, b"\x02" * key_type.facts.public_key_bytes)
    assert parse_public_key(encode_public_key(key)) == key
    assert check_public_key_hash(public_key_hash(key)) is key_type


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_come_back_and_belong_to_one_curve(key_type: KeyType) -> None:
    signature = Signature(key_type, b"\x05" * key_type.facts.signature_bytes)
    text = encode_signature(signature)
    assert parse_signature(text) == signature
    assert parse_signature(text, key_type) == signature
    for other in set(KeyType) - {key_type}:
        with pytest.raises(MalformedBase58, match=rf"got a signature of a {key_type} key where one of a {other} key"):
            parse_signature(text, other)


def test_a_generic_signature_takes_its_curve_from_the_caller() -> None:
    text = encode(Kind.GENERIC_SIGNATURE, b"\x05" * 64)
    for key_type in (KeyType.ED25519, KeyType.SECP256K1, KeyType.P256):
        assert parse_signature(text, key_type) == Signature(key_type, b"\x05" * 64)
    with pytest.raises(MalformedBase58, match="does not name its curve"):
        parse_signature(text)
    with pytest.raises(MalformedBase58, match="cannot hold a signature of a Bls key"):
        parse_signature(text, KeyType.BLS)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_values_of_the_wrong_size_are_not_written(key_type: KeyType) -> None:
    with pytest.raises(MalformedBase58, match="bytes instead of"):
        encode_public_key(PublicKey(key_type, b"\x02" * (key_type.facts.public_key_bytes + 1)))
    with pytest.raises(MalformedBase58, match="bytes instead of"):
        encode_signature(Signature(key_type, b"\x02" * (key_type.facts.signature_bytes - 1)))


@pytest.mark.parametrize(
    ("kind", "key_type"),
    [
        (Kind["ED25519_PRIVATE_KEY"], KeyType.ED25519),
        (Kind["SECP256K1_PRIVATE_KEY"], KeyType.SECP256K1),
        (Kind["P256_PRIVATE_KEY"], KeyType.P256),
    ],
)
def test_secret_keys_keep_their_bytes(kind: Kind, key_type: KeyType) -> None:
    key = parse_secret_key(encode(kind, SEED))
    assert (key.key_type, key.data) == (key_type, SEED)


def test_a_bls_secret_key_is_little_endian_in_text() -> None:
    key = parse_secret_key(encode(Kind["BLS_PRIVATE_KEY"], SEED))
    assert (key.key_type, key.data) == (KeyType.BLS, SEED[::-1])


def test_the_expanded_form_begins_with_the_seed() -> None:
    text = encode(Kind["ED25519_PRIVATE_KEY_2"], SEED + b"\xee" * 32)
    key = parse_secret_key(text)
    assert len(text) == 98
    assert (key.key_type, key.data) == (KeyType.ED25519, SEED)


@pytest.mark.parametrize("kind", SECRET_KINDS)
def test_every_private_key_has_32_bytes(kind: Kind) -> None:
    assert len(parse_secret_key(encode(kind, b"\x01" * kind.value.payload_bytes)).data) == 32


@pytest.mark.parametrize("kind", ENCRYPTED_KINDS)
def test_encrypted_keys_are_recognised(kind: Kind) -> None:
    text = encode(kind, b"\x01" * 56)
    with pytest.raises(EncryptedSecretKey) as caught:
        parse_secret_key(text)
    assert str(caught.value).startswith(f"the secret key is encrypted ({kind.value.label}…); decrypt it")


@pytest.mark.parametrize("kind", SECRET_KINDS + ENCRYPTED_KINDS)
@pytest.mark.parametrize("spoil", ["{}x", " {}", "{}\n", "{}0", "{}" * 3, "{}é"])
def test_no_error_repeats_a_secret(kind: Kind, spoil: str) -> None:
    text = encode(kind, bytes(range(kind.value.payload_bytes)))
    spoiled = spoil.replace("{}", text)
    for read in (parse_secret_key, parse_public_key, check_public_key_hash, parse_signature):
        with pytest.raises(TezosError) as caught:
            read(spoiled)
        error: BaseException | None = caught.value
        while error is not None:
            assert not any(text[start : start + 8] in f"{error!r}{error}" for start in range(len(text) - 8))
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("kind", SECRET_KINDS)
def test_a_secret_in_the_wrong_place_is_named_but_not_shown(kind: Kind) -> None:
    text = encode(kind, bytes(range(kind.value.payload_bytes)))
    with pytest.raises(MalformedBase58) as caught:
        check_public_key_hash(text)
    expected = f"wrong kind: got a secret key ({kind.value.label}…) where a public key hash is needed"
    assert str(caught.value) == expected


def test_a_private_key_does_not_show_itself() -> None:
    assert repr(parse_secret_key(encode(Kind["ED25519_PRIVATE_KEY"], b"A" * 32))).find("A" * 4) == -1
