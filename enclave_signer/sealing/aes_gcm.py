"""AES-256-GCM over a private key, for sealers that hold the sealing key themselves; the blob's header is authenticated."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave_signer.errors import BlobCorrupt
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadMessage
from enclave_signer.protocol.messages import PrivateKey

#: What GCM is made for; random nonces are safe for 2^32 blobs of one key.
NONCE_BYTES = 12


def seal(cipher: AESGCM, header: bytes, private_key: PrivateKey) -> bytes:
    """Return a blob: header, nonce, ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    return header + nonce + cipher.encrypt(nonce, codec.encode_private_key(private_key), header)


def unseal(cipher: AESGCM, header: bytes, sealed: bytes) -> PrivateKey:
    """Return the key in what follows a blob's header.

    Raises:
        BlobCorrupt: It was not sealed so, under this key.
    """
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return codec.decode_private_key(cipher.decrypt(nonce, ciphertext, header))
    except (InvalidTag, ValueError, BadMessage):
        raise BlobCorrupt("blob corrupt: it does not open under the key it names") from None
