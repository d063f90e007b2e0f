"""How a BLS key signs under each version: what both implementations share.

- Keys are in G1, signatures in G2; the message itself is signed, not its digest.
- Version 1 is message augmentation: the public key is put before the message. Versions 2 and latest are the suite that
  relies on proofs of possession. There is no version 0.
- Infinity is neither a public key nor a signature, though the curve library reads it.

Source: draft-irtf-cfrg-bls-signature-05, section 4.2; tee-signer 4f91388, recorded.
"""

from dataclasses import dataclass

from enclave_signer.curves.base import InvalidPublicKey, VersionNotSupported
from enclave_signer.protocol.messages import KeyType, PublicKey, SigningVersion


@dataclass(frozen=True, slots=True)
class Suite:
    """A way to sign: its domain separation tag, and whether the public key goes before the message."""

    tag: bytes
    augmented: bool


AUGMENTATION = Suite(b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_AUG_", augmented=True)
POSSESSION = Suite(b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_", augmented=False)
#: For proofs of possession, which sign the public key.
PROOF = Suite(b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_", augmented=False)

_SUITES = {
    SigningVersion.V1: AUGMENTATION,
    SigningVersion.V2: POSSESSION,
    SigningVersion.LATEST: POSSESSION,
}


def suite_of(version: SigningVersion) -> Suite:
    """Return how a version signs.

    Raises:
        VersionNotSupported: Version 0; ask for 1 or 2.
    """
    suite = _SUITES.get(version)
    if suite is None:
        raise VersionNotSupported(f"BLS has no signing version {int(version)}: use 1 or 2")
    return suite


def bls_public_key_bytes(key: PublicKey) -> bytes:
    """Return the bytes of a public key after checking its curve.

    Raises:
        InvalidPublicKey: It is of another curve.
    """
    if key.key_type is not KeyType.BLS:
        raise InvalidPublicKey(f"a public key of {key.key_type} was given where {KeyType.BLS} is meant")
    return key.data
