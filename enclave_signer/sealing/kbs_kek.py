"""The key-encryption key (KEK) that a key broker releases: what it must be, and the sealing key that comes of it.

Whoever answers a request can choose what to encrypt to us. So the image says which key it expects, by a commitment that
gives nothing away of it, and refuses every other one.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enclave_signer.errors import SealingRefused
from enclave_signer.sealing.kbs_config import KbsKey

#: AES-256.
KEK_BYTES = 32
_COMMITMENT_TAG = b"enclave-signer kek commitment v1\0"
_SEALING_INFO = b"enclave-signer kbs sealing key v1"


def commitment(kek: bytes) -> str:
    """Return what an image names a KEK by: 64 hexadecimal digits."""
    return hashlib.sha256(_COMMITMENT_TAG + kek).hexdigest()


def sealing_key(key: KbsKey, kek: bytes) -> bytes:
    """Return the key that seals, 32 bytes; the KEK itself encrypts nothing.

    Args:
        key: What was asked for.
        kek: What was released.

    Raises:
        SealingRefused: It is another one; the text says what to do.
    """
    return HKDF(SHA256(), KEK_BYTES, salt=None, info=_SEALING_INFO).derive(checked(key, kek))


def checked(key: KbsKey, kek: bytes) -> bytes:
    """Return a KEK, 32 bytes, that is the one that was asked for.

    Args:
        key: What was asked for.
        kek: What was released.

    Raises:
        SealingRefused: It is another one; the text says what to do.
    """
    if len(kek) != KEK_BYTES:
        raise SealingRefused(
            f"the resource {key.resource} of the key broker has {len(kek)} bytes, a key has {KEK_BYTES}: "
            "upload the bytes themselves, not their base64 or hexadecimal text"
        )
    if not hmac.compare_digest(commitment(kek), key.commitment):
        raise SealingRefused(
            f"the resource {key.resource} of the key broker is not the key that this image commits to: it was "
            "replaced, or somebody else answers: restore it, or correct the commitment in the image"
        )
    return kek
