"""Secret keys in every form that people keep them in, and everything that only looks like one."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from enclave_signer.protocol.messages import KeyType, PrivateKey
from enclave_signer.tezos import Kind, encode, encode_public_key, parse_secret_key, public_key_hash
from host_backend.errors import MalformedRequest
from host_backend.secret_keys import MAX_SECRET_BYTES, open_secret_key, read_secret_key
from tests.doubles.known_keys import FOUR, KEYS, SIGNATORY, KnownKey

PASSWORD = b"correct horse"
ENCRYPTED: list[dict[str, Any]] = SIGNATORY["encrypted_secret_keys"] + SIGNATORY["encrypted_secret_keys_derived"]
PEM: list[dict[str, Any]] = SIGNATORY["pem_keys"]
ED25519, SECP256K1, P256, BLS = FOUR
CURVES = {KeyType.SECP256K1: ec.SECP256K1(), KeyType.P256: ec.SECP256R1()}


def never() -> bytes:
    raise AssertionError("nothing here is encrypted")


def read(data: str | bytes, password: bytes | None = None) -> PrivateKey:
    return read_secret_key(
        data.encode() if isinstance(data, str) else data, never if password is None else lambda: password
    )


def pkh(key: PrivateKey) -> str:
    return public_key_hash(open_secret_key(key).public_key)


def refusal(data: str | bytes, password: bytes | None = None) -> str:
    with pytest.raises(MalformedRequest) as caught:
        read(data, password)
    text = str(caught.value)
    assert "\n" not in text
    # Nothing of what a library said is left in the chain either.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


def converted(key: KnownKey, encoding: Encoding, form: PrivateFormat, encryption: KeySerializationEncryption) -> bytes:
    if key.key_type is KeyType.ED25519:
        return ed25519.Ed25519PrivateKey.from_private_bytes(key.secret_bytes).private_bytes(encoding, form, encryption)
    scalar = int.from_bytes(key.secret_bytes, "big")
    return ec.derive_private_key(scalar, CURVES[key.key_type]).private_bytes(encoding, form, encryption)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
@pytest.mark.parametrize("frame", ["{}", "{}\n", "\ufeff{}\r\n", "  unencrypted:{}\n"])
def test_base58(key: KnownKey, frame: str) -> None:
    found = read(frame.format(key.secret))
    assert found.key_type is key.key_type
    assert pkh(found) == key.pkh


@pytest.mark.parametrize("item", ENCRYPTED, ids=lambda item: item["encrypted"][:5])
@pytest.mark.parametrize("frame", ["{}", "{}\n", "encrypted:{}"])
def test_encrypted_base58(item: dict[str, Any], frame: str) -> None:
    found = read(frame.format(item["encrypted"]), item["password"].encode())
    assert pkh(found) == item["pkh"]
    assert found.data == parse_secret_key(item["sk"]).data


@pytest.mark.parametrize("item", PEM, ids=lambda item: item["curve"])
@pytest.mark.parametrize("frame", ["{}", "\n\n# of the old baker: ä\n{}", "Bag Attributes\n    a: b\n{}after"])
def test_pem_and_der(item: dict[str, Any], frame: str) -> None:
    assert pkh(read(frame.format(item["pkcs8_pem"]))) == item["pkh"]
    assert pkh(read(frame.format(item["pkcs8_pem"]).replace("\n", "\r\n"))) == item["pkh"]
    der = base64.b64decode("".join(item["pkcs8_pem"].splitlines()[1:-1]))
    assert pkh(read(der)) == item["pkh"]


@pytest.mark.parametrize("key", [SECP256K1, P256], ids=lambda key: key.name)
def test_sec1(key: KnownKey) -> None:
    for encoding in (Encoding.PEM, Encoding.DER):
        assert pkh(read(converted(key, encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption()))) == key.pkh
    # As `openssl ecparam -genkey` writes it.
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = converted(key, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert pkh(read(parameters + pem)) == key.pkh


@pytest.mark.parametrize("key", [ED25519, SECP256K1, P256], ids=lambda key: key.name)
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_encrypted_pkcs8(key: KnownKey, encoding: Encoding) -> None:
    data = converted(key, encoding, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD))
    assert pkh(read(data, PASSWORD)) == key.pkh
    for wrong in (b"", b"incorrect horse"):
        assert refusal(data, wrong) == "the password is wrong, or the private key is damaged"


def test_encrypted_sec1() -> None:
    data = converted(P256, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(PASSWORD))
    assert b"Proc-Type: 4,ENCRYPTED" in data
    assert pkh(read(data, PASSWORD)) == P256.pkh
    assert refusal(data, b"wrong") == "the password is wrong, or the private key is damaged"


def test_an_ec_key_without_its_public_half() -> None:
    head = bytes.fromhex("303e020100301006072a8648ce3d020106052b8104000a042730250201010420")
    assert pkh(read(head + SECP256K1.secret_bytes)) == SECP256K1.pkh
    for scalar in (bytes(32), b"\xff" * 32):
        assert refusal(head + scalar) == "the private key is damaged, or of a kind that Tezos does not have"


def test_the_expanded_form_must_have_both_halves_of_one_key() -> None:
    expanded = encode(Kind["ED25519_PRIVATE_KEY_2"], ED25519.secret_bytes + ED25519.public_key_bytes)
    assert pkh(read(expanded)) == ED25519.pkh
    other = encode(Kind["ED25519_PRIVATE_KEY_2"], ED25519.secret_bytes + KEYS["alice"].public_key_bytes)
    assert refusal(other) == "the two halves of the secret key do not belong together: copy it again in full"


def test_an_ec_key_must_have_both_halves_of_one_key() -> None:
    der = bytearray(converted(SECP256K1, Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    point = ec.derive_private_key(5, ec.SECP256K1()).public_key()
    der[-65:] = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert refusal(bytes(der)) == "the private key is damaged, or of a kind that Tezos does not have"


def test_a_wrong_password() -> None:
    for item in ENCRYPTED:
        for wrong in (b"", b"TEST"):
            assert refusal(item["encrypted"], wrong) == "the password is wrong"


@pytest.mark.parametrize("key_type", [KeyType.SECP256K1, KeyType.P256, KeyType.BLS])
def test_scalars_out_of_range(key_type: KeyType) -> None:
    kinds = {
        KeyType.SECP256K1: Kind["SECP256K1_PRIVATE_KEY"],
        KeyType.P256: Kind["P256_PRIVATE_KEY"],
        KeyType.BLS: Kind["BLS_PRIVATE_KEY"],
    }
    for data in (bytes(32), b"\xff" * 32):
        assert f"not a private key of {key_type}: it must be above zero" in refusal(encode(kinds[key_type], data))


PLAIN_PEM: str = PEM[0]["pkcs8_pem"]
NO_BLOCK = (
    "the PEM text holds no whole private key: it needs one block of PRIVATE KEY, EC PRIVATE KEY, ENCRYPTED PRIVATE KEY"
)
DAMAGED = "the private key is damaged, or of a kind that Tezos does not have"
NEEDED = "a secret key or an encrypted secret key is needed"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (PEM[0]["spki_pem"], "this is a public key"),
        (PLAIN_PEM[:-10], NO_BLOCK),
        ("-----BEGIN PRIVATE KEY-----", NO_BLOCK),
        (PLAIN_PEM.replace("PRIVATE", "OPENSSH PRIVATE"), "this is a key of OpenSSH"),
        (PLAIN_PEM.replace("PRIVATE", "SOME PRIVATE"), NO_BLOCK),
        (PLAIN_PEM + PEM[1]["pkcs8_pem"], "the PEM text holds several private keys: give it one at a time"),
        (PLAIN_PEM.replace("MC4", "MC5"), DAMAGED),
        (PLAIN_PEM.replace("MC4C", "????"), DAMAGED),
        (base64.b64decode("".join(PLAIN_PEM.splitlines()[1:-1]))[:-1], DAMAGED),
        (base64.b64decode("".join(PLAIN_PEM.splitlines()[1:-1])) + b"\0", DAMAGED),
        (b"\x30", f"invalid character where {NEEDED}; base58 has no 0, O, I, l and no spaces"),
        (b"\x30\x00", DAMAGED),
        (b"\x00" * 40, "neither base58 nor PEM nor DER: this is not a secret key"),
        ("ä", "neither base58 nor PEM nor DER: this is not a secret key"),
        (
            f"unencrypted:{ENCRYPTED[0]['encrypted']}",
            "got an encrypted secret key (edesk…) where a secret key is needed",
        ),
        (f"encrypted:{ED25519.secret}", "got a secret key (edsk…) where an encrypted secret key is needed"),
        (f"http:{ED25519.secret}", "invalid character where"),
        ("ledger://my-happy-little-ledger/ed25519/0h/0h", "a Ledger: it cannot be taken out of the device"),
        ("https://signer.example/tz1", "the address of a remote signer"),
        (f'"{ED25519.secret}"', "in quotation marks: remove them"),
        (ED25519.secret_bytes.hex(), "a key in hex"),
        (f"0x{(2 * ED25519.secret_bytes).hex()}", "a key in hex"),
        (b"\xff" * 32, "the bytes of a key"),
        (b"\xff" * 64, "the bytes of a key"),
        (" ".join(["zebra"] * 24), "the words of a mnemonic"),
        (bytes.fromhex("3082099702010330"), "a PKCS#12 file"),
        (PLAIN_PEM.replace("\n", "\\n"), "its line feeds are written as"),
        ("-----BEGIN CERTIFICATE-----\nMC4C\n-----END CERTIFICATE-----", "this is a certificate"),
        (ED25519.public_key, f"got a public key (edpk…) where {NEEDED}"),
        (b"", f"empty text where {NEEDED}"),
        (b"z" * (MAX_SECRET_BYTES + 1), "more than 16384 bytes: this is not a secret key"),
    ],
)
def test_what_is_no_secret_key(data: str | bytes, text: str) -> None:
    assert text in refusal(data)


def test_keys_of_other_kinds() -> None:
    titles = [key_type.facts.title for key_type in KeyType if key_type.facts.pem_name is not None]
    assert titles[:4] == ["Ed25519", "secp256k1", "P-256", "ML-DSA-44"]
    known = f"{', '.join(titles[:-1])} and {titles[-1]}"
    other = f"the private key is of a kind that Tezos does not have; it has {known} in PEM"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert refusal(rsa.generate_private_key(65537, 2048).private_bytes(*form)) == other
    assert refusal(ec.generate_private_key(ec.SECP384R1()).private_bytes(*form)) == other


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_truncated_and_mistyped_keys_are_refused_without_a_word_of_them(key: KnownKey) -> None:
    for text in (
        key.secret[:-1],
        key.secret[1:],
        key.secret.swapcase(),
        key.secret * 2,
        key.secret.replace("k", "j", 1),
    ):
        said = refusal(text)
        assert not [word for word in said.split() if len(word) > 12 and word in text]


def test_public_keys_of_the_vectors() -> None:
    for item in PEM:
        assert encode_public_key(open_secret_key(read(item["pkcs8_pem"])).public_key) == item["pk"]


#: The public example of an Ed25519 key of version 2, from the issue of pyca/cryptography that asks for it.
VERSION_2 = """-----BEGIN PRIVATE KEY-----
MFMCAQEwBQYDK2VwBCIEIGQqNAZlORmn1k4QrYz1FvO4fOQowS3GXQMqRKDzmx9P
oSMDIQCrO5iGM5hnLWrHavywoXekAoXPpYRuB0Dr6DjZF6FZkg==
-----END PRIVATE KEY-----
"""
VERSION_2_DER = base64.b64decode("".join(VERSION_2.splitlines()[1:-1]))


def tlv(tag: int, body: bytes) -> bytes:
    assert len(body) < 256
    return bytes((tag, len(body)) if len(body) < 128 else (tag, 0x81, len(body))) + body


def version_2(key: KnownKey, *more: bytes) -> bytes:
    """Return a key as PKCS#8 of version 2, with what may follow it."""
    version_1 = converted(key, Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = version_1[2 if version_1[1] < 128 else 3 :]
    assert body.startswith(b"\2\1\0")
    return tlv(0x30, b"\2\1\1" + body[3:] + b"".join(more))


def public_half(key: KnownKey) -> bytes:
    return open_secret_key(PrivateKey(key.key_type, key.secret_bytes)).public_key.data


def raw_key(algorithm: int, version: int, size: int) -> bytes:
    """Return PKCS#8 of a key that is bytes: 0x6e and 0x6f exchange keys, 0x70 and 0x71 sign."""
    named = tlv(0x30, bytes((0x06, 3, 0x2B, 0x65, algorithm)))
    return tlv(0x30, bytes((0x02, 1, version)) + named + tlv(0x04, tlv(0x04, bytes(range(size)))))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("algorithm", [0x6E, 0x6F, 0x70, 0x71])
@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_keys_of_a_wrong_length_are_damaged(algorithm: int, version: int, size: int) -> None:
    assert refusal(raw_key(algorithm, version, size)) == DAMAGED


ATTRIBUTES = tlv(0xA0, tlv(0x30, b"\6\1\0"))


@pytest.mark.parametrize("data", [VERSION_2, VERSION_2.replace("\n", "\r\n"), f"text\n{VERSION_2}", VERSION_2_DER])
def test_pkcs8_of_version_2(data: str | bytes) -> None:
    key = read(data)
    assert (key.key_type, key.data) == (KeyType.ED25519, VERSION_2_DER[16:48])


@pytest.mark.parametrize("key", [ED25519, SECP256K1, P256], ids=lambda key: key.name)
def test_what_may_follow_a_key_of_version_2(key: KnownKey) -> None:
    public = b"\0" + public_half(key)
    for more in ([], [ATTRIBUTES], [tlv(0x81, public)], [ATTRIBUTES, tlv(0xA1, tlv(0x03, public))]):
        assert pkh(read(version_2(key, *more))) == key.pkh
    for label in (b"", b"x"):
        assert read(
            b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(version_2(key)) + b"\n-----END PRIVATE KEY-----" + label
        )
    wrong = public[:-1] + bytes((public[-1] ^ 1,))
    assert "two halves" in refusal(version_2(key, tlv(0x81, wrong)))


@pytest.mark.parametrize(
    "data",
    [
        VERSION_2_DER[:-1],
        VERSION_2_DER + b"\0",
        VERSION_2_DER.replace(b"\2\1\1", b"\2\1\2", 1),
        version_2(ED25519, tlv(0x82, b"")),
        version_2(ED25519, tlv(0x81, b"\1" + bytes(32))),
        version_2(ED25519, tlv(0x81, bytes(33)), tlv(0x81, bytes(33))),
        version_2(ED25519, tlv(0xA1, tlv(0x04, bytes(33)))),
    ],
)
def test_damaged_keys_of_version_2(data: bytes) -> None:
    assert refusal(data) == DAMAGED
