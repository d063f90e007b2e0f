"""A key-encryption key (KEK) in a file, sealed: the sealer seals a key made for that file alone, which encrypts the KEK.

    {"version":1,"id":"…","blob":"<base64>","nonce":"<base64>","kek":"<base64>"}

- A sealer seals private keys of Tezos and nothing else. So it gets a new Ed25519 seed that nothing is ever signed with, and
  AES-256-GCM under a key derived from it holds the KEK, with the id as additional data.
- So a KEK's file gives a signer no key of value, and no blob of a signing key is ever a KEK.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enclave_signer.errors import BlobCorrupt
from enclave_signer.keyprovider.errors import BadRequest
from enclave_signer.keyprovider.packets import KEK_BYTES, MAX_KEY_ID_CHARS, NONCE_BYTES, TAG_BYTES
from enclave_signer.keyprovider.strict_json import encode_bytes, read_bytes, read_object, text, write_object
from enclave_signer.new_file import write_new_file
from enclave_signer.protocol.messages import MAX_BLOB_BYTES

VERSION = 1
#: Bytes of such a file: the blob in base64, and its other members.
MAX_FILE_BYTES = 2 * MAX_BLOB_BYTES + 4096
_INFO = b"enclave-signer keyprovider kek v1"


@dataclass(frozen=True, slots=True)
class KekFile:
    """The content of such a file.

    Attributes:
        key_id: Of the KEK.
        blob: The sealed seed.
        nonce: Of AES-GCM.
        sealed: The KEK, encrypted.
    """

    key_id: str
    blob: bytes = field(repr=False)
    nonce: bytes
    sealed: bytes = field(repr=False)


def encrypt(key_id: str, kek: bytes, seed: bytes, blob: bytes) -> KekFile:
    """Return a KEK for its file.

    Args:
        key_id: Of the KEK.
        kek: 32 bytes.
        seed: New and random.
        blob: The seed, sealed.
    """
    nonce = os.urandom(NONCE_BYTES)
    return KekFile(key_id, blob, nonce, AESGCM(_derived(seed)).encrypt(nonce, kek, key_id.encode()))


def decrypt(file: KekFile, seed: bytes) -> bytes:
    """Return the KEK of a file.

    Raises:
        BlobCorrupt: The seed is not of this file, or the file was altered.
    """
    try:
        return AESGCM(_derived(seed)).decrypt(file.nonce, file.sealed, file.key_id.encode())
    except InvalidTag:
        raise BlobCorrupt("blob corrupt: the file of the key was altered, or holds the blob of another key") from None


def _derived(seed: bytes) -> bytes:
    return HKDF(SHA256(), KEK_BYTES, salt=None, info=_INFO).derive(seed)


def parse(data: bytes) -> KekFile:
    """Return what the bytes of a file say.

    Raises:
        BlobCorrupt: They are not such a file.
    """
    try:
        file = _parsed(read_object(data, "the file"))
    except BadRequest as error:
        raise BlobCorrupt(f"blob corrupt: {error}") from None
    if len(file.nonce) != NONCE_BYTES or len(file.sealed) != KEK_BYTES + TAG_BYTES:
        raise BlobCorrupt("blob corrupt: the file of the key was cut short")
    return file


def _parsed(entries: Mapping[str, object]) -> KekFile:
    if entries.get("version") != VERSION:
        raise BadRequest(f"the file must be of version {VERSION}")
    return KekFile(
        text(entries.get("id"), "id", MAX_KEY_ID_CHARS),
        read_bytes(entries.get("blob"), "blob", MAX_BLOB_BYTES),
        read_bytes(entries.get("nonce"), "nonce", NONCE_BYTES),
        read_bytes(entries.get("kek"), "kek", KEK_BYTES + TAG_BYTES),
    )


def encode(file: KekFile) -> bytes:
    """Return the bytes of a file."""
    return write_object(
        {
            "version": VERSION,
            "id": file.key_id,
            "blob": encode_bytes(file.blob),
            "nonce": encode_bytes(file.nonce),
            "kek": encode_bytes(file.sealed),
        }
    )


def read(path: Path) -> KekFile:
    """Return what a file says.

    Raises:
        BlobCorrupt: It is not one of a KEK.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    return parse(data)


def write_new(path: Path, file: KekFile) -> None:
    """Make a file, whole and durable before it has its name; never in place of another one.

    Raises:
        FileExistsError: There is a file of that name.
        OSError: It cannot be made.
    """
    write_new_file(path, encode(file))
