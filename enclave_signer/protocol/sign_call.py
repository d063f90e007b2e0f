"""`Sign`, the most frequent call, and its answer, without the encoder and the decoder of CBOR.

- Both are read and written exactly as `codec` does it: tests compare them.
- `read_sign` reads what our host and Signatory write: the fields in this order, a message of 24 bytes or more.
- Everything else is left to the strict decoder, which also names the fault.
"""

from collections.abc import Mapping
from functools import lru_cache

from enclave_signer.protocol import cbor, codec
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES, KeyType, Sign, Signature, SigningVersion

#: Keys and sizes of messages for which the bytes around the message are known, some 100 each.
MAX_KNOWN_CALLS = 4096

_VERSION = b"\x67version"
#: The beginning of a call, and what may follow its message.
_FORMS: Mapping[bytes, Mapping[bytes, SigningVersion]] = {
    b"\xa1\x64Sign\xa3\x66handle": {
        _VERSION + b"\x00": SigningVersion.V0,
        _VERSION + b"\x01": SigningVersion.V1,
        _VERSION + b"\x02": SigningVersion.V2,
        _VERSION + b"\x18\xff": SigningVersion.LATEST,
    },
    b"\xa1\x64Sign\xa2\x66handle": {b"": SigningVersion.LATEST},
}
_HANDLE_AT = 14
_MESSAGE = b"\x67message"
_MESSAGE_SIZE = len(_MESSAGE)
#: No shorter frame is one of these calls; the bytes at all offsets that are looked at without a check are in it.
_SHORTEST_BYTES = _HANDLE_AT + 1 + _MESSAGE_SIZE + 2 + 24
_LENGTH_OF_FRAME_BYTES = 4
# CBOR: the largest integer in one byte; one byte follows, two bytes follow; the same, of a byte string's length.
_LARGEST_SMALL, _ONE_BYTE, _TWO_BYTES = 0x17, 0x18, 0x19
_LENGTH_OF_ONE_BYTE, _LENGTH_OF_TWO_BYTES = 0x58, 0x59


def read_sign(frame: bytes) -> tuple[int, bytes, SigningVersion] | None:
    """Return handle, message and version of a `Sign` in its common form; None if the strict decoder is to look at it."""
    forms = _FORMS.get(frame[:_HANDLE_AT])
    if forms is None or len(frame) < _SHORTEST_BYTES:
        return None
    handle, at = frame[_HANDLE_AT], _HANDLE_AT + 1
    if handle > _LARGEST_SMALL:
        if handle == _ONE_BYTE:
            handle, at = frame[at], at + 1
        elif handle == _TWO_BYTES:
            handle, at = frame[at] << 8 | frame[at + 1], at + 2
        else:
            return None
    length_at = at + _MESSAGE_SIZE
    if frame[at:length_at] != _MESSAGE:
        return None
    if frame[length_at] == _LENGTH_OF_ONE_BYTE:
        size, at = frame[length_at + 1], length_at + 2
    elif frame[length_at] == _LENGTH_OF_TWO_BYTES:
        size, at = frame[length_at + 1] << 8 | frame[length_at + 2], length_at + 3
    else:
        return None
    end = at + size
    version = forms.get(frame[end:])
    if version is None or end > len(frame) or size > MAX_MESSAGE_BYTES:
        return None
    return handle, frame[at:end], version


def _beginning(key_type: KeyType) -> bytes:
    signature = Signature(key_type, bytes(key_type.facts.signature_bytes))
    return encode_frame(codec.encode_ok(signature))[: -len(signature.data)]


_BEGINNINGS: Mapping[KeyType, bytes] = {key_type: _beginning(key_type) for key_type in KeyType}


def signature_frame(signature: Signature) -> bytes:
    """Return the frame that answers a call with a signature of its curve's size."""
    return _BEGINNINGS[signature.key_type] + signature.data


_BODIES: Mapping[int, tuple[bytes, KeyType]] = {
    len(beginning) - _LENGTH_OF_FRAME_BYTES + key_type.facts.signature_bytes: (
        beginning[_LENGTH_OF_FRAME_BYTES:],
        key_type,
    )
    for key_type, beginning in _BEGINNINGS.items()
}


def read_signature(frame: bytes) -> Signature | None:
    """Return the signature that answers a call, as `signature_frame` writes it; None if the strict decoder is to look at it.

    Args:
        frame: Without its length.
    """
    known = _BODIES.get(len(frame))
    if known is None or not frame.startswith(known[0]):
        return None
    beginning, key_type = known
    return Signature(key_type, frame[len(beginning) :])


@lru_cache(MAX_KNOWN_CALLS)
def _around(handle: int, size: int, version: SigningVersion) -> tuple[bytes, bytes]:
    """Return what stands before and behind the message of a call."""
    frame = encode_frame(codec.encode_request(Sign(handle, bytes(size), version)))
    behind = _VERSION + cbor.encode(version.value)
    return frame[: -size - len(behind)], behind


def sign_frame(call: Sign) -> bytes:
    """Return the frame that makes a call.

    Raises:
        ValueError: The call is too large for a frame.
    """
    before, behind = _around(call.handle, len(call.message), call.version)
    return before + call.message + behind
