"""Consensus messages of a world's bakers, and the keys that they are asked of."""

import struct
from dataclasses import dataclass

from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey
from enclave_signer.tezos import Kind, encode, public_key_hash
from tests.doubles.known_keys import CHAIN, block
from tests.worlds.curves import public_bytes
from tests.worlds.judge import Meaning

RIGHTS = ("block", "preattestation", "attestation")
CHAINS = (CHAIN, 0x11223344)
CHAIN_IDS = tuple(encode(Kind.CHAIN_ID, chain.to_bytes(4, "big")) for chain in CHAINS)
_VOTE = struct.Struct(">BI32sBii32s")
_VOTES = {"preattestation": (0x12, 40), "attestation": (0x13, 41)}


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its public half, its hash, and the private half of those that a world begins with."""

    public_bytes: bytes
    pkh: str
    private_key: PrivateKey | None = None


def _key(number: int) -> Key:
    seed = bytes([number]) * 32
    public = public_bytes(seed)
    pkh = public_key_hash(PublicKey(KeyType.ED25519, public))
    return Key(public, pkh, PrivateKey(KeyType.ED25519, seed))


KEYS = tuple(_key(number) for number in range(1, 4))


def message_of(meaning: Meaning, payload: int) -> bytes:
    """Return a message that uses up a right; another one for another payload."""
    hashed = payload.to_bytes(32, "big")
    if meaning.right == "block":
        return block(meaning.level, payload=hashed, chain=meaning.chain)
    magic, tag = _VOTES[meaning.right]
    return _VOTE.pack(magic, meaning.chain, b"\x11" * 32, tag, meaning.level, meaning.round, hashed)
