"""The one BSON document of Octez' sockets: an error in three strings. Source: bsonspec.org, version 1.1."""

import struct

_SIZE = struct.Struct("<i")
_STRING = b"\x02"


def error_document(text: str) -> bytes:
    """Return an error as Octez' clients read it; they show the text."""
    fields = {"kind": "temporary", "id": "failure", "msg": text}
    body = b"".join(_string(name, value) for name, value in fields.items()) + b"\0"
    return _SIZE.pack(_SIZE.size + len(body)) + body


def _string(name: str, value: str) -> bytes:
    data = value.encode() + b"\0"
    return _STRING + name.encode() + b"\0" + _SIZE.pack(len(data)) + data
