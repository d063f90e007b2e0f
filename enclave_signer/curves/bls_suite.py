"""How a BLS key signs under each version, and its known answer: what both implementations share.

- Keys are in G1, signatures in G2; the message itself is signed, not its digest.
- Version 1 is message augmentation: the public key is put before the message. Versions 2 and latest are the suite that
  relies on proofs of possession. There is no version 0.
- Infinity is neither a public key nor a signature, though the curve library reads it.

Source: draft-irtf-cfrg-bls-signature-05, section 4.2; tee-signer 4f91388, recorded.
"""

from dataclasses import dataclass

from enclave_signer.curves.base import InvalidPublicKey, KnownAnswer, VersionNotSupported
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


#: A public test key. Source: tee-signer 4f91388, recorded.
KNOWN_ANSWER = KnownAnswer(
    private_key=bytes.fromhex("552d23f1c7a26e14301fd17681831f11a37fce2a9958fdce3d48c2133b914303"),
    public_key=bytes.fromhex(
        "876933e4c492ba83dc34597612155d4531c678d0cb8c787d33c510ccb4dfb2d9cf8399d84d8e04e2db213128a22efdd9"
    ),
    signatures=(
        (
            SigningVersion.V1,
            bytes.fromhex(
                "ab3e617ca2a1941d128f505e492f553f20bae0f6eb04e355800b733fc13eeb2958078603a9d9392a411fd45ee81501d2"
                "147500bdafc0f14bdab35e836666fac014338061cdd97862d3f96cab0987e22f58c891a6d3805da2d9617ba223e9ca15"
            ),
        ),
        (
            SigningVersion.V2,
            bytes.fromhex(
                "848563b5d4b7fabd529a0f1145d2d3e30181a09878efb9fe36a68e729a455eed72b276aac2fdd69add4772e1d2018ff6"
                "0a01e337497c929bbaf12296307a31dc44bf577088b7cf8f95ef2c452a0b6ca02bee2e7e1bdb1ed1672022161b05d51b"
            ),
        ),
    ),
    proof=bytes.fromhex(
        "a5a03dfd5896dfdd8ae16da3c37715db252b6e4f3c720c5ea1ae9410d22d80cbd37d2ebd9c1290c8effbdc95456c76cc"
        "00d5168a036b904282601e239e8f02d51588b33f43c0965b640ad631d5769363142f957bc93f65a98f5d18172ddf2a63"
    ),
)


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
