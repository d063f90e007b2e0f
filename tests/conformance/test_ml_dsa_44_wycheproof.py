"""Wycheproof's answers for ML-DSA-44: the keys of its seeds, and its verdicts, by the library that both programs sign with."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature as OpenSSLInvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from enclave_signer.curves import InvalidPublicKey, InvalidSignature, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion

VECTORS = Path(__file__).parents[1] / "vectors" / "ml-dsa-44-wycheproof.json"
GROUPS: list[dict[str, Any]] = json.loads(VECTORS.read_text())["groups"]
THE_CURVE = curve(KeyType.ML_DSA_44)
#: Of keys that are none.
NO_KEYS = [group for group in GROUPS if len(group["pk"]) != 2 * KeyType.ML_DSA_44.facts.public_key_bytes]
OF_KEYS = [group for group in GROUPS if group not in NO_KEYS]


def first_source(group: dict[str, Any]) -> str:
    return str(group["tests"][0]["source"][0])


def accepted(key: MLDSA44PublicKey, item: dict[str, Any]) -> bool:
    message, context, signature = (bytes.fromhex(item[name]) for name in ("message", "context", "signature"))
    try:
        key.verify(signature, message, context or None)
    except (OpenSSLInvalidSignature, ValueError):
        return False
    return True


def test_how_many_there_are() -> None:
    sources = [source for group in GROUPS for item in group["tests"] for source in item["source"]]
    files = [source.partition(" ")[0] for source in sources]
    assert len(sources) == len(set(sources))
    assert files.count("mldsa_44_sign_seed_test.json") == 74
    assert files.count("mldsa_44_verify_test.json") == 180


@pytest.mark.parametrize("group", [group for group in GROUPS if "seed" in group], ids=first_source)
def test_keys_of_seeds(group: dict[str, Any]) -> None:
    key = PrivateKey(KeyType.ML_DSA_44, bytes.fromhex(group["seed"]))
    assert THE_CURVE.open(key).public_key.data.hex() == group["pk"]


@pytest.mark.parametrize("group", OF_KEYS, ids=first_source)
def test_verdicts(group: dict[str, Any]) -> None:
    key = MLDSA44PublicKey.from_public_bytes(bytes.fromhex(group["pk"]))
    differing = [item["source"] for item in group["tests"] if accepted(key, item) != item["valid"]]
    assert differing == []


@pytest.mark.parametrize("group", NO_KEYS, ids=first_source)
def test_keys_of_another_size(group: dict[str, Any]) -> None:
    assert not any(item["valid"] for item in group["tests"])
    with pytest.raises(InvalidPublicKey):
        THE_CURVE.parse_public_key(bytes.fromhex(group["pk"]))


@pytest.mark.parametrize("group", OF_KEYS, ids=first_source)
def test_a_signature_of_the_message_itself_is_none_of_its_digest(group: dict[str, Any]) -> None:
    """The digest of a message is signed here: of all these, valid or malformed, none may be released."""
    key = THE_CURVE.parse_public_key(bytes.fromhex(group["pk"]))
    for item in group["tests"]:
        signature = Signature(KeyType.ML_DSA_44, bytes.fromhex(item["signature"]))
        with pytest.raises(InvalidSignature):
            key.verify(signature, bytes.fromhex(item["message"]), SigningVersion.LATEST)
