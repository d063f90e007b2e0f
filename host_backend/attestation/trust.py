"""Whose signature on a token counts, and whether it is there.

- The algorithm is RS256, whatever the token says; the key is one that was trusted before the token was looked at.
- Google's keys (`TrustedKeys`) sign the tokens of type OIDC; those of type PKI bring a chain of three certificates, whose
  root must be the pinned one (`PinnedRoot`), never one of their own.

Source: RFC 7515, RFC 7517, RFC 5280; Google's reference of Confidential Space tokens.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeAlias

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from host_backend.attestation.token import shown

ALGORITHM = "RS256"
#: The SHA-256 of Google's `Confidential Space Root CA`, valid until 2034-01-16. Source:
#: https://confidentialcomputing.googleapis.com/.well-known/confidential_space_root.crt, and project-oak/oak's copy.
GOOGLE_ROOT_SHA256 = "148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"
#: Leaf, intermediate, root.
CHAIN_LENGTH = 3
#: Characters of one certificate in base64; those of 4096 bits have some 2500.
MAX_CERTIFICATE_CHARS = 8192
#: Keys of a JWKS; Google has two to four.
MAX_KEYS = 32
MIN_KEY_BITS = 2048
#: What the library raises about certificates that are none; some parts are read only when they are needed.
_UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


class Untrusted(Exception):
    """A signature does not count; the text begins with the part of the token's head that is to blame."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Public keys by their id."""

    by_id: Mapping[str, rsa.RSAPublicKey]

    @classmethod
    def from_jwks(cls, document: object) -> "TrustedKeys":
        """Return the keys of a JWKS, as its JSON was parsed; those that cannot have signed a token are left out.

        Raises:
            ValueError: It is no JWKS, or none of its keys can be used.
        """
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise ValueError(f"not a JWKS of at most {MAX_KEYS} keys")
        by_id: dict[str, rsa.RSAPublicKey] = {}
        for entry in keys:
            found = _usable_key(entry)
            if found is not None and by_id.setdefault(*found) is not found[1]:
                raise ValueError("two keys of the JWKS have one id")
        if not by_id:
            raise ValueError(f"the JWKS has no key for {ALGORITHM}")
        return cls(by_id)


def _usable_key(entry: object) -> tuple[str, rsa.RSAPublicKey] | None:
    if not isinstance(entry, dict) or entry.get("alg", ALGORITHM) != ALGORITHM or entry.get("use", "sig") != "sig":
        return None
    kid = entry.get("kid")
    try:
        key = jwt.PyJWK(entry, ALGORITHM).key if entry.get("kty") == "RSA" else None
    except (jwt.PyJWTError, ValueError, TypeError, binascii.Error):
        return None
    if not isinstance(kid, str) or not kid or not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        return None
    return kid, key


@dataclass(frozen=True, slots=True)
class PinnedRoot:
    """A root certificate, by the SHA-256 of its DER form in hex; Google's unless another is named."""

    sha256: str = GOOGLE_ROOT_SHA256

    @classmethod
    def from_pem(cls, pem: bytes) -> "PinnedRoot":
        """Pin the certificate in a PEM file.

        Raises:
            ValueError: There is not exactly one.
        """
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except _UNREADABLE as error:
            raise ValueError("not a certificate in PEM form") from error
        if len(certificates) != 1:
            raise ValueError("not exactly one certificate")
        return cls(sha256(certificates[0].public_bytes(Encoding.DER)).hexdigest())


Trust: TypeAlias = TrustedKeys | PinnedRoot


def check_signature(token: str, header: Mapping[str, object], trust: Trust, now: float) -> None:
    """Return if a token's signature is one that counts.

    Args:
        token: As it came.
        header: Its head, parsed.
        trust: Whose signature counts.
        now: Seconds since 1970.

    Raises:
        Untrusted: It has no signature that counts.
    """
    if header.get("alg") != ALGORITHM:
        raise Untrusted(f"alg is {header.get('alg')!r}, expected {ALGORITHM}")
    if header.get("typ") != "JWT":
        raise Untrusted(f"typ is {header.get('typ')!r}, expected JWT")
    if "crit" in header:
        raise Untrusted("crit asks for an extension that is not known here")
    key = _trusted_key(header, trust) if isinstance(trust, TrustedKeys) else _leaf_key(header, trust, now)
    try:
        jwt.PyJWS().decode(token, key, algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError):
        # The library's text may repeat what it was given.
        raise Untrusted("the signature is not that of the trusted key") from None


def _trusted_key(header: Mapping[str, object], trust: TrustedKeys) -> rsa.RSAPublicKey:
    kid = header.get("kid")
    key = trust.by_id.get(kid) if isinstance(kid, str) else None
    if key is not None:
        return key
    if "x5c" in header:
        raise Untrusted("x5c is there: this token is of type PKI, and only tokens of type OIDC are trusted here")
    raise Untrusted(f"kid {str(kid)[:80]!r} is not one of the trusted keys")


def _leaf_key(header: Mapping[str, object], root: PinnedRoot, now: float) -> rsa.RSAPublicKey:
    leaf, intermediate, top = _chain(header.get("x5c"))
    if sha256(top.public_bytes(Encoding.DER)).hexdigest() != root.sha256:
        raise Untrusted("x5c: its root is not the pinned one")
    anything = ExtensionPolicy.permit_all()
    authority = anything.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    # The leaf has no name for a server, and the intermediate a use that the web does not know: the library's own rules
    # are for the web.
    builder = PolicyBuilder().store(Store([top])).max_chain_depth(1).time(datetime.fromtimestamp(now, UTC))
    verifier = builder.extension_policies(ca_policy=authority, ee_policy=anything).build_client_verifier()
    try:
        verifier.verify(leaf, [intermediate])
    except (VerificationError, *_UNREADABLE) as error:
        raise Untrusted(f"x5c: the chain does not hold: {shown(str(error))}") from None
    if not top.not_valid_before_utc.timestamp() <= now <= top.not_valid_after_utc.timestamp():
        raise Untrusted("x5c: the root is not valid at this time")
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise Untrusted(f"x5c: the leaf's key is not RSA of at least {MIN_KEY_BITS} bits")
    return key


def _chain(value: object) -> list[x509.Certificate]:
    if value is None:
        raise Untrusted("x5c is missing: only tokens of type PKI are trusted here")
    if not isinstance(value, list) or len(value) != CHAIN_LENGTH:
        raise Untrusted(f"x5c must hold {CHAIN_LENGTH} certificates")
    certificates = []
    for text in value:
        if not isinstance(text, str) or len(text) > MAX_CERTIFICATE_CHARS:
            raise Untrusted("x5c holds something that is not a certificate")
        try:
            certificates.append(x509.load_der_x509_certificate(base64.b64decode(text, validate=True)))
        except _UNREADABLE:
            raise Untrusted("x5c holds something that is not a certificate") from None
    return certificates
