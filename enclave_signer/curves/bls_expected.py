"""A BLS verification in two halves, the first of which needs no signature: it is done while the signature is made.

- The first half hashes the message to the curve and pairs it with the key; the second half reads the signature, pairs
  it with the generator, and compares. Together they ask what `BlsVerifyingKey.verify` asks, and take 7 % longer.
- A signature is a point of the prime-order group and not infinity, or it does not pass; the key is so once parsed.

Source: blst's `blst_pairing_*`, as its `core_verify` uses them.
"""

from enclave_signer.curves.base import signature_bytes, wrong_signature
from enclave_signer.curves.bls import BlsVerifyingKey
from enclave_signer.curves.bls_batch import add, new_context, signature_point
from enclave_signer.curves.bls_suite import suite_of
from enclave_signer.curves.blst import CData, ffi, load
from enclave_signer.protocol.messages import KeyType, Signature, SigningVersion

_blst = load()
_VALUE_WORDS = -(-_blst.blst_fp12_sizeof() // 8)


class ExpectedSignature:
    """The signature that a key has to make of a message.

    Args:
        key: Makes it.
        message: Is signed.
        version: How; one that BLS has.
    """

    __slots__ = ("_context", "_key", "_message", "_version")

    def __init__(self, key: BlsVerifyingKey, message: bytes, version: SigningVersion) -> None:
        self._key = key
        self._message = message
        self._version = version
        self._context: CData | None = None

    def prepare(self) -> None:
        """Do the first half: 0.37 ms."""
        suite = suite_of(self._version)
        front = self._key.public_key.data if suite.augmented else b""
        context = new_context(suite)
        if add(context, self._key.point, ffi.NULL, self._message, front):
            _blst.blst_pairing_commit(context)
            self._context = context

    def verify(self, signature: Signature) -> None:
        """Return when it is that signature; does all of the work, if the first half was not done.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
        """
        if self._context is None:
            self._key.verify(signature, self._message, self._version)
            return
        data = signature_bytes(signature, KeyType.BLS)
        point = signature_point(data)
        if point is None:
            raise wrong_signature(KeyType.BLS)
        value = ffi.new("uint64_t[]", _VALUE_WORDS)
        _blst.blst_aggregated_in_g2(value, point)
        if not _blst.blst_pairing_finalverify(self._context, value):
            raise wrong_signature(KeyType.BLS)
