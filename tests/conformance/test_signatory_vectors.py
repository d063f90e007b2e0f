"""Keys, texts and messages collected from Signatory mean the same to us, except those refused on purpose."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import (
    ConsensusMessage,
    EncryptedSecretKey,
    Family,
    Kind,
    MalformedMessage,
    check_public_key_hash,
    decode,
    encode,
    encode_public_key,
    encode_signature,
    parse_consensus,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    public_key_hash,
)
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, parse_message, request_kind

VECTORS = Path(__file__).parents[1] / "vectors"
SIGNATORY: dict[str, Any] = json.loads((VECTORS / "signatory-vectors.json").read_text())
FORGED: dict[str, Any] = json.loads((VECTORS / "forged-operations.json").read_text())
PAYLOADS: dict[str, dict[str, Any]] = {payload["id"]: payload for payload in SIGNATORY["payloads"]}

#: Messages that Signatory signs and we refuse, with the reason.
DELIBERATE_REFUSALS = {
    "pack_sign_bytes": "7 surplus bytes follow the packed integer",
}
#: Fitnesses of the vectors that are none, with the reason. Signatory reads the last 4 bytes, whatever comes before them.
REFUSED_FITNESSES = {
    "0000000102": "it ends after the version",
    "": "it is empty",
}
#: Kinds that the asked build of Signatory could not decode, by contents: its table of destinations is older.
UNKNOWN_TO_SIGNATORY = {"sr1JZsZT5u27MUQXeTh1aHqZBo8NvyxRKnyv": "gotez: unknown tag 3"}

CURVES = {"ed25519": KeyType.ED25519, "secp256k1": KeyType.SECP256K1, "p256": KeyType.P256, "bls": KeyType.BLS}
SECRET_KINDS = {
    KeyType.ED25519: Kind["ED25519_PRIVATE_KEY"],
    KeyType.SECP256K1: Kind["SECP256K1_PRIVATE_KEY"],
    KeyType.P256: Kind["P256_PRIVATE_KEY"],
    KeyType.BLS: Kind["BLS_PRIVATE_KEY"],
}


def by(member: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("item", SIGNATORY[member], ids=lambda item: str(item.get("name", "")))


@by("keypairs")
def test_public_keys(item: dict[str, Any]) -> None:
    key = PublicKey(CURVES[item["curve"]], bytes.fromhex(item["raw_pk_hex"]))
    assert parse_public_key(item["pk"]) == key
    assert encode_public_key(key) == item["pk"]
    assert public_key_hash(key) == item["pkh"]
    assert check_public_key_hash(item["pkh"]) is key.key_type
    assert decode(item["pkh"], Family.PUBLIC_KEY_HASH)[1].hex() == item["raw_pkh_hex"]


@by("keypairs")
def test_secret_keys(item: dict[str, Any]) -> None:
    raw = bytes.fromhex(item["raw_sk_hex"])
    key = parse_secret_key(item["sk"])
    assert key.key_type is CURVES[item["curve"]]
    assert key.data == (raw[::-1] if key.key_type is KeyType.BLS else raw)
    assert key.data.hex() == item.get("scalar_big_endian_hex", key.data.hex())
    assert encode(SECRET_KINDS[key.key_type], raw) == item["sk"]


@pytest.mark.parametrize("member", ["encrypted_secret_keys", "encrypted_secret_keys_derived", "pem_keys"])
def test_texts_of_other_keys(member: str) -> None:
    for item in SIGNATORY[member]:
        key_type = parse_secret_key(item["sk"]).key_type
        assert check_public_key_hash(item["pkh"]) is key_type
        if "pk" in item:
            assert public_key_hash(parse_public_key(item["pk"])) == item["pkh"]


@pytest.mark.parametrize("item", SIGNATORY["encrypted_secret_keys"] + SIGNATORY["encrypted_secret_keys_derived"])
def test_encrypted_secret_keys_are_recognised(item: dict[str, Any]) -> None:
    with pytest.raises(EncryptedSecretKey, match="decrypt it with its password"):
        parse_secret_key(item["encrypted"])
    _, payload = decode(item["encrypted"], Family.ENCRYPTED_PRIVATE_KEY)
    assert payload[:8].hex() == item["salt_hex"]
    assert payload[8:].hex() == item.get("secretbox_hex", payload[8:].hex())


@by("base58_encodings")
def test_base58_encodings(item: dict[str, Any]) -> None:
    raw = bytes.fromhex(item["raw_hex"])
    kind = {"BLS signature": Kind["BLS_SIGNATURE"], "chain id": Kind.CHAIN_ID}[item["kind"]]
    assert encode(kind, raw) == item["text"]
    assert decode(item["text"], kind.value.family) == (kind, raw)


@by("signatures")
def test_texts_of_signatures(item: dict[str, Any]) -> None:
    signature = parse_signature(item["signature"])
    curve = next(key["curve"] for key in SIGNATORY["keypairs"] if key["name"] == item["key"])
    assert signature.key_type is CURVES[curve]
    assert encode_signature(signature) == item["signature"]
    if "generic_signature" in item:
        assert parse_signature(item["generic_signature"], signature.key_type) == signature


@pytest.mark.parametrize("name", sorted(set(PAYLOADS) - set(DELIBERATE_REFUSALS)))
def test_payloads(name: str) -> None:
    item = PAYLOADS[name]
    message = parse_message(bytes.fromhex(item["hex"]))
    assert request_kind(message) == item["kind"]
    if isinstance(message, ConsensusMessage):
        assert (message.chain_id, message.level, message.round) == (item["chain_id"], item["level"], item["round"])
        assert encode(Kind.CHAIN_ID, bytes.fromhex(item["chain_hex"])) == item["chain_id"]
        return
    assert list(message.operations) == item.get("operations", list(message.operations))
    assert Counter(message.operations) == item.get("operation_counts", {})
    assert len(message.operations) == item.get("operation_total", 0)


@pytest.mark.parametrize("item", PAYLOADS.values(), ids=lambda item: str(item["id"]))
def test_digests(item: dict[str, Any]) -> None:
    message = bytes.fromhex(item["hex"])
    digest = hashlib.blake2b(message, digest_size=32).digest()
    assert digest.hex() == item["digest_hex"]
    assert encode(Kind.BLOCK_PAYLOAD_HASH, digest) == item["digest_vh"]
    if "branch" in item:
        assert encode(Kind.BLOCK_HASH, message[1:33]) == item["branch"]


def test_refusals_are_really_refused_and_none_is_stale() -> None:
    refused = set()
    for name, item in PAYLOADS.items():
        try:
            parse_message(bytes.fromhex(item["hex"]))
        except MalformedRequest:
            refused.add(name)
    assert refused == set(DELIBERATE_REFUSALS)
    assert REFUSED_FITNESSES.keys() == {
        item["fitness_hex"] for item in SIGNATORY["fitness_rounds"] if item.get("round") is None
    }


def block_with(fitness: bytes) -> bytes:
    """Put a fitness, and its level, into the recorded block."""
    message = bytes.fromhex(PAYLOADS["request_block"]["hex"])
    level = fitness[9:13] or b"\x00" * 4
    return message[:5] + level + message[9:83] + len(fitness).to_bytes(4, "big") + fitness + message[120:]


@pytest.mark.parametrize("item", SIGNATORY["fitness_rounds"], ids=lambda item: str(item["fitness_hex"]))
def test_fitnesses(item: dict[str, Any]) -> None:
    fitness = bytes.fromhex(item["fitness_hex"])
    if item["fitness_hex"] in REFUSED_FITNESSES:
        with pytest.raises(MalformedMessage, match=f"fitness of {len(fitness)} bytes"):
            parse_consensus(block_with(fitness))
        return
    message = parse_consensus(block_with(fitness))
    assert message.round == item["round"]
    assert message.level == int.from_bytes(fitness[9:13], "big")


def policy_name(contents: dict[str, Any]) -> str:
    """Say what a policy should call an operation, from its JSON form."""
    if contents["kind"] == "ballot":
        return f"ballot:{contents['ballot']}"
    entry_point: str = contents.get("parameters", {}).get("entrypoint", "default")
    staking = {"stake", "unstake", "finalize_unstake", "set_delegate_parameters"}
    if entry_point in staking and contents["source"] == contents["destination"]:
        return entry_point
    return str(contents["kind"])


@pytest.mark.parametrize("item", FORGED["payloads"], ids=lambda item: str(item["kind"]))
def test_forged_operations(item: dict[str, Any]) -> None:
    contents = item["contents"] if isinstance(item["contents"], list) else [item["contents"]]
    message = parse_message(bytes.fromhex(item["hex"]))
    assert isinstance(message, GenericMessage)
    assert list(message.operations) == [policy_name(operation) for operation in contents]
    answer = item["signatory_latest"]
    if answer["status"] == 403:
        assert answer["msg"] == f"operation `{message.operations[0]}' is not allowed"
    else:
        assert UNKNOWN_TO_SIGNATORY[contents[0]["destination"]] == answer["msg"]
