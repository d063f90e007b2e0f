"""Which key-encryption key (KEK) a stored blob is sealed under, by its header. Pure."""

from enclave_signer.protocol.blob import sealed_under
from enclave_signer.protocol.errors import BadBlob

#: Takes the place of the KEK's name where the header cannot be read.
UNREADABLE = "unreadable"


def kek_of(blob: bytes) -> str:
    """Return the name of a blob's KEK; `UNREADABLE` for one whose header cannot be read."""
    try:
        return sealed_under(blob)
    except BadBlob:
        return UNREADABLE
