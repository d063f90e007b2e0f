"""What proofs are bound to: known answers, computed here by other means, and one part changed at a time."""

import hashlib
from dataclasses import replace

import pytest

from enclave_signer.protocol.binding import (
    NO_CHANNEL,
    Channel,
    channel_statement,
    inventory_digest,
    key_digest,
    token_nonce,
)
from enclave_signer.protocol.messages import KeyType, PublicKey, Purpose

CHANNEL = Channel(b"key of the enclave", b"key of the client", bytes(range(32)))
NONCE, ATTESTED, INVENTORY = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def sha256_of_parts(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.hexdigest()


def test_known_answers() -> None:
    """Written down once: those who verify tokens elsewhere count on them."""
    assert (
        token_nonce(Purpose.CHANNEL, NONCE, CHANNEL, ATTESTED, INVENTORY)
        == sha256_of_parts(
            *(b"enclave-signer attestation nonce 1", b"channel", b"enclave", NONCE),
            *(b"key of the enclave", b"key of the client", ATTESTED, INVENTORY),
        )
        == "13ce481716d04ab6475764449d72cbb8fd875cb081749f69b91416492991dc52"
    )
    assert token_nonce(Purpose.REPORT, NONCE, NO_CHANNEL, ATTESTED, INVENTORY) == (
        "8413a219c8139f8cce0277ae436579936d012a287f3c98f32117d266b8737b2f"
    )
    assert channel_statement(NONCE, CHANNEL, ATTESTED).hex() == (
        "656e636c6176652d7369676e6572206174746573746564206368616e6e656c2031"
        "b91e51201b257b391e98ca6c37c801b929c6e7aeff30caa64a5bed00e0b0435c"
    )
    assert inventory_digest([]).hex() == "5be9be51cc41940c9a06b4e93e630e46f5b8ebb583e1e7832eff48608313a36b"
    assert key_digest(b"") == hashlib.sha256(b"").hexdigest()


def test_every_part_counts() -> None:
    variants = {
        token_nonce(Purpose.CHANNEL, NONCE, CHANNEL, ATTESTED, INVENTORY),
        token_nonce(Purpose.REPORT, NONCE, CHANNEL, ATTESTED, INVENTORY),
        token_nonce(Purpose.CHANNEL, ATTESTED, CHANNEL, ATTESTED, INVENTORY),
        token_nonce(Purpose.CHANNEL, NONCE, replace(CHANNEL, enclave_key=b"another"), ATTESTED, INVENTORY),
        token_nonce(Purpose.CHANNEL, NONCE, replace(CHANNEL, client_key=b"another"), ATTESTED, INVENTORY),
        token_nonce(Purpose.CHANNEL, NONCE, CHANNEL, NONCE, INVENTORY),
        token_nonce(Purpose.CHANNEL, NONCE, CHANNEL, ATTESTED, NONCE),
    }
    assert len(variants) == 7
    statements = {
        channel_statement(NONCE, CHANNEL, ATTESTED),
        channel_statement(ATTESTED, CHANNEL, ATTESTED),
        channel_statement(NONCE, CHANNEL, NONCE),
        *(
            channel_statement(NONCE, replace(CHANNEL, **{name: b"x"}), ATTESTED)
            for name in ("enclave_key", "client_key")
        ),
        channel_statement(NONCE, replace(CHANNEL, exported=bytes(32)), ATTESTED),
    }
    assert len(statements) == 6


@pytest.mark.parametrize("purpose", Purpose)
def test_roles_and_borders_count(purpose: Purpose) -> None:
    turned = Channel(CHANNEL.client_key, CHANNEL.enclave_key, CHANNEL.exported)
    moved = Channel(CHANNEL.enclave_key + b"k", CHANNEL.client_key[1:], CHANNEL.exported)
    assert len({token_nonce(purpose, NONCE, each, ATTESTED, INVENTORY) for each in (CHANNEL, turned, moved)}) == 3
    assert len({channel_statement(NONCE, each, ATTESTED) for each in (CHANNEL, turned, moved)}) == 3


def test_an_inventory_has_no_order_and_no_repetition() -> None:
    one, other = PublicKey(KeyType.ED25519, b"\x01" * 32), PublicKey(KeyType.BLS, b"\x02" * 48)
    assert inventory_digest([one, other]) == inventory_digest([other, one, one])
    assert inventory_digest([one]) != inventory_digest([other])
    expected = sha256_of_parts(b"enclave-signer key inventory 1", b"Bls " + b"\x02" * 48, b"Ed25519 " + b"\x01" * 32)
    assert inventory_digest([one, other]).hex() == expected


def test_what_is_exported_is_never_shown() -> None:
    assert "exported" not in repr(CHANNEL)
