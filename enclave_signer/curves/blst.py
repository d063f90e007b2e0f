"""libblst, found inside the wheel of `ckzg`.

- No wheel offers libblst alone; ckzg's extension module exports it, by accident rather than by promise. So every function
  is looked up, and every size compared, before the first use; `known_answers` then checks what it computes.
- Each call releases the interpreter's lock. None keeps a pointer that it was given, but for the tag of
  `blst_pairing_init`.
- Every pointer goes in unchecked: only `bls`, `bls_batch` and `bls_expected` call these functions, and check sizes first.

Source: `blst.h` of libblst 0.3.16; `build_blst.py` has the declarations.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NewType, Protocol

from enclave_signer.curves import _blst
from enclave_signer.curves.base import CurveError

#: A C structure or array in memory of its own.
CData = NewType("CData", object)

#: `BLST_ERROR` when nothing is wrong.
SUCCESS = 0
#: Asks for the hash to the curve that the signature suites use; 0 would be the non-uniform encoding.
HASH_TO_CURVE = 1

_REMEDY = "install the ckzg wheel in the version that requirements.txt names; other builds may hide libblst"


class Buffer(Protocol):
    """The bytes of a C array."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Copy a part of them."""
        ...


class Library(Protocol):
    """The functions that are used; names and order of arguments are libblst's."""

    def blst_p1_sizeof(self) -> int:
        """Bytes of `blst_p1`."""
        ...

    def blst_p1_affine_sizeof(self) -> int:
        """Bytes of `blst_p1_affine`."""
        ...

    def blst_p2_sizeof(self) -> int:
        """Bytes of `blst_p2`."""
        ...

    def blst_p2_affine_sizeof(self) -> int:
        """Bytes of `blst_p2_affine`."""
        ...

    def blst_scalar_from_bendian(self, out: CData, data: bytes, /) -> None:
        """Read 32 bytes."""
        ...

    def blst_sk_check(self, scalar: CData, /) -> bool:
        """Whether it is above zero and below the group order."""
        ...

    def blst_sk_to_pk_in_g1(self, out: CData, scalar: CData, /) -> None:
        """Derive the public key."""
        ...

    def blst_hash_to_g2(
        self, out: CData, message: bytes, size: int, tag: bytes, tag_size: int, front: bytes, front_size: int, /
    ) -> None:
        """Hash `front` and the message to a point."""
        ...

    def blst_sign_pk_in_g1(self, out: CData, hashed: CData, scalar: CData, /) -> None:
        """Sign a hashed message."""
        ...

    def blst_p1_compress(self, out: CData, point: CData, /) -> None:
        """Write 48 bytes."""
        ...

    def blst_p2_compress(self, out: CData, point: CData, /) -> None:
        """Write 96 bytes."""
        ...

    def blst_p1_uncompress(self, out: CData, data: bytes, /) -> int:
        """Read 48 bytes; the point is on the curve but maybe outside the group."""
        ...

    def blst_p2_uncompress(self, out: CData, data: bytes, /) -> int:
        """Read 96 bytes; the point is on the curve but maybe outside the group."""
        ...

    def blst_p1_affine_is_inf(self, point: CData, /) -> bool:
        """Whether it is the point at infinity."""
        ...

    def blst_p2_affine_is_inf(self, point: CData, /) -> bool:
        """Whether it is the point at infinity."""
        ...

    def blst_p1_affine_in_g1(self, point: CData, /) -> bool:
        """Whether it is in the prime-order group."""
        ...

    def blst_p2_affine_in_g2(self, point: CData, /) -> bool:
        """Whether it is in the prime-order group."""
        ...

    def blst_core_verify_pk_in_g1(
        self,
        public_key: CData,
        signature: CData,
        hash_or_encode: int,
        message: bytes,
        size: int,
        tag: bytes,
        tag_size: int,
        front: bytes,
        front_size: int,
        /,
    ) -> int:
        """Check that both points are in their groups, and the signature."""
        ...

    def blst_p1_to_affine(self, out: CData, point: CData, /) -> None:
        """Write it without its third coordinate."""
        ...

    def blst_p2_to_affine(self, out: CData, point: CData, /) -> None:
        """Write it without its third coordinate."""
        ...

    def blst_p1s_mult_pippenger_scratch_sizeof(self, count: int, /) -> int:
        """Bytes that summing so many points needs."""
        ...

    def blst_p2s_mult_pippenger_scratch_sizeof(self, count: int, /) -> int:
        """Bytes that summing so many points needs."""
        ...

    def blst_p1s_mult_pippenger(
        self, out: CData, points: CData, count: int, scalars: CData, bits: int, scratch: CData, /
    ) -> None:
        """Sum two points or more, each times its scalar, little-endian; not in constant time."""
        ...

    def blst_p2s_mult_pippenger(
        self, out: CData, points: CData, count: int, scalars: CData, bits: int, scratch: CData, /
    ) -> None:
        """Sum two points or more, each times its scalar, little-endian; not in constant time."""
        ...

    def blst_pairing_sizeof(self) -> int:
        """Bytes of a context."""
        ...

    def blst_pairing_init(self, context: CData, hash_or_encode: int, tag: CData, tag_size: int, /) -> None:
        """Begin; the context keeps the pointer to the tag."""
        ...

    def blst_pairing_chk_n_mul_n_aggr_pk_in_g1(
        self,
        context: CData,
        public_key: CData,
        check_key: bool,  # noqa: FBT001 -- as in C
        signature: CData,
        check_signature: bool,  # noqa: FBT001 -- as in C
        weight: bytes,
        weight_bits: int,
        message: bytes,
        size: int,
        front: bytes,
        front_size: int,
        /,
    ) -> int:
        """Add a signature, its weight little-endian; checks the points' groups first, as the flags say."""
        ...

    def blst_fp12_sizeof(self) -> int:
        """Bytes of a pairing's value."""
        ...

    def blst_aggregated_in_g2(self, out: CData, signature: CData, /) -> None:
        """Pair a signature with the generator; its group is not checked."""
        ...

    def blst_pairing_commit(self, context: CData, /) -> None:
        """End adding."""
        ...

    def blst_pairing_finalverify(self, context: CData, aggregated: CData, /) -> bool:
        """Whether all that was added is right; NULL: nothing was aggregated elsewhere."""
        ...


class Ffi(Protocol):
    """The part of cffi that is used."""

    error: type[Exception]
    NULL: CData

    def new(self, declaration: str, contents: bytes | int | Sequence[CData] = ..., /) -> CData:
        """Return new memory: all zero, or with these bytes; of an array, as many items."""
        ...

    def buffer(self, data: CData, /) -> Buffer:
        """Return a view."""
        ...

    def sizeof(self, declaration: str, /) -> int:
        """Return the size that `_blst.py` declares."""
        ...

    def dlopen(self, path: str, /) -> Library:
        """Load a library."""
        ...


ffi: Ffi = _blst.ffi


def load(path: str | None = None) -> Library:
    """Return the library, with every function looked up and every size compared.

    Args:
        path: The shared object; None finds the extension module of ckzg, and does not import it.

    Raises:
        CurveError: It is missing, lacks a function, or has other sizes; the text says what to install.
    """
    path = path or _find()
    try:
        library = ffi.dlopen(path)
    except OSError as error:
        raise CurveError(f"cannot load libblst from {path} ({error}): {_REMEDY}") from error
    for name in dir(library):
        try:
            getattr(library, name)
        except (AttributeError, ffi.error):
            raise CurveError(f"{path} does not export {name}: {_REMEDY}") from None
    check_sizes(library)
    return library


def check_sizes(library: Library) -> None:
    """Return when the library's structures are as large as `_blst.py` declares them.

    Raises:
        CurveError: They are not, and a call would write beyond them; the text says what to install.
    """
    sizes = {
        "blst_p1": library.blst_p1_sizeof(),
        "blst_p1_affine": library.blst_p1_affine_sizeof(),
        "blst_p2": library.blst_p2_sizeof(),
        "blst_p2_affine": library.blst_p2_affine_sizeof(),
    }
    for name, size in sizes.items():
        if size != ffi.sizeof(name):
            raise CurveError(f"libblst has {size} bytes in {name}, not {ffi.sizeof(name)}: {_REMEDY}")


def _find() -> str:
    spec = find_spec("ckzg")
    if spec is None or spec.origin is None:
        raise CurveError(f"libblst is missing, for the package ckzg is not installed: {_REMEDY}")
    return spec.origin
