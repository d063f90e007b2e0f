"""Our blob: a header that names the sealed key, the sealer and its key, then the ciphertext.

    magic "TKSB" | format version 1 | header length, u16 big-endian | header | ciphertext

The header is the CBOR map `{"sealer", "kek", "key_type", "public_key"}`. All bytes before the ciphertext are its
additional authenticated data, so a changed label does not open. What stands in a header is a claim until the
ciphertext has opened under it and gave the public key it names.
"""

import struct
from dataclasses import dataclass

from enclave_signer.protocol import cbor, values
from enclave_signer.protocol.errors import BadBlob, BadMessage, UnknownBlobFormat
from enclave_signer.protocol.messages import MAX_BLOB_BYTES, PublicKey

MAGIC = b"TKSB"
FORMAT_VERSION = 1

#: What stands for the key-encryption key of blobs that name none.
LEGACY = "legacy"

_PREFIX = struct.Struct(">4sBH")
_FIELDS = frozenset({"sealer", "kek", "key_type", "public_key"})
#: Names of KMS keys are a few hundred characters at most.
_MAX_NAME_CHARS = 1024


@dataclass(frozen=True, slots=True)
class BlobHeader:
    """What a blob says of itself: the sealer, its key-encryption key (KEK), and the public key of what it holds."""

    sealer: str
    kek: str
    public_key: PublicKey

    def encode(self) -> bytes:
        """Return everything that stands before the ciphertext: the additional authenticated data."""
        header = cbor.encode(
            {
                "sealer": self.sealer,
                "kek": self.kek,
                "key_type": self.public_key.key_type.value,
                "public_key": self.public_key.data,
            }
        )
        return _PREFIX.pack(MAGIC, FORMAT_VERSION, len(header)) + header


def is_ours(blob: bytes) -> bool:
    """Tell whether a blob begins as ours do; tee-signer's are the bare ciphertext of its key management service."""
    return blob.startswith(MAGIC)


def sealed_under(blob: bytes) -> str:
    """Return the key-encryption key that a blob names; `LEGACY` for one that does not begin as ours do.

    Raises:
        BadBlob: As `parse_blob` says.
        UnknownBlobFormat: Of another format version.
    """
    return parse_blob(blob)[0].kek if is_ours(blob) else LEGACY


def parse_blob(blob: bytes) -> tuple[BlobHeader, bytes, bytes]:
    """Return a blob's header, its authenticated bytes and its ciphertext.

    Raises:
        BadBlob: Not a blob of ours, truncated or altered before the ciphertext.
        UnknownBlobFormat: Of another format version.
    """
    if len(blob) > MAX_BLOB_BYTES:
        raise BadBlob(f"blob corrupt: {len(blob)} bytes, the limit is {MAX_BLOB_BYTES}")
    if len(blob) < _PREFIX.size or not is_ours(blob):
        raise BadBlob("blob corrupt: not a blob of this sealer (its first bytes are not TKSB)")
    _, version, length = _PREFIX.unpack_from(blob)
    if version != FORMAT_VERSION:
        raise UnknownBlobFormat(f"blob of format {version}, this image knows format {FORMAT_VERSION}")
    end = _PREFIX.size + length
    if len(blob) <= end:
        raise BadBlob("blob corrupt: truncated")
    header = _parse_header(blob[_PREFIX.size : end])
    if header.encode() != blob[:end]:
        raise BadBlob("blob corrupt: its header is not in the one form it may have")
    return header, blob[:end], blob[end:]


def _parse_header(data: bytes) -> BlobHeader:
    try:
        entries = cbor.fields(cbor.decode(data, max_depth=2), "a blob's header", _FIELDS)
        key_type = values.key_type(entries["key_type"])
        public_key = cbor.sized_bytes(entries["public_key"], "public_key", key_type.facts.public_key_bytes)
        return BlobHeader(
            sealer=cbor.text(entries["sealer"], "sealer", _MAX_NAME_CHARS),
            kek=cbor.text(entries["kek"], "kek", _MAX_NAME_CHARS),
            public_key=PublicKey(key_type, public_key),
        )
    except (BadMessage, ValueError):
        raise BadBlob("blob corrupt: its header cannot be read") from None
