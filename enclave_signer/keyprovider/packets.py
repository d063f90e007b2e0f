"""Packets: a layer's key, encrypted under a key-encryption key (KEK). A packet is an annotation of the layer, for all to read.

    ours     {"version":1,"algorithm":"A256GCM","key_id":"…","nonce":"<base64>","ciphertext":"<base64>"}
    CoCo's   {"kid":"…","wrapped_data":"<base64>","iv":"<base64>","wrap_type":"A256GCM"}

- Both are AES-256-GCM with the tag at the end. Ours authenticates algorithm and key id as well; CoCo's has no additional data.
- A256CTR, which authenticates nothing, is refused: a changed packet would open as another key.

Source of the second: `coco_keyprovider` of Confidential Containers (CoCo), whose version 2 adds members that are ignored here.
"""

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave_signer.keyprovider.errors import BadRequest
from enclave_signer.keyprovider.strict_json import (
    MAX_WRAPPED_BYTES,
    encode_bytes,
    read_bytes,
    read_object,
    text,
    write_object,
)

#: AES-256.
KEK_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
#: Characters of the id of a key.
MAX_KEY_ID_CHARS = 512
#: Bytes of a packet: twice a layer's key and options, which stand there in base64.
MAX_PACKET_BYTES = 2 * MAX_WRAPPED_BYTES
ALGORITHM = "A256GCM"
VERSION = 1
_TAG = b"enclave-signer keyprovider packet v1\0"


@dataclass(frozen=True, slots=True)
class Packet:
    """What a packet says of itself, and what it holds.

    Attributes:
        key_id: Of the KEK that it is encrypted under.
        nonce: Of AES-GCM.
        ciphertext: With the tag at its end.
        authenticated: Additional authenticated data; None: none.
    """

    key_id: str
    nonce: bytes
    ciphertext: bytes = field(repr=False)
    authenticated: bytes | None = field(repr=False)


def make_packet(kek: bytes, key_id: str, nonce: bytes, data: bytes) -> bytes:
    """Return `data` encrypted, as a packet of ours.

    Args:
        kek: 32 bytes.
        key_id: Its id.
        nonce: 12 random bytes, never used twice with one key.
        data: A layer's key and options.
    """
    ciphertext = AESGCM(kek).encrypt(nonce, data, _authenticated(key_id))
    return write_object(
        {
            "version": VERSION,
            "algorithm": ALGORITHM,
            "key_id": key_id,
            "nonce": encode_bytes(nonce),
            "ciphertext": encode_bytes(ciphertext),
        }
    )


def _authenticated(key_id: str) -> bytes:
    return _TAG + ALGORITHM.encode() + b"\0" + key_id.encode()


def read_packet(data: bytes) -> Packet:
    """Return a packet of ours or of CoCo.

    Raises:
        BadRequest: It is neither, or of an algorithm that authenticates nothing.
    """
    entries = read_object(data, "the packet")
    if "wrapped_data" in entries:
        _check_algorithm(entries.get("wrap_type"))
        key_id = text(entries.get("kid"), "kid", MAX_KEY_ID_CHARS)
        return _packet(key_id, entries.get("iv"), entries["wrapped_data"], None)
    if entries.get("version") != VERSION or entries.keys() != {
        "version",
        "algorithm",
        "key_id",
        "nonce",
        "ciphertext",
    }:
        raise BadRequest("the packet is neither of this provider, version 1, nor of Confidential Containers")
    _check_algorithm(entries["algorithm"])
    key_id = text(entries["key_id"], "key_id", MAX_KEY_ID_CHARS)
    return _packet(key_id, entries["nonce"], entries["ciphertext"], _authenticated(key_id))


def _check_algorithm(name: object) -> None:
    if name != ALGORITHM:
        raise BadRequest(f"the packet's algorithm must be {ALGORITHM}: others do not show that a packet was altered")


def _packet(key_id: str, nonce: object, ciphertext: object, authenticated: bytes | None) -> Packet:
    nonce_bytes = read_bytes(nonce, "the packet's nonce", NONCE_BYTES)
    sealed = read_bytes(ciphertext, "the packet's ciphertext", MAX_WRAPPED_BYTES + TAG_BYTES)
    if len(nonce_bytes) != NONCE_BYTES or len(sealed) <= TAG_BYTES:
        raise BadRequest(f"the packet must have a nonce of {NONCE_BYTES} bytes, and hold something")
    return Packet(key_id, nonce_bytes, sealed, authenticated)


def open_packet(kek: bytes, packet: Packet) -> bytes:
    """Return what a packet holds.

    Raises:
        BadRequest: It was altered, or encrypted under another key of that id.
    """
    try:
        return AESGCM(kek).decrypt(packet.nonce, packet.ciphertext, packet.authenticated)
    except InvalidTag:
        raise BadRequest("the packet was altered, or is encrypted under another key of that id") from None
