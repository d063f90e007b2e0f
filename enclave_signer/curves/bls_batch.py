"""Whether several BLS signatures are all right, in two thirds of the time that one after the other takes.

- Each signature is multiplied by a weight of its own, 128 bits from the system's generator, and so is its key. If one
  is wrong, the batch passes only by chance, once in 2**128 times, whatever its maker knows of the other signatures.
- Every signature is a point of the prime-order group and not infinity, or none of them passes; keys are so once parsed.
- What does not pass together says nothing of any one: verify each by itself.

Source: blst's `blst_pairing_*`, with which consensus clients of Ethereum verify whole blocks in this way; the weights are
of https://ethresear.ch/t/fast-verification-of-multiple-bls-signatures/5407.
"""

import secrets
from collections.abc import Sequence

from enclave_signer.curves.base import CurveError, SignatureCheck, signature_bytes
from enclave_signer.curves.bls import BlsVerifyingKey
from enclave_signer.curves.bls_suite import AUGMENTATION, POSSESSION, Suite, suite_of
from enclave_signer.curves.blst import HASH_TO_CURVE, SUCCESS, CData, ffi, load
from enclave_signer.protocol.messages import KeyType

WEIGHT_BYTES = 16

_blst = load()
_CONTEXT_WORDS = -(-_blst.blst_pairing_sizeof() // 8)
# A context keeps a pointer to its tag.
_TAGS = {suite: ffi.new("uint8_t[]", suite.tag) for suite in (AUGMENTATION, POSSESSION)}


def all_verify(checks: Sequence[SignatureCheck]) -> bool:
    """Return whether all signatures are their keys'; False also when they cannot be verified together.

    Args:
        checks: At least one. Only keys of libblst under one suite can be verified together.
    """
    try:
        suites = {suite_of(check.version) for check in checks}
        if len(suites) != 1:
            return False
        suite = suites.pop()
        context = ffi.new("uint64_t[]", _CONTEXT_WORDS)
        _blst.blst_pairing_init(context, HASH_TO_CURVE, _TAGS[suite], len(suite.tag))
        if not all(_is_added(context, check, suite) for check in checks):
            return False
    except CurveError:
        return False
    _blst.blst_pairing_commit(context)
    return _blst.blst_pairing_finalverify(context, ffi.NULL)


def _is_added(context: CData, check: SignatureCheck, suite: Suite) -> bool:
    key, message = check.key, check.message
    if not isinstance(key, BlsVerifyingKey):
        return False
    point = ffi.new("blst_p2_affine *")
    if _blst.blst_p2_uncompress(point, signature_bytes(check.signature, KeyType.BLS)) != SUCCESS:
        return False
    if _blst.blst_p2_affine_is_inf(point):
        return False
    front = key.public_key.data if suite.augmented else b""
    weight = secrets.token_bytes(WEIGHT_BYTES)
    added = _blst.blst_pairing_chk_n_mul_n_aggr_pk_in_g1(
        *(context, key.point, False, point, True, weight, 8 * WEIGHT_BYTES, message, len(message), front, len(front))
    )
    return added == SUCCESS
