"""PKCS#8 of version 2, which Rust's `ring` and others write, as version 1, which `cryptography` reads.

Version 2 adds the public key, and its number; Go's library, which Signatory uses, looks at neither.

Source: RFC 5958; `ring`, which wraps the public key's BIT STRING where the RFC replaces its tag.
"""

from dataclasses import dataclass

from host_backend.der import NotDer, read_value

_OCTET_STRING, _BIT_STRING, _SEQUENCE = 0x04, 0x03, 0x30
_VERSION_1, _VERSION_2 = b"\x02\x01\x00", b"\x02\x01\x01"
_ATTRIBUTES, _PUBLIC_KEY, _WRAPPED_PUBLIC_KEY = 0xA0, 0x81, 0xA1
#: Bits of the last byte of a BIT STRING that mean nothing: none, for whole bytes.
_NO_UNUSED_BITS = b"\0"


@dataclass(frozen=True, slots=True)
class Version2:
    """A private key of version 2.

    Attributes:
        version_1: The same key as version 1, in DER.
        public_key: Its public half as the curve writes it; None where it has none.
    """

    version_1: bytes
    public_key: bytes | None


def parse_version_2(der: bytes) -> Version2 | None:
    """Return a private key of version 2; None for anything else, damaged ones included."""
    try:
        tag, body, rest = read_value(der)
        if tag != _SEQUENCE or rest or not body.startswith(_VERSION_2):
            return None
        return _parsed(body.removeprefix(_VERSION_2))
    except NotDer:
        return None


def _parsed(body: bytes) -> Version2:
    tag, _, behind_algorithm = read_value(body)
    key_tag, _, rest = read_value(behind_algorithm)
    if (tag, key_tag) != (_SEQUENCE, _OCTET_STRING):
        raise NotDer
    algorithm_and_key = body[: len(body) - len(rest)]
    public_key = None
    while rest:
        tag, value, rest = read_value(rest)
        if tag == _WRAPPED_PUBLIC_KEY:
            inner, value, behind = read_value(value)
            if inner != _BIT_STRING or behind:
                raise NotDer
        elif tag == _ATTRIBUTES:
            continue
        elif tag != _PUBLIC_KEY:
            raise NotDer
        if public_key is not None or not value.startswith(_NO_UNUSED_BITS):
            raise NotDer
        public_key = value.removeprefix(_NO_UNUSED_BITS)
    return Version2(_sequence(_VERSION_1 + algorithm_and_key), public_key)


def _sequence(body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes((_SEQUENCE, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((_SEQUENCE, 0x80 | len(length))) + length + body
