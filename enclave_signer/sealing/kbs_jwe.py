"""The key of one handshake, and what a key broker encrypts to it: JWE with ECDH-ES+A256KW and A256GCM, and nothing else.

Source: RFC 7516 (flattened JSON), RFC 7518 4.6; RFC 3394; the key broker protocol 0.4.0.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

ALGORITHM = "ECDH-ES+A256KW"
ENCRYPTION = "A256GCM"
_CURVE = "P-256"
_COORDINATE_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
#: AES-256: the key that the content is encrypted with, and the one that it is wrapped with.
_KEY_BYTES = 32
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


class BadJwe(Exception):
    """It does not open; the text says why, and quotes nothing of it."""


class TeeKey:
    """An ephemeral key, made for one handshake.

    Args:
        private: The key; a new one by default.
    """

    def __init__(self, private: ec.EllipticCurvePrivateKey | None = None) -> None:
        self._private = private or ec.generate_private_key(ec.SECP256R1())

    def __repr__(self) -> str:
        """Return its public part."""
        return f"TeeKey({self.jwk['x']})"

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as the protocol writes it."""
        point = self._private.public_key().public_numbers()
        x, y = (base64url(part.to_bytes(_COORDINATE_BYTES, "big")) for part in (point.x, point.y))
        return {"alg": ALGORITHM, "crv": _CURVE, "kty": "EC", "x": x, "y": y}

    def decrypt(self, jwe: Mapping[str, object]) -> bytes:
        """Return the plaintext of JWE that is encrypted to this key.

        Raises:
            BadJwe: It is not JWE of the one kind that was asked for, or is encrypted to another key.
        """
        protected, parts = _read(jwe)
        header = _header(protected)
        if (header.get("alg"), header.get("enc")) != (ALGORITHM, ENCRYPTION):
            raise BadJwe(f"it is not encrypted by {ALGORITHM} and {ENCRYPTION}")
        shared = self._private.exchange(ec.ECDH(), _public_key(header.get("epk")))
        wrapping_key = ConcatKDFHash(SHA256(), _KEY_BYTES, _other_info()).derive(shared)
        try:
            content_key = aes_key_unwrap(wrapping_key, parts["encrypted_key"])
            if len(content_key) != _KEY_BYTES:
                raise BadJwe("its key has the wrong length")
            return AESGCM(content_key).decrypt(parts["iv"], parts["ciphertext"] + parts["tag"], protected.encode())
        except (InvalidUnwrap, InvalidTag, ValueError):
            raise BadJwe("it is encrypted to another key, or was altered") from None


def base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(value: object) -> bytes:
    """Return the bytes of a text without padding.

    Raises:
        BadJwe: It is no such text.
    """
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise BadJwe("a part of it is not base64url")
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error:
        raise BadJwe("a part of it is not base64url") from None


def _read(jwe: Mapping[str, object]) -> tuple[str, dict[str, bytes]]:
    protected = jwe.get("protected")
    if not isinstance(protected, str):
        raise BadJwe("it has no protected header")
    parts = {name: from_base64url(jwe.get(name)) for name in ("encrypted_key", "iv", "ciphertext", "tag")}
    if (len(parts["iv"]), len(parts["tag"])) != (_IV_BYTES, _TAG_BYTES):
        raise BadJwe("a part of it has the wrong length")
    return protected, parts


def _header(protected: str) -> Mapping[str, object]:
    try:
        header = json.loads(from_base64url(protected))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise BadJwe("its protected header is not a JSON object")
    return header


def _public_key(epk: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(epk, dict) or (epk.get("kty"), epk.get("crv")) != ("EC", _CURVE):
        raise BadJwe(f"its ephemeral key is not of {_CURVE}")
    coordinates = from_base64url(epk.get("x")), from_base64url(epk.get("y"))
    if any(len(each) != _COORDINATE_BYTES for each in coordinates):
        raise BadJwe("its ephemeral key has the wrong length")
    x, y = (int.from_bytes(each, "big") for each in coordinates)
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise BadJwe("its ephemeral key is not on the curve") from None


def _other_info() -> bytes:
    name = ALGORITHM.encode()
    # Neither side has a name: two empty texts before the length of the key in bits.
    return len(name).to_bytes(4, "big") + name + bytes(8) + (_KEY_BYTES * 8).to_bytes(4, "big")
