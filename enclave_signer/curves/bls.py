"""BLS12-381 signatures, keys in G1, by libblst: constant time, and side by side in threads.

- One signature takes about 0.35 ms, all of it outside the interpreter's lock.
- The hash of a message to the curve is half of that, and is kept for a while: it says nothing of a key.
- A key's scalar stays in memory of libblst's own kind; each signature has buffers of its own, so threads share nothing
  that changes.
"""

from functools import lru_cache

from enclave_signer.curves.base import (
    Curve,
    InvalidPublicKey,
    check_public_key_size,
    private_key_bytes,
    random_scalar,
    scalar_out_of_range,
    signature_bytes,
    wrong_signature,
)
from enclave_signer.curves.bls_suite import KNOWN_ANSWER, POSSESSION, PROOF, Suite, bls_public_key_bytes, suite_of
from enclave_signer.curves.blst import HASH_TO_CURVE, SUCCESS, CData, ffi, load
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

#: Source: draft-irtf-cfrg-pairing-friendly-curves-11, section 4.2.1.
ORDER = bytes.fromhex("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001")

#: Messages whose hashes to the curve are kept, half of a signature's time each: those of some blocks. All tz4 keys of a
#: baker sign the same bytes for a block.
KEPT_HASHES = 128
#: Of messages that may be so: an attestation has 79 bytes, one of data up to 212.
KEPT_MESSAGE_BYTES = 256

_blst = load()


class BlsSigningKey:
    """An opened BLS key."""

    __slots__ = ("_scalar", "public_key")

    public_key: PublicKey

    def __init__(self, scalar: CData) -> None:
        point, compressed = ffi.new("blst_p1 *"), ffi.new("uint8_t[48]")
        _blst.blst_sk_to_pk_in_g1(point, scalar)
        _blst.blst_p1_compress(compressed, point)
        self._scalar = scalar
        self.public_key = PublicKey(KeyType.BLS, ffi.buffer(compressed)[:])

    def __repr__(self) -> str:
        return "<opened Bls key>"

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign the message itself.

        Raises:
            VersionNotSupported: Version 0; ask for 1 or 2.
        """
        return self._sign(message, suite_of(version))

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        """Sign the key's own public key, or another one.

        Raises:
            InvalidPublicKey: The other one is no BLS key.
        """
        if other is not None:
            _affine_point(bls_public_key_bytes(other))
        return self._sign((other or self.public_key).data, PROOF)

    def _sign(self, message: bytes, suite: Suite) -> Signature:
        if suite is POSSESSION and len(message) <= KEPT_MESSAGE_BYTES:
            hashed = _kept_hash(message)
        else:
            hashed = _hash(message, suite, self.public_key.data if suite.augmented else b"")
        point, compressed = ffi.new("blst_p2 *"), ffi.new("uint8_t[96]")
        _blst.blst_sign_pk_in_g1(point, hashed, self._scalar)
        _blst.blst_p2_compress(compressed, point)
        return Signature(KeyType.BLS, ffi.buffer(compressed)[:])


class BlsVerifyingKey:
    """A parsed BLS public key."""

    __slots__ = ("point", "public_key")

    public_key: PublicKey

    def __init__(self, public_key: PublicKey, point: CData) -> None:
        self.public_key = public_key
        self.point = point

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over this message.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            VersionNotSupported: Version 0; ask for 1 or 2.
        """
        self._verify(signature, message, suite_of(version))

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        """Return when the proof of possession is this key's, for itself or for another one.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
        """
        self._verify(proof, (other or self.public_key).data, PROOF)

    def _verify(self, signature: Signature, message: bytes, suite: Suite) -> None:
        data = signature_bytes(signature, KeyType.BLS)
        point = ffi.new("blst_p2_affine *")
        if (
            _blst.blst_p2_uncompress(point, data) != SUCCESS
            or _blst.blst_p2_affine_is_inf(point)
            or self._core_verify(point, message, suite) != SUCCESS
        ):
            raise wrong_signature(KeyType.BLS)

    def _core_verify(self, point: CData, message: bytes, suite: Suite) -> int:
        tag, front = suite.tag, self.public_key.data if suite.augmented else b""
        return _blst.blst_core_verify_pk_in_g1(
            self.point, point, HASH_TO_CURVE, message, len(message), tag, len(tag), front, len(front)
        )


class Bls:
    """The curve."""

    key_type = KeyType.BLS
    known_answer = KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new private key."""
        return PrivateKey(KeyType.BLS, random_scalar(ORDER))

    def open(self, private_key: PrivateKey) -> BlsSigningKey:
        """Return the key, ready to sign; its public key is derived here, in 0.1 ms.

        Raises:
            InvalidPrivateKey: Another curve's key, not 32 bytes, zero, or not below the group order.
        """
        data = private_key_bytes(private_key, KeyType.BLS)
        scalar = ffi.new("blst_scalar *")
        _blst.blst_scalar_from_bendian(scalar, data)
        if not _blst.blst_sk_check(scalar):
            raise scalar_out_of_range(KeyType.BLS)
        return BlsSigningKey(scalar)

    def parse_public_key(self, data: bytes) -> BlsVerifyingKey:
        """Return the key, ready to verify.

        Raises:
            InvalidPublicKey: Not 48 bytes, no compressed point of the prime-order group, or infinity.
        """
        return BlsVerifyingKey(PublicKey(KeyType.BLS, data), _affine_point(data))


def _hash(message: bytes, suite: Suite, front: bytes = b"") -> CData:
    hashed = ffi.new("blst_p2 *")
    _blst.blst_hash_to_g2(hashed, message, len(message), suite.tag, len(suite.tag), front, len(front))
    return hashed


@lru_cache(KEPT_HASHES)
def _kept_hash(message: bytes) -> CData:
    return _hash(message, POSSESSION)


def _affine_point(data: bytes) -> CData:
    check_public_key_size(data, KeyType.BLS)
    point = ffi.new("blst_p1_affine *")
    if (
        _blst.blst_p1_uncompress(point, data) != SUCCESS
        or _blst.blst_p1_affine_is_inf(point)
        or not _blst.blst_p1_affine_in_g1(point)
    ):
        raise InvalidPublicKey("not a public key of Bls: no compressed point of the prime-order group")
    return point


CURVE: Curve = Bls()
