"""Encrypted PKCS#8 of version 2: the layer with the password, against OpenSSL and `cryptography`, and the key in it."""

import hashlib
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_der_private_key,
)

from host_backend.errors import MalformedRequest
from host_backend.pbes2 import MAX_ITERATIONS, MAX_SCRYPT_BYTES, open_pbes2
from host_backend.secret_keys import read_secret_key
from tests.unit.test_secret_keys import VERSION_2_DER, tlv

PASSWORD = b"a password"
#: By `openssl pkcs8 -topk8 -scrypt -scrypt_N 1024` and `-v2 aes-128-cbc -v2prf hmacWithSHA1`, of OpenSSL 3.0.19.
OPENSSL = (
    bytes.fromhex(
        "308193304f06092a864886f70d01050d3042302106092b06010401da47040b301404085bb7d24bc2f01b2502020400020108"
        "020101301d060960864801650304012a04104b6c6151033d0d7284e5312edca7e1e2044013474023a71a7d4402b71e59f70a"
        "17df9a7ce49db166f9b89be9d4f07da48749faa8e4c5eb0c0e37c43cfe44d021a6ded788c88cff410bc2cae3f6917e8b095d"
    ),
    bytes.fromhex(
        "30818d304906092a864886f70d01050d303c301b06092a864886f70d01050c300e0408c4b0b6c7388ea28602020800301d06"
        "096086480165030401020410314a41d33c6a3c0fe48ccd954173ae8204408cc3510a9b0226977094e11be989f028588e55dd"
        "e869dea93bba645f07b3504a3571d49e5e6e83e87fc00a08ff4d710e3516b6123327bd505f0b7b22fb1df384"
    ),
)
#: The same key as version 1.
VERSION_1 = bytes.fromhex("302e020100300506032b657004220420") + VERSION_2_DER[16:48]
_AES_256, _SCRYPT, _PBKDF2, _PBES2 = map(
    bytes.fromhex,
    ("060960864801650304012a", "06092b06010401da47040b", "06092a864886f70d01050c", "06092a864886f70d01050d"),
)
_SALT, _START = b"salt" * 2, bytes(range(16))


def sealed(inner: bytes, function: bytes, parameters: bytes, key: bytes) -> bytes:
    """Return an encrypted PKCS#8 structure."""
    encryptor = Cipher(AES(key), CBC(_START)).encryptor()
    size = 16 - len(inner) % 16
    encrypted = encryptor.update(inner + bytes((size,)) * size) + encryptor.finalize()
    derivation = tlv(0x30, function + tlv(0x30, tlv(0x04, _SALT) + parameters))
    cipher = tlv(0x30, _AES_256 + tlv(0x04, _START))
    return tlv(0x30, tlv(0x30, _PBES2 + tlv(0x30, derivation + cipher)) + tlv(0x04, encrypted))


def number(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


SHA256 = tlv(0x30, bytes.fromhex("06082a864886f70d0209") + tlv(0x05, b""))
#: What Rust's libraries write, smaller; and what others write.
FORMS = {
    "scrypt": sealed(
        VERSION_2_DER,
        *(_SCRYPT, number(1024) + number(8) + number(1)),
        hashlib.scrypt(PASSWORD, salt=_SALT, n=1024, r=8, p=1, dklen=32),
    ),
    "pbkdf2": sealed(
        VERSION_2_DER,
        *(_PBKDF2, number(2048) + number(32) + SHA256),
        hashlib.pbkdf2_hmac("sha256", PASSWORD, _SALT, 2048, 32),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_keys_of_version_2_are_read_behind_a_password(name: str) -> None:
    form = FORMS[name]
    pem = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + b64encode(form) + b"\n-----END ENCRYPTED PRIVATE KEY-----\n"
    for data in (form, pem):
        assert read_secret_key(data, lambda: PASSWORD).data == VERSION_2_DER[16:48]
        with pytest.raises(MalformedRequest, match=r"^the password is wrong, or the private key is damaged$"):
            read_secret_key(data, lambda: b"another")


def test_what_others_write_opens_to_what_they_read() -> None:
    key = load_der_private_key(VERSION_1, None)
    written = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD))
    for form in (written, *OPENSSL):
        assert open_pbes2(form, PASSWORD) == VERSION_1
        assert open_pbes2(form, b"another") is None


def test_no_form_costs_more_than_is_allowed() -> None:
    for function, parameters in (
        (_PBKDF2, number(MAX_ITERATIONS + 1)),
        (_SCRYPT, number(MAX_SCRYPT_BYTES // 1024) + number(8) + number(2)),
        (_SCRYPT, number(2**40) + number(2**70) + number(2**40)),
    ):
        assert open_pbes2(sealed(VERSION_2_DER, function, parameters, bytes(32)), PASSWORD) is None


def test_damaged_forms_raise_nothing() -> None:
    form = FORMS["pbkdf2"]
    for place in range(len(form)):
        assert open_pbes2(form[:place], PASSWORD) is None
        open_pbes2(form[:place] + bytes((form[place] ^ 0x20,)) + form[place + 1 :], PASSWORD)


#: What `cryptography` would work on for hours, take gigabytes for, or panic at.
COSTLY = {
    "many rounds": (_PBKDF2, number(2**31 - 1) + SHA256),
    "more rounds than it can count": (_PBKDF2, number(2**31) + SHA256),
    "much memory": (_SCRYPT, number(2**19) + number(8) + number(1)),
    "large blocks": (_SCRYPT, number(2) + number(2**21) + number(1)),
}


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.parametrize("lines", [b"", b"X: y\n\n"])
def test_no_library_is_given_what_costs_more_than_is_allowed(name: str, lines: bytes) -> None:
    form = sealed(VERSION_1, *COSTLY[name], bytes(32))
    pem = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n%b%b\n-----END ENCRYPTED PRIVATE KEY-----\n"
    for data in (form, pem % (lines, b64encode(form))):
        with pytest.raises(MalformedRequest, match=r"at too high a cost|is damaged"):
            read_secret_key(data, lambda: PASSWORD)


@pytest.mark.parametrize("cost", [0, 3])
def test_what_openssl_refuses_is_refused(cost: int) -> None:
    form = sealed(VERSION_1, _SCRYPT, number(cost) + number(8) + number(1), bytes(32))
    with pytest.raises(MalformedRequest, match="the password is wrong, or the private key is damaged"):
        read_secret_key(form, lambda: PASSWORD)


def test_an_empty_name_of_a_hash_raises_nothing() -> None:
    assert open_pbes2(sealed(VERSION_1, _PBKDF2, number(2) + tlv(0x30, b""), bytes(32)), PASSWORD) is None


def sequence(body: bytes) -> bytes:
    return tlv(0x30, body) if len(body) < 256 else b"\x30\x82" + len(body).to_bytes(2, "big") + body


def test_what_nests_without_end_is_refused() -> None:
    nested = b""
    while len(nested) < 12_000:
        nested = sequence(nested)
    der = sequence(sequence(bytes.fromhex("0603550403") + nested) + tlv(0x04, bytes(16)))
    with pytest.raises(MalformedRequest, match=r"^the password is wrong, or the private key is damaged$"):
        read_secret_key(der, lambda: PASSWORD)
