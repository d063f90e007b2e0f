"""Verifiers that share no code with the product, nor a library with its signers: base58, cryptography, ecdsa, py_ecc."""

from hashlib import blake2b

import base58
import ecdsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from eth_typing import BLSPubkey, BLSSignature
from py_ecc.bls.ciphersuites import G2MessageAugmentation, G2ProofOfPossession

from enclave_signer.protocol.messages import KeyType
from tests.doubles.known_keys import KnownKey

#: Bytes of the prefix of a signature's text, and how the text begins.
_PREFIXES = {
    KeyType.ED25519: (5, "edsig"),
    KeyType.SECP256K1: (5, "spsig1"),
    KeyType.P256: (4, "p2sig"),
    KeyType.BLS: (4, "BLsig"),
}
_ECDSA = {KeyType.SECP256K1: ecdsa.SECP256k1, KeyType.P256: ecdsa.NIST256p}


def signature_bytes(key: KnownKey, text: str) -> bytes:
    """Return the bytes of a signature's text, which must be that of the key's curve."""
    prefix_bytes, beginning = _PREFIXES[key.key_type]
    assert text.startswith(beginning)
    decoded: bytes = base58.b58decode_check(text)
    return decoded[prefix_bytes:]


def verify(key: KnownKey, text: str, message: bytes, *, version: int = 2) -> None:
    """Pass when a text is the key's signature of a message; fail or raise otherwise."""
    signature = signature_bytes(key, text)
    if key.key_type is KeyType.BLS:
        suite = G2MessageAugmentation if version == 1 else G2ProofOfPossession
        assert suite.Verify(BLSPubkey(key.public_key_bytes), message, BLSSignature(signature))
        return
    digest = blake2b(message, digest_size=32).digest()
    if key.key_type is KeyType.ED25519:
        Ed25519PublicKey.from_public_bytes(key.public_key_bytes).verify(signature, digest)
    else:
        verifier = ecdsa.VerifyingKey.from_string(key.public_key_bytes, curve=_ECDSA[key.key_type])
        assert verifier.verify_digest(signature, digest)
