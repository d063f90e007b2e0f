"""BLS12-381 signatures by py_ecc, for machines where the ckzg wheel cannot be had.

- About 0.15 s a signature, without releasing the interpreter's lock; not constant time, not audited. For tests and trials:
  `install_slow_bls` is the only way to it, and says so in the log.
- Keeps the rules, and gives the bytes, of `bls.py`.
"""

from eth_typing import BLSPubkey, BLSSignature
from py_ecc.bls.ciphersuites import G2MessageAugmentation, G2ProofOfPossession
from py_ecc.optimized_bls12_381.optimized_curve import curve_order

from enclave_signer.curves.base import (
    Curve,
    InvalidPublicKey,
    check_public_key_size,
    random_scalar,
    scalar_bytes,
    signature_bytes,
    wrong_signature,
)
from enclave_signer.curves.bls_suite import KNOWN_ANSWER, bls_public_key_bytes, suite_of
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

_ORDER = curve_order.to_bytes(32, "big")


class PyEccSigningKey:
    """An opened BLS key."""

    __slots__ = ("_scalar", "public_key")

    public_key: PublicKey

    def __init__(self, scalar: int) -> None:
        self._scalar = scalar
        self.public_key = PublicKey(KeyType.BLS, bytes(G2ProofOfPossession.SkToPk(scalar)))

    def __repr__(self) -> str:
        return "<opened Bls key>"

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign the message itself.

        Raises:
            VersionNotSupported: Version 0; ask for 1 or 2.
        """
        scheme = G2MessageAugmentation if suite_of(version).augmented else G2ProofOfPossession
        return Signature(KeyType.BLS, bytes(scheme.Sign(self._scalar, message)))

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        """Sign the key's own public key, or another one.

        Raises:
            InvalidPublicKey: The other one is no BLS key.
        """
        if other is not None:
            _check_point(bls_public_key_bytes(other))
        key = (other or self.public_key).data
        proof = G2ProofOfPossession._CoreSign(self._scalar, key, G2ProofOfPossession.POP_TAG)  # noqa: SLF001 -- its rule for keys
        return Signature(KeyType.BLS, bytes(proof))


class PyEccVerifyingKey:
    """A parsed BLS public key."""

    __slots__ = ("public_key",)

    public_key: PublicKey

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over this message.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            VersionNotSupported: Version 0; ask for 1 or 2.
        """
        scheme = G2MessageAugmentation if suite_of(version).augmented else G2ProofOfPossession
        data = BLSSignature(signature_bytes(signature, KeyType.BLS))
        if not scheme.Verify(BLSPubkey(self.public_key.data), message, data):
            raise wrong_signature(KeyType.BLS)

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        """Return when the proof of possession is this key's, for itself or for another one.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
        """
        data = BLSSignature(signature_bytes(proof, KeyType.BLS))
        key, signed = BLSPubkey(self.public_key.data), (other or self.public_key).data
        if not G2ProofOfPossession._CoreVerify(key, signed, data, G2ProofOfPossession.POP_TAG):  # noqa: SLF001 -- as above
            raise wrong_signature(KeyType.BLS)


class PyEccBls:
    """The curve."""

    key_type = KeyType.BLS
    known_answer = KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new private key."""
        return PrivateKey(KeyType.BLS, random_scalar(_ORDER))

    def open(self, private_key: PrivateKey) -> PyEccSigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, not 32 bytes, zero, or not below the group order.
        """
        return PyEccSigningKey(int.from_bytes(scalar_bytes(private_key, KeyType.BLS, _ORDER), "big"))

    def parse_public_key(self, data: bytes) -> PyEccVerifyingKey:
        """Return the key, ready to verify.

        Raises:
            InvalidPublicKey: Not 48 bytes, no compressed point of the prime-order group, or infinity.
        """
        _check_point(data)
        return PyEccVerifyingKey(PublicKey(KeyType.BLS, data))


def _check_point(data: bytes) -> None:
    check_public_key_size(data, KeyType.BLS)
    if not G2ProofOfPossession.KeyValidate(BLSPubkey(data)):
        raise InvalidPublicKey("not a public key of Bls: no compressed point of the prime-order group")


CURVE: Curve = PyEccBls()
