"""JSON of strangers, read strictly: bounded, no name twice, bytes in either of the two forms that peers write.

Source: Go writes bytes as base64; Confidential Containers' Rust writes an array of integers.
"""

import base64
import binascii
import json
from collections.abc import Mapping

from enclave_signer.keyprovider.errors import BadRequest

#: Bytes of a request or an answer. A layer's key and options are some 200 bytes; in base64 twice, or as integers, ten
#: times that, and a request may carry parameters of other providers.
MAX_MESSAGE_BYTES = 262144
#: Bytes of a layer's key and options: some 200 in fact. An answer of this size fits into the first window of HTTP/2.
MAX_WRAPPED_BYTES = 16384


def read_object(data: bytes, what: str) -> Mapping[str, object]:
    """Return the members of a JSON object.

    Raises:
        BadRequest: It is none; the text does not quote it.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadRequest(f"{what} has more than {MAX_MESSAGE_BYTES} bytes")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise BadRequest(f"{what} is not valid JSON") from None
    return members(value, what)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def members(value: object, what: str) -> Mapping[str, object]:
    """Return a JSON object as a mapping.

    Raises:
        BadRequest: It is something else.
    """
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    return value


def text(value: object, what: str, most: int) -> str:
    """Return a text of 1 to `most` printable characters.

    Raises:
        BadRequest: It is something else.
    """
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise BadRequest(f"{what} must be a text of 1 to {most} printable characters")
    return value


def read_bytes(value: object, what: str, most: int) -> bytes:
    """Return 1 to `most` bytes, given as base64 or as an array of integers.

    Raises:
        BadRequest: It is something else.
    """
    try:
        if isinstance(value, str):
            data = base64.b64decode(value, validate=True)
        elif isinstance(value, list) and all(type(each) is int for each in value):
            data = bytes(value)
        else:
            raise BadRequest(f"{what} must be bytes: base64, or an array of integers")
    except (binascii.Error, ValueError):
        raise BadRequest(f"{what} must be bytes: base64, or an array of integers") from None
    if not 0 < len(data) <= most:
        raise BadRequest(f"{what} must have 1 to {most} bytes")
    return data


def encode_bytes(data: bytes) -> str:
    """Return bytes as base64: the form that every peer reads."""
    return base64.b64encode(data).decode()


def write_object(value: Mapping[str, object]) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
