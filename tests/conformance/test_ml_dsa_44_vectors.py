"""Known answers of ML-DSA-44: by NIST, by Wycheproof, by Octez; each read by us, and by a library that we do not sign with."""

import json
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature as OpenSSLInvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from dilithium_py.ml_dsa import ML_DSA_44
from nacl.secret import SecretBox

from enclave_signer.curves import InvalidSignature, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion
from enclave_signer.tezos import (
    Family,
    decode,
    encode_public_key,
    parse_public_key,
    parse_public_key_hash,
    parse_signature,
    public_key_hash,
)
from host_backend.errors import MalformedRequest
from host_backend.secret_keys import read_secret_key

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "ml-dsa-44.json").read_text())
SIGNING_KEY_BYTES = 2560
THE_CURVE = curve(KeyType.ML_DSA_44)
LATEST = SigningVersion.LATEST


def each(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("item", VECTORS[name], ids=lambda item: item["source"])


def of_seed(seed: str) -> PublicKey:
    return THE_CURVE.open(PrivateKey(KeyType.ML_DSA_44, bytes.fromhex(seed))).public_key


def test_how_many_there_are() -> None:
    assert {name: len(VECTORS[name]) for name in ("keygen", "siggen", "sigver", "octez")} == {
        "keygen": 25,
        "siggen": 3,
        "sigver": 15,
        "octez": 2,
    }


@each("keygen")
def test_keys_of_seeds(item: dict[str, Any]) -> None:
    key = of_seed(item["seed"])
    assert sha256(key.data).hexdigest() == item["pk_sha256"]
    public_key, signing_key = ML_DSA_44.key_derive(bytes.fromhex(item["seed"]))
    assert public_key == key.data
    assert sha256(signing_key).hexdigest() == item["sk_sha256"]
    if "mdpk" in item:
        assert encode_public_key(key) == item["mdpk"]
        assert public_key_hash(key) == item["tz5"]
        assert parse_public_key_hash(item["tz5"])[1].hex() == item["pkh"]
        assert decode(item["mdsk"], Family.PRIVATE_KEY)[1] == signing_key + public_key


@each("siggen")
def test_signatures_of_others(item: dict[str, Any]) -> None:
    key, signature = bytes.fromhex(item["pk"]), bytes.fromhex(item["signature"])
    if "mu" in item:
        MLDSA44PublicKey.from_public_bytes(key).verify_mu(signature, bytes.fromhex(item["mu"]))
        return
    assert of_seed(item["seed"]).data == key
    message, context = bytes.fromhex(item["message"]), bytes.fromhex(item["context"])
    MLDSA44PublicKey.from_public_bytes(key).verify(signature, message, context or None)
    # The digest of a message is signed here, never the message itself.
    with pytest.raises(InvalidSignature):
        THE_CURVE.parse_public_key(key).verify(Signature(KeyType.ML_DSA_44, signature), message, LATEST)


@each("sigver")
def test_verdicts(item: dict[str, Any]) -> None:
    key, mu, signature = (bytes.fromhex(item[name]) for name in ("pk", "mu", "signature"))
    parsed = MLDSA44PublicKey.from_public_bytes(key)
    if item["valid"]:
        parsed.verify_mu(signature, mu)
    else:
        with pytest.raises(OpenSSLInvalidSignature):
            parsed.verify_mu(signature, mu)


@each("octez")
def test_octez_keys_and_signatures(item: dict[str, Any]) -> None:
    key = parse_public_key(item["mdpk"])
    assert public_key_hash(key) == item["tz5"]
    message = bytes.fromhex(item["message"])
    signature = parse_signature(item.get("signature") or item["deterministic_signature"])
    verifying = THE_CURVE.parse_public_key(key.data)
    verifying.verify(signature, message, LATEST)
    with pytest.raises(InvalidSignature):
        verifying.verify(signature, message + b"\0", LATEST)
    _, expanded = decode(item["mdsk"], Family.PRIVATE_KEY)
    assert expanded[SIGNING_KEY_BYTES:] == key.data == ML_DSA_44.pk_from_sk(expanded[:SIGNING_KEY_BYTES])


@each("octez")
def test_octez_secret_keys_are_refused_by_name(item: dict[str, Any]) -> None:
    for name in {"mdsk", "mdesk"} & item.keys():
        with pytest.raises(MalformedRequest, match=f"^{name}… holds an expanded key without its seed"):
            read_secret_key(item[name].encode(), lambda: pytest.fail("a password was asked for"))


def test_octez_encrypts_them_as_it_does_others() -> None:
    (item,) = (item for item in VECTORS["octez"] if "mdesk" in item)
    _, payload = decode(item["mdesk"], Family.ENCRYPTED_PRIVATE_KEY)
    key = pbkdf2_hmac("sha512", item["password"].encode(), payload[:8], 32768, SecretBox.KEY_SIZE)
    opened = SecretBox(key).decrypt(payload[8:], bytes(SecretBox.NONCE_SIZE))
    assert opened == decode(item["mdsk"], Family.PRIVATE_KEY)[1]
