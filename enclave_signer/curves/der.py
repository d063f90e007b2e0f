"""ECDSA signatures in their two forms: r and s, 32 bytes each, and the DER that libraries speak."""

from enclave_signer.curves.base import SCALAR_BYTES


def to_der(raw: bytes) -> bytes:
    """Return the DER form of a signature.

    Args:
        raw: r and s, big-endian, 64 bytes; any values.
    """
    r, s = _integer(raw[:SCALAR_BYTES]), _integer(raw[SCALAR_BYTES:])
    return bytes((0x30, len(r) + len(s))) + r + s


def from_der(der: bytes) -> bytes:
    """Return r and s, 64 bytes, big-endian.

    Args:
        der: What a library of ours signed; nothing that a peer sent, for its form is not checked.
    """
    r_end = 4 + der[3]
    return _scalar(der[4:r_end]) + _scalar(der[r_end + 2 :])


def _integer(scalar: bytes) -> bytes:
    digits = scalar.lstrip(b"\0")
    if not digits or digits[0] >= 0x80:  # DER numbers have a sign, and at least one byte
        digits = b"\0" + digits
    return bytes((0x02, len(digits))) + digits


def _scalar(digits: bytes) -> bytes:
    return digits[-SCALAR_BYTES:].rjust(SCALAR_BYTES, b"\0")
