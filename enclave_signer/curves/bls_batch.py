"""Whether several BLS signatures are all right, in less than two thirds of the time that one after the other takes.

- Each signature is multiplied by a weight of its own, 128 bits from the system's generator, and so is its key. If one
  is wrong, the batch passes only by chance, once in 2**128 times, whatever its maker knows of the other signatures.
- Every signature is a point of the prime-order group and not infinity, or none of them passes; keys are so once parsed.
- Signatures of one message share its hash and its pairing, with the sum of their weighted keys: all tz4 keys of a baker
  sign the same bytes for a block.
- What does not pass together says nothing of any one: verify each by itself.

Source: blst's `blst_pairing_*`, with which consensus clients of Ethereum verify whole blocks in this way; the weights are
of https://ethresear.ch/t/fast-verification-of-multiple-bls-signatures/5407.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enclave_signer.curves.base import CurveError, SignatureCheck, signature_bytes
from enclave_signer.curves.bls import BlsVerifyingKey
from enclave_signer.curves.bls_suite import AUGMENTATION, POSSESSION, Suite, suite_of
from enclave_signer.curves.blst import HASH_TO_CURVE, SUCCESS, CData, ffi, load
from enclave_signer.protocol.messages import KeyType

WEIGHT_BYTES = 16
#: The bit of the first byte of a compressed point that stands for infinity; without it no bytes do. To look at it here saves
#: a call, after each of which a thread waits for the interpreter's lock. Source: draft-irtf-cfrg-pairing-friendly-curves-11,
#: appendix C.
INFINITY = 0x40

_blst = load()
_CONTEXT_WORDS = -(-_blst.blst_pairing_sizeof() // 8)
# A context keeps a pointer to its tag.
_TAGS = {suite: ffi.new("uint8_t[]", suite.tag) for suite in (AUGMENTATION, POSSESSION)}


@dataclass(frozen=True, slots=True)
class _Arithmetic:
    """What libblst has for the points of one group; the arguments are those of `Library`."""

    point: str
    scratch_bytes: Callable[[int], int]
    add_up: Callable[[CData, CData, int, CData, int, CData], None]
    to_affine: Callable[[CData, CData], None]


_G1 = _Arithmetic(
    "blst_p1", _blst.blst_p1s_mult_pippenger_scratch_sizeof, _blst.blst_p1s_mult_pippenger, _blst.blst_p1_to_affine
)
_G2 = _Arithmetic(
    "blst_p2", _blst.blst_p2s_mult_pippenger_scratch_sizeof, _blst.blst_p2s_mult_pippenger, _blst.blst_p2_to_affine
)


class _Group:
    """The signatures of one message, and the keys that made them; `front` is hashed before the message."""

    __slots__ = ("front", "keys", "message", "signatures")

    def __init__(self, front: bytes, message: bytes) -> None:
        self.front = front
        self.message = message
        self.keys: list[CData] = []
        self.signatures: list[bytes] = []


def all_verify(checks: Sequence[SignatureCheck]) -> bool:
    """Return whether all signatures are their keys'; False also when they cannot be verified together.

    Args:
        checks: At least two. Only keys of libblst under one suite can be verified together.
    """
    try:
        suites = {suite_of(check.version) for check in checks}
        if len(checks) == 1 or len(suites) != 1:
            return False
        suite = suites.pop()
        groups = _by_message(checks, augmented=suite.augmented)
    except CurveError:
        return False
    points = _points([signature for group in groups for signature in group.signatures])
    if points is None:
        return False
    context = new_context(suite)
    weights = secrets.token_bytes(WEIGHT_BYTES * len(points))
    if not add(context, ffi.NULL, _sum(_G2, points, weights)):
        return False
    for group in groups:
        size = WEIGHT_BYTES * len(group.keys)
        own, weights = weights[:size], weights[size:]
        if len(group.keys) == 1:
            added = add(context, group.keys[0], ffi.NULL, group.message, group.front, own)
        else:
            added = add(context, _sum(_G1, group.keys, own), ffi.NULL, group.message, group.front)
        if not added:
            return False
    _blst.blst_pairing_commit(context)
    return _blst.blst_pairing_finalverify(context, ffi.NULL)


def new_context(suite: Suite) -> CData:
    """Return a new context of blst's `blst_pairing_*`, for signatures of a suite."""
    context = ffi.new("uint64_t[]", _CONTEXT_WORDS)
    _blst.blst_pairing_init(context, HASH_TO_CURVE, _TAGS[suite], len(suite.tag))
    return context


def _by_message(checks: Sequence[SignatureCheck], *, augmented: bool) -> list[_Group]:
    groups: dict[tuple[bytes, bytes], _Group] = {}
    for check in checks:
        key = check.key
        if not isinstance(key, BlsVerifyingKey):
            raise CurveError("a key of another library")
        hashed = (key.public_key.data if augmented else b"", check.message)
        group = groups.get(hashed)
        if group is None:
            group = groups[hashed] = _Group(*hashed)
        group.keys.append(key.point)
        group.signatures.append(signature_bytes(check.signature, KeyType.BLS))
    return list(groups.values())


def _points(signatures: Sequence[bytes]) -> list[CData] | None:
    """Return the points that signatures are; None if one of them is none."""
    points = []
    for signature in signatures:
        point = signature_point(signature)
        if point is None:
            return None
        points.append(point)
    return points


def signature_point(signature: bytes) -> CData | None:
    """Return the point that a signature is; None if it is infinity, or not of the prime-order group.

    Args:
        signature: 96 bytes.
    """
    point = ffi.new("blst_p2_affine *")
    if (
        signature[0] & INFINITY
        or _blst.blst_p2_uncompress(point, signature) != SUCCESS
        or not _blst.blst_p2_affine_in_g2(point)
    ):
        return None
    return point


def add(
    context: CData, key: CData, signature: CData, message: bytes = b"", front: bytes = b"", weight: bytes = b""
) -> bool:
    """Add a key with what it signed, or a signature; either may be NULL. A weight is of the key."""
    added = _blst.blst_pairing_chk_n_mul_n_aggr_pk_in_g1(
        *(context, key, False, signature, False, weight, 8 * len(weight), message, len(message), front, len(front))
    )
    return added == SUCCESS


def _sum(group: _Arithmetic, points: Sequence[CData], weights: bytes) -> CData:
    """Return the sum of two points or more, each times its weight."""
    total, affine = ffi.new(f"{group.point} *"), ffi.new(f"{group.point}_affine *")
    scratch = ffi.new("uint64_t[]", group.scratch_bytes(len(points)) // 8)
    # Without a pointer of its own, each weight follows the one before.
    listed, first = ffi.new(f"{group.point}_affine *[]", points), ffi.new("uint8_t[]", weights)
    starts = ffi.new("uint8_t *[]", [first, ffi.NULL])
    group.add_up(total, listed, len(points), starts, 8 * WEIGHT_BYTES, scratch)
    group.to_affine(affine, total)
    return affine
