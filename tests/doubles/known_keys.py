"""Public test keys of the vectors, and messages that keys are asked to sign."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2

from enclave_signer.protocol.messages import KeyType
from enclave_signer.tezos import parse_secret_key

VECTORS = Path(__file__).parents[1] / "vectors"
SIGNATORY: dict[str, Any] = json.loads((VECTORS / "signatory-vectors.json").read_text())
PAYLOADS: dict[str, bytes] = {item["id"]: bytes.fromhex(item["hex"]) for item in SIGNATORY["payloads"]}

_CURVES = {"ed25519": KeyType.ED25519, "secp256k1": KeyType.SECP256K1, "p256": KeyType.P256, "bls": KeyType.BLS}
#: The chain of the messages made here, unless another is named: each chain has marks of its own.
CHAIN = 0xB3D79F99
CHAIN_ID = "NetXo5iVw1vBoxM"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key whose secret anyone may know."""

    name: str
    key_type: KeyType
    secret: str = field(repr=False)
    secret_bytes: bytes = field(repr=False)
    public_key: str
    public_key_bytes: bytes
    pkh: str

    @property
    def clear_blob(self) -> bytes:
        """The blob of an enclave that seals nothing: the key in clear."""
        private_key = parse_secret_key(self.secret)
        return cbor2.dumps({private_key.key_type.value: private_key.data})


KEYS: dict[str, KnownKey] = {
    item["name"]: KnownKey(
        item["name"],
        _CURVES[item["curve"]],
        item["sk"],
        bytes.fromhex(item["raw_sk_hex"]),
        item["pk"],
        bytes.fromhex(item["raw_pk_hex"]),
        item["pkh"],
    )
    for item in SIGNATORY["keypairs"]
}
#: One key of each curve.
FOUR = tuple(KEYS[name] for name in ("tz1alias", "tz2alias", "tz3alias", "tz4alias"))


def attestation(
    level: int, *, round_: int = 0, payload: bytes = b"\x22" * 32, chain: int = CHAIN, magic: int = 0x13
) -> bytes:
    """Return an attestation in the form without a slot; with magic byte 0x12, a preattestation."""
    tag = b"\x29" if magic == 0x13 else b"\x28"
    place = level.to_bytes(4, "big") + round_.to_bytes(4, "big")
    return bytes([magic]) + chain.to_bytes(4, "big") + b"\x11" * 32 + tag + place + payload


def preattestation(level: int, *, round_: int = 0, payload: bytes = b"\x22" * 32, chain: int = CHAIN) -> bytes:
    """Return a preattestation in the form without a slot."""
    return attestation(level, round_=round_, payload=payload, chain=chain, magic=0x12)


def attestation_with_dal(level: int, *, payload: bytes = b"\x22" * 32, chain: int = CHAIN) -> bytes:
    """Return an attestation of slot 0 and round 0 that also attests the availability of one data slot."""
    place = level.to_bytes(4, "big") + bytes(4)
    return b"\x13" + chain.to_bytes(4, "big") + b"\x11" * 32 + b"\x17" + bytes(2) + place + payload + b"\x01"


def block(level: int, *, payload: bytes = b"\x22" * 32, chain: int = CHAIN) -> bytes:
    """Return a block of round 0."""
    recorded = PAYLOADS["watermark_A1"]
    place = level.to_bytes(4, "big")
    head = recorded[:1] + chain.to_bytes(4, "big") + place + recorded[9:87]
    # The level stands in the fitness again; the payload hash follows context and fitness.
    fitness = recorded[87:96] + place + recorded[100:120]
    return head + fitness + recorded[120:152] + payload + recorded[184:]


def transaction(branch: int) -> bytes:
    """Return a transaction; its branch, any number, tells it from others."""
    recorded = PAYLOADS["policy_generic"]
    return recorded[:1] + branch.to_bytes(32, "big") + recorded[33:]
