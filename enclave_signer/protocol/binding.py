"""What a proof is bound to: the nonce of an attestation token, and what the attested key signs about one connection.

- Everything that matters is in one hash, each part behind its length: no two lists of parts give the same bytes.
- What the parts are for is the first of them: a token that was made to be shown proves no channel.
- The token names the key of both ends. Only the attested key's signature names the connection: it covers the keying
  material that TLS exports, which no one in the middle has in common with both ends.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from enclave_signer.protocol.messages import PublicKey, Purpose

#: What TLS is asked for. Source: RFC 9266, whose label it is, with an empty context.
EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
EXPORTER_BYTES = 32

_NONCE_TAG = b"enclave-signer attestation nonce 1"
_CHANNEL_TAG = b"enclave-signer attested channel 1"
_INVENTORY_TAG = b"enclave-signer key inventory 1"
#: Who proves: so that no proof can be turned around.
_ENCLAVE_ROLE = b"enclave"
_KEY_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Channel:
    """One TLS connection, as both of its ends see it.

    Attributes:
        enclave_key: The key in the enclave's certificate, as the DER of its SubjectPublicKeyInfo.
        client_key: The same, of the client's certificate.
        exported: `EXPORTER_BYTES` that TLS exports on this connection under `EXPORTER_LABEL`.
    """

    enclave_key: bytes
    client_key: bytes
    exported: bytes = field(repr=False)


#: In place of a channel where there is none: a token that is only shown is bound to no connection.
NO_CHANNEL = Channel(b"", b"", b"")


def token_nonce(purpose: Purpose, nonce: bytes, channel: Channel, attested_key: bytes, inventory: bytes) -> str:
    """Return the value that an attestation token must have as its nonce: 64 hexadecimal digits.

    Args:
        purpose: What the token was asked for.
        nonce: The asker's, 32 bytes.
        channel: What it was asked on; the keys of both ends count, not the connection.
        attested_key: The Ed25519 key, 32 bytes, that the enclave made at its start and signs channels with.
        inventory: As `inventory_digest` gives it.
    """
    parts = (purpose.encode(), _ENCLAVE_ROLE, nonce, channel.enclave_key, channel.client_key, attested_key, inventory)
    return _digest(_NONCE_TAG, parts).hex()


def channel_statement(nonce: bytes, channel: Channel, attested_key: bytes) -> bytes:
    """Return what the attested key signs to say that a connection ends at its process.

    Args:
        nonce: The asker's, 32 bytes.
        channel: The connection.
        attested_key: The key itself.
    """
    parts = (_ENCLAVE_ROLE, nonce, channel.enclave_key, channel.client_key, channel.exported, attested_key)
    return _CHANNEL_TAG + _digest(_CHANNEL_TAG, parts)


def inventory_digest(public_keys: Iterable[PublicKey]) -> bytes:
    """Return the digest of the keys that a process has open: 32 bytes, over each key once, in the order of their bytes."""
    keys = sorted({b"%s %s" % (key.key_type.value.encode(), key.data) for key in public_keys})
    return _digest(_INVENTORY_TAG, keys)


def key_digest(public_key: bytes) -> str:
    """Return how configurations name a TLS key: SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits."""
    return hashlib.sha256(public_key).hexdigest()


def is_key_digest(text: str) -> bool:
    """Whether a text is what `key_digest` could return."""
    return _KEY_DIGEST.fullmatch(text) is not None


def _digest(tag: bytes, parts: Iterable[bytes]) -> bytes:
    parts = (tag, *parts)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
