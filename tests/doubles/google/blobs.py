"""Blobs as Cloud KMS seals them, made with the double alone: of ours, and as tee-signer leaves them."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from google.cloud.kms_v1 import EncryptRequest

from enclave_signer.curves import curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.sealing.gcp_config import GCP_KMS
from enclave_signer.tezos import parse_secret_key
from tests.doubles.google.kms import KmsDouble
from tests.doubles.known_keys import KnownKey


def sealed(kms: KmsDouble, key: KnownKey, kek: str, *, legacy: bool = False) -> bytes:
    return sealed_secret(kms, parse_secret_key(key.secret), kek, legacy=legacy)


def sealed_secret(kms: KmsDouble, private_key: PrivateKey, kek: str, *, legacy: bool = False) -> bytes:
    public_key = curve(private_key.key_type).open(private_key).public_key
    header = b"" if legacy else BlobHeader(GCP_KMS, kek, public_key).encode()
    secret = codec.encode_private_key(private_key)
    asked = EncryptRequest(name=kek, plaintext=secret, additional_authenticated_data=header)
    answer = kms._encrypt(asked, kms.keys[kek], None)
    return header + bytes(answer.ciphertext)


def write_key_file(path: Path, keys: Sequence[tuple[KnownKey, bytes]]) -> None:
    write_blobs(path, [(key.pkh, blob) for key, blob in keys])


def write_blobs(path: Path, blobs: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    entries = [
        {"public_key_hash": pkh, "encrypted_private_key": base64.b64encode(blob).decode()} for pkh, blob in blobs
    ]
    path.write_text(json.dumps(entries, indent=4))


def read_key_file(path: Path) -> list[tuple[str, bytes]]:
    """Return hashes and blobs, in order."""
    return [
        (each["public_key_hash"], base64.b64decode(each["encrypted_private_key"]))
        for each in json.loads(path.read_text())
    ]
