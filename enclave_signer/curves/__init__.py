"""Derive, sign and verify on the curves of Tezos: a door that the host may use as well.

`curve` loads the library of a curve when it is first asked for, so that programs which sign nothing start quickly.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from enclave_signer.curves.base import (
    Curve,
    CurveError,
    Expected,
    InvalidPrivateKey,
    InvalidPublicKey,
    InvalidSignature,
    ProofNotSupported,
    SignatureCheck,
    SigningKey,
    VerifyingKey,
    VersionNotSupported,
)
from enclave_signer.curves.known_answers import check_curve
from enclave_signer.protocol.key_types import KeyType, SigningVersion

__all__ = [
    "Curve",
    "CurveError",
    "Expected",
    "InvalidPrivateKey",
    "InvalidPublicKey",
    "InvalidSignature",
    "ProofNotSupported",
    "SignatureCheck",
    "SigningKey",
    "VerifyingKey",
    "VersionNotSupported",
    "curve",
    "expected_signature",
    "install_slow_bls",
    "self_test",
    "verify_each",
]

logger = logging.getLogger(__name__)

_SLOW_BLS = "bls_py_ecc"

_loaded: dict[KeyType, Curve] = {}


def curve(key_type: KeyType) -> Curve:
    """Return a curve, ready to use.

    Raises:
        CurveError: Its library is missing or not the one it should be; the text says what to install.
    """
    found = _loaded.get(key_type)
    if found is None:
        found = _loaded[key_type] = _load(key_type.facts.name)
    return found


def verify_each(checks: Sequence[SignatureCheck]) -> list[CurveError | None]:
    """Return of each signature why it is wrong; None of those that are right. BLS verifies several faster together."""
    if len(checks) > 1 and all(_is_of_libblst(check.key) for check in checks):
        from enclave_signer.curves.bls_batch import all_verify  # noqa: PLC0415 -- loads libblst

        if all_verify(checks):
            return [None] * len(checks)
    return [_why_wrong(check) for check in checks]


def expected_signature(key: VerifyingKey, message: bytes, version: SigningVersion) -> Expected | None:
    """Return the verification of a signature that is still to be made; None where no part of it can be done before.

    Args:
        key: Makes it.
        message: Is signed.
        version: How; one that the curve has.
    """
    if not _is_of_libblst(key):
        return None
    from enclave_signer.curves.bls import BlsVerifyingKey  # noqa: PLC0415 -- loads libblst
    from enclave_signer.curves.bls_expected import ExpectedSignature  # noqa: PLC0415 -- as above

    return ExpectedSignature(key, message, version) if isinstance(key, BlsVerifyingKey) else None


def _is_of_libblst(key: VerifyingKey) -> bool:
    slow = type(_loaded.get(KeyType.BLS)).__module__.endswith(_SLOW_BLS)
    return not slow and key.public_key.key_type is KeyType.BLS


def _why_wrong(check: SignatureCheck) -> CurveError | None:
    try:
        check.verify()
    except CurveError as error:
        return error
    return None


def self_test() -> None:
    """Return when every curve loads and gives its known answers; takes some 10 ms once the libraries are loaded.

    Raises:
        CurveError: One does not: sign nothing, and do what the text says.
    """
    for key_type in KeyType:
        check_curve(key_type, curve(key_type))


def install_slow_bls() -> None:
    """Sign BLS with py_ecc from now on, 400 times slower and not in constant time; keys opened before stay as they are.

    Call it before anything is served, where no ckzg wheel can be had.

    Raises:
        CurveError: py_ecc is not installed; install the extra `slow-bls`.
    """
    recursion_limit = sys.getrecursionlimit()
    try:
        slow = _load(_SLOW_BLS)
    except ImportError as error:
        raise CurveError("py_ecc is missing: install the extra slow-bls, or use libblst") from error
    finally:
        # py_ecc raises it a hundredfold when it is imported, at which deeply nested input would end the process.
        sys.setrecursionlimit(recursion_limit)
    logger.warning("BLS signs with py_ecc: not constant time, not audited, 0.15 s a signature; not for keys of value")
    _loaded[KeyType.BLS] = slow


def _load(name: str) -> Curve:
    """Load the curve that a module of this package calls `CURVE`; the module bears the curve's name."""
    loaded: Curve = import_module(f"{__name__}.{name}").CURVE
    return loaded
