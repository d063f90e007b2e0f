"""A secret key of the vectors, opened by `curves`, signs the messages of the vectors into exactly the recorded texts."""

import json
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType, PublicKey, SigningVersion
from enclave_signer.tezos import (
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    public_key_hash,
)

VECTORS = Path(__file__).parents[1] / "vectors"
SIGNATORY: dict[str, Any] = json.loads((VECTORS / "signatory-vectors.json").read_text())
KEYS: dict[str, dict[str, Any]] = {key["name"]: key for key in SIGNATORY["keypairs"]}
MESSAGES = {payload["id"]: bytes.fromhex(payload["hex"]) for payload in SIGNATORY["payloads"]}


def public_key_of(secret: str) -> PublicKey:
    private_key = parse_secret_key(secret)
    return curve(private_key.key_type).open(private_key).public_key


@pytest.mark.parametrize("name", KEYS)
def test_secret_keys_belong_to_their_public_keys(name: str) -> None:
    public_key = public_key_of(KEYS[name]["sk"])
    assert encode_public_key(public_key) == KEYS[name]["pk"]
    assert public_key_hash(public_key) == KEYS[name]["pkh"]


@pytest.mark.parametrize("member", ["encrypted_secret_keys", "encrypted_secret_keys_derived", "pem_keys"])
def test_decrypted_secret_keys_belong_to_their_hashes(member: str) -> None:
    for item in SIGNATORY[member]:
        assert public_key_hash(public_key_of(item["sk"])) == item["pkh"]


@pytest.mark.parametrize("item", SIGNATORY["signatures"])
def test_signatures(item: dict[str, Any]) -> None:
    private_key = parse_secret_key(KEYS[item["key"]]["sk"])
    message, version = MESSAGES[item["payload"]], SigningVersion(item.get("version", SigningVersion.LATEST))
    signature = curve(private_key.key_type).open(private_key).sign(message, version)
    assert encode_signature(signature) == item["signature"]
    public_key = parse_public_key(KEYS[item["key"]]["pk"])
    verifying_key = curve(private_key.key_type).parse_public_key(public_key.data)
    verifying_key.verify(parse_signature(item["signature"]), message, version)


@pytest.mark.parametrize("item", SIGNATORY["proofs_of_possession"], ids=lambda item: str(item["key"]))
def test_proofs_of_possession(item: dict[str, Any]) -> None:
    key = curve(KeyType.BLS).open(parse_secret_key(KEYS[item["key"]]["sk"]))
    assert key.public_key.data.hex() == item["message_hex"]
    assert encode_signature(key.prove_possession()) == item["bls_prove_possession"]
    verifying_key = curve(KeyType.BLS).parse_public_key(key.public_key.data)
    verifying_key.verify_possession(parse_signature(item["bls_prove_possession"]))


@pytest.mark.parametrize("item", SIGNATORY["authentication"], ids=lambda item: str(item["target_pkh"]))
def test_authentications(item: dict[str, Any]) -> None:
    private_key = parse_secret_key(KEYS[item["auth_key"]]["sk"])
    signature = (
        curve(private_key.key_type)
        .open(private_key)
        .sign(bytes.fromhex(item["authenticated_bytes_hex"]), SigningVersion.LATEST)
    )
    assert encode_signature(signature) == item["authentication"]
