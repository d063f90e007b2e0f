"""Hashes of keys that no one has, as many as are wanted."""

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import public_key_hash


def many_hashes(count: int) -> list[str]:
    """Return different tz1 hashes, the same ones every time."""
    return [public_key_hash(PublicKey(KeyType.ED25519, number.to_bytes(32, "big"))) for number in range(count)]
