"""Writes the first inputs of each target, from the vectors of the tests. Inputs that fuzzing found stand beside them.

usage: python -m fuzz.seeds
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import Credentials, GetPublicKey, Import, Initialize, KeyType, PublicKey, Sign
from tests.doubles.google.tokens import claims
from tests.doubles.odd_requests import Maker
from tests.endurance import agreement, reencoding
from tests.unit.test_image import LOCAL, SMALLEST
from tests.unit.test_octez_wire import RECORDED

CORPUS = Path(__file__).with_name("corpus")
#: Inputs of each target, and bytes of each: the repository keeps them.
MAX_INPUTS, MAX_INPUT_BYTES = 24, 2048
_ROOT = Path(__file__).parents[1]


def seeds() -> Mapping[str, Iterable[bytes]]:
    """Return the first inputs, by target."""
    requests = [
        codec.encode_request(each) for each in (Sign(0, b"m"), Import(b"b"), GetPublicKey(1), Initialize(Credentials()))
    ]
    transcripts = json.loads((_ROOT / "tests/vectors/enclave-transcripts.json").read_text())
    replies = [b"\xa1\x62Ok\xf6", b"\xa1\x63Err\xa1\x67message\x61x", *_hex_in(transcripts)]
    # A day that does not come: the claims are refused for their times, after everything else was read.
    token, signed = {"exp": 4102444800, "user": "user"}, claims(4102444800.0)
    operations = _smallest_of_each(reencoding.vectors())
    yaml = (_ROOT / "signatory.example.yaml").read_bytes()
    return {
        "frame_decoder": [
            b"\x03" + b"".join(map(encode_frame, (b"", b"abc", bytes(64)))),
            b"\x01" + encode_frame(bytes(65)) + b"\0",
        ],
        "cbor_items": [*requests, *replies, b"\xbf\xff", b"\xc0\x00", b"\xa2\x61a\x00\x61a\x01", b"\xfb" + bytes(8)],
        "request_decoder": requests,
        "reply_decoder": replies,
        "blob_header": [BlobHeader("local", "0123", PublicKey(KeyType.ED25519, bytes(32))).encode() + bytes(40), b"EH"],
        "tezos_message": [*_smallest_of_each(agreement.vectors()), *operations[:6], b"\x05\x00\x2a"],
        "operations_table": [message[33:] for message in operations],
        "token_verifier": [json.dumps(token).encode(), b"\0a.b.c", b"{}"],
        "attestation_verifier": [json.dumps(signed).encode(), b"\0a.b.c", b"{}"],
        "yaml_configuration": [*_parts(yaml), b"tezos: {x: &a [*a]}\n", b"a:\t1\n"],
        "image_configuration": [SMALLEST.encode(), LOCAL.encode(), (_ROOT / "image/image.example.toml").read_bytes()],
        "http_heads": [
            bytes([how]) + b"".join(Maker(seed).connection()) for seed, how in enumerate((0, 1, 2, 3, 29, 61, 2, 0))
        ],
        "octez_frames": [bytes([7]) + bytes.fromhex(text) for text in RECORDED["requests"].values()],
        "slot_file": [
            b"",
            bytes([2, 0, 80, 255, 0]),
            bytes([0, 0, 30, 1, 1]),
            bytes([2, 0, 0, 3, 4]),
            bytes([3, 0, 9, 1, 1, 200]),
        ],
    }


def _hex_in(value: object) -> list[bytes]:
    """Return the bytes of all texts in hexadecimal below a value."""
    if isinstance(value, dict):
        return [found for item in value.values() for found in _hex_in(item)]
    if isinstance(value, list):
        return [found for item in value for found in _hex_in(item)]
    try:
        return [bytes.fromhex(value)] if isinstance(value, str) and len(value) > 8 else []
    except ValueError:
        return []


def _smallest_of_each(messages: list[bytes]) -> list[bytes]:
    """Return the smallest message of each first byte and tag."""
    found: dict[bytes, bytes] = {}
    for message in sorted(messages, key=len, reverse=True):
        found[message[:1] + message[33:34] if message[0] == 3 else message[:1]] = message
    return list(found.values())


def _parts(data: bytes) -> list[bytes]:
    """Return a text whole, if it is small enough, and what stands between its empty lines."""
    return [*([data] if len(data) <= MAX_INPUT_BYTES else []), *data.split(b"\n\n")]


def write() -> None:
    """Write the first inputs."""
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in [each for each in inputs if len(each) <= MAX_INPUT_BYTES][:MAX_INPUTS]:
            (folder / sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    write()
