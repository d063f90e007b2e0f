"""Secret keys as people keep them: base58, plain or encrypted, Octez' URIs, PEM and DER.

- The form is found from the bytes. White space, a byte order mark and, in PEM, text around the key do not matter.
- Anything but exactly one secret key of one of Tezos' curves is refused; both halves of a key that names its public key must
  belong together.
- A password is asked for when one is needed, and only then.
- No error repeats anything of the input, nor what a library says of it.

Source: Octez `src/lib_signer_backends/encrypted.ml` (PBKDF2 and secretbox); RFC 5208, 5915, 5958, 7468 through `cryptography`.
"""

import re
from base64 import b64decode
from codecs import BOM_UTF8
from collections.abc import Callable
from hashlib import pbkdf2_hmac
from typing import Protocol, runtime_checkable

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from enclave_signer.curves import CurveError, SigningKey, curve
from enclave_signer.protocol.key_types import PEM_KEY_TYPES
from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import (
    Family,
    TezosError,
    check_has_key,
    decode,
    encode,
    kinds_of,
    parse_secret_key,
)
from host_backend.errors import MalformedRequest
from host_backend.pbes2 import costs_too_much, open_pbes2
from host_backend.pkcs8 import parse_version_2
from host_backend.wallets import form_of_bytes, form_of_pem, form_of_text

#: Largest input: a P-256 key in PEM has 400 bytes; beyond that there are only comments, and keys of other kinds.
MAX_SECRET_BYTES = 16 * 1024
#: Longest password, in bytes: no password is longer, and a whole file given by mistake is noticed.
MAX_PASSWORD_BYTES = 1024

_SALT_BYTES = 8
_ITERATIONS = 32768
_NONCE = bytes(SecretBox.NONCE_SIZE)
_PLAIN_KINDS = {
    encrypted: kinds_of(Family.PRIVATE_KEY)[key_type]
    for key_type, encrypted in kinds_of(Family.ENCRYPTED_PRIVATE_KEY).items()
}
_URIS = {"unencrypted:": Family.PRIVATE_KEY, "encrypted:": Family.ENCRYPTED_PRIVATE_KEY}
_BY_PEM_NAME = {key_type.facts.pem_name: key_type for key_type in PEM_KEY_TYPES}
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_ENCRYPTED = b"ENCRYPTED PRIVATE KEY"
_PEM_LABELS = (b"PRIVATE KEY", b"EC PRIVATE KEY", _ENCRYPTED)
_DER_SEQUENCE = b"\x30"
#: What the library raises about keys that are none; the last one where their length is wrong.
_UNREADABLE = (ValueError, UnsupportedAlgorithm, InternalError)
_DAMAGED = "the private key is damaged, or of a kind that Tezos does not have"


class _RawPublicKey(Protocol):
    def public_bytes_raw(self) -> bytes: ...


@runtime_checkable
class _RawKey(Protocol):
    """A key of `cryptography` that is no number on an elliptic curve in Weierstrass' form, but bytes."""

    def private_bytes_raw(self) -> bytes: ...

    def public_key(self) -> _RawPublicKey: ...


#: Asks for the password of a key; called only if the key is encrypted.
AskPassword = Callable[[], bytes]


def read_secret_key(data: bytes, ask_password: AskPassword) -> PrivateKey:
    """Return the secret key in a text or file.

    Args:
        data: The whole input, at most `MAX_SECRET_BYTES`.
        ask_password: Returns the password; what it raises is passed on.

    Returns:
        A key in its curve's range.

    Raises:
        MalformedRequest: There is no secret key, or more than one, or none of these curves; or the password is wrong.
    """
    if len(data) > MAX_SECRET_BYTES:
        raise MalformedRequest(f"more than {MAX_SECRET_BYTES} bytes: this is not a secret key")
    private_key = _read(data.removeprefix(BOM_UTF8), ask_password)
    open_secret_key(private_key)
    return private_key


def open_secret_key(private_key: PrivateKey) -> SigningKey:
    """Return a secret key ready to sign, with its public key.

    Raises:
        MalformedRequest: It is no key of its curve.
    """
    try:
        return curve(private_key.key_type).open(private_key)
    except CurveError as error:
        raise MalformedRequest(str(error)) from None


def _read(data: bytes, ask_password: AskPassword) -> PrivateKey:
    if b"-----BEGIN" in data:
        block = _pem_block(data)
        return _from_version_2(_pem_body(block, b"PRIVATE KEY")) or _converted(_load_pem, block, ask_password)
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        text = None
    # DER has length bytes and zeros that no text has; a text that only begins like DER is a mistyped base58 key.
    if text is None or not text.isprintable():
        if form := form_of_bytes(data):
            raise MalformedRequest(form)
        if not data.startswith(_DER_SEQUENCE):
            raise MalformedRequest("neither base58 nor PEM nor DER: this is not a secret key")
        return _from_version_2(data) or _converted(load_der_private_key, data, ask_password)
    try:
        return _read_text(text, ask_password)
    except TezosError as error:
        raise MalformedRequest(form_of_text(text) or str(error)) from None


def _read_text(text: str, ask_password: AskPassword) -> PrivateKey:
    families: tuple[Family, ...] = (Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)
    for scheme, family in _URIS.items():
        if text.startswith(scheme):
            text, families = text.removeprefix(scheme), (family,)
    kind, payload = decode(text, *families)
    check_has_key(kind)
    if kind in _PLAIN_KINDS:
        return parse_secret_key(encode(_PLAIN_KINDS[kind], _decrypted(payload, ask_password())))
    private_key = parse_secret_key(text)
    public_half = payload[private_key.key_type.facts.private_key_bytes :]
    if public_half not in (b"", open_secret_key(private_key).public_key.data):
        raise MalformedRequest("the two halves of the secret key do not belong together: copy it again in full")
    return private_key


def _decrypted(payload: bytes, password: bytes) -> bytes:
    salt, box = payload[:_SALT_BYTES], payload[_SALT_BYTES:]
    key = pbkdf2_hmac("sha512", password, salt, _ITERATIONS, SecretBox.KEY_SIZE)
    try:
        return SecretBox(key).decrypt(box, _NONCE)
    except CryptoError:
        raise MalformedRequest("the password is wrong") from None


def _pem_block(data: bytes) -> bytes:
    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(data)]
    keys = [block for label, block in blocks if label in _PEM_LABELS]
    if len(keys) > 1:
        raise MalformedRequest("the PEM text holds several private keys: give it one at a time")
    if keys and b"\\n" not in keys[0]:
        return keys[0]
    if form := form_of_pem(data):
        raise MalformedRequest(f"the PEM text holds no private key that can be read: {form}")
    known = ", ".join(label.decode() for label in _PEM_LABELS)
    raise MalformedRequest(f"the PEM text holds no whole private key: it needs one block of {known}")


def _pem_body(block: bytes, label: bytes) -> bytes:
    """Return the DER in a PEM block; nothing where its label or its lines say otherwise."""
    begin, end = b"-----BEGIN %b-----" % label, b"-----END %b-----" % label
    if not block.startswith(begin):
        return b""
    try:
        return b64decode(b"".join(block.removeprefix(begin).removesuffix(end).split()), validate=True)
    except ValueError:
        return b""


def _from_version_2(der: bytes) -> PrivateKey | None:
    """Return the key in a PKCS#8 structure of version 2; None for any other."""
    found = parse_version_2(der)
    if found is None:
        return None
    try:
        loaded = load_der_private_key(found.version_1, None)
    except _UNREADABLE:
        raise MalformedRequest(_DAMAGED) from None
    private_key = _of_a_curve(loaded)
    if found.public_key not in (None, *_public_halves(loaded)):
        raise MalformedRequest("the two halves of the secret key do not belong together: copy it again in full")
    return private_key


def _public_halves(loaded: object) -> list[bytes]:
    """Return the public half of a loaded key in each form that the key may name it in."""
    if isinstance(loaded, _RawKey):
        return [loaded.public_key().public_bytes_raw()]
    if isinstance(loaded, EllipticCurvePrivateKey):
        forms = (PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint)
        return [loaded.public_key().public_bytes(Encoding.X962, form) for form in forms]
    return []


def _load_pem(data: bytes, password: bytes | None) -> object:
    return load_pem_private_key(data, password)


def _converted(load: Callable[[bytes, bytes | None], object], data: bytes, ask_password: AskPassword) -> PrivateKey:
    """Return the key that a loader of `cryptography` finds."""
    try:
        loaded = load(data, None)
    except TypeError:
        # Its word for: encrypted. An empty password is none to it.
        return _decrypted_key(load, data, ask_password())
    except _UNREADABLE:
        raise MalformedRequest(_DAMAGED) from None
    return _of_a_curve(loaded)


def _of_a_curve(loaded: object) -> PrivateKey:
    name, secret = _name_and_secret(loaded)
    if name not in _BY_PEM_NAME:
        *titles, last = (key_type.facts.title for key_type in PEM_KEY_TYPES)
        raise MalformedRequest(
            f"the private key is of a kind that Tezos does not have; it has {', '.join(titles)} and {last} in PEM"
        )
    return PrivateKey(_BY_PEM_NAME[name], secret)


def _name_and_secret(loaded: object) -> tuple[str, bytes]:
    """Return what the curve of a key is called in `CurveFacts.pem_name`, and the key's bytes."""
    name = type(loaded).__name__
    if name in _BY_PEM_NAME and isinstance(loaded, _RawKey):
        return name, loaded.private_bytes_raw()
    if isinstance(loaded, EllipticCurvePrivateKey):
        scalar = loaded.private_numbers().private_value
        return loaded.curve.name, scalar.to_bytes((loaded.curve.key_size + 7) // 8, "big")
    return "another kind", b""


def _decrypted_key(load: Callable[[bytes, bytes | None], object], data: bytes, password: bytes) -> PrivateKey:
    der = data if data.startswith(_DER_SEQUENCE) else _pem_body(data, _ENCRYPTED)
    if data.startswith(b"-----BEGIN " + _ENCRYPTED) and not der:
        raise MalformedRequest(_DAMAGED)
    if costs_too_much(der):
        raise MalformedRequest(
            "the private key is encrypted at too high a cost: encrypt it with fewer rounds, or less memory"
        )
    try:
        return _of_a_curve(load(data, password))
    except (TypeError, *_UNREADABLE):
        # It says the same of a wrong password and of a key of version 2.
        inner = open_pbes2(der, password)
        found = None if inner is None else _from_version_2(inner)
        if found is None:
            raise MalformedRequest("the password is wrong, or the private key is damaged") from None
        return found
