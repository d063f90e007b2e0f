"""Strict CBOR: the part of RFC 8949 that the wire uses, and nothing else.

- One item, whole: bytes after it are an error.
- Definite lengths, no tags, no duplicate keys, text keys only where `text_map` is asked, bounded depth.
- What cbor2 still lets through (floats, simple values, bool for int) is refused where a field is read.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NoReturn

import cbor2

from enclave_signer.protocol.errors import BadMessage

#: What an item may hold once decoded.
Item = object

#: Tags that cbor2 gives a meaning to by itself; refused like all others.
_MEANINGFUL_TAGS = (*range(6), 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799)


def _refuse(*_: object) -> NoReturn:
    raise ValueError("tags are not part of this protocol")


_NOT_THIS_PROTOCOL = "not the CBOR of this protocol: definite lengths, no tags, no duplicate keys, not nested deeper"
_EMPTY_ARRAY, _EMPTY_MAP = b"\x80", b"\xa0"
_CONTAINERS = frozenset({list, dict})
_REFUSED: Mapping[int, Callable[..., NoReturn]] = dict.fromkeys(_MEANINGFUL_TAGS, _refuse)


def encode(item: Item) -> bytes:
    """Return the item in definite lengths and shortest integers."""
    return cbor2.dumps(item)


def decode(data: bytes, *, max_depth: int) -> Item:
    """Return the one item that `data` holds.

    Raises:
        BadMessage: Not one whole item, or an item beyond what this protocol uses.
    """
    stream = BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse,
        semantic_decoders=_REFUSED,
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        item = decoder.decode()
    except cbor2.CBORDecodeEOF:
        raise BadMessage("the CBOR item is cut short") from None
    except cbor2.CBORDecodeError:
        # The decoder's own text may quote what it read, which may be a key: it goes no further.
        raise BadMessage(_NOT_THIS_PROTOCOL) from None
    if stream.tell() != len(data):
        raise BadMessage(f"{len(data) - stream.tell()} bytes follow the CBOR item")
    if (_EMPTY_ARRAY in data or _EMPTY_MAP in data) and _is_deeper(item, max_depth):
        # cbor2 counts only containers that hold something.
        raise BadMessage(_NOT_THIS_PROTOCOL)
    return item


def _is_deeper(item: Item, limit: int) -> bool:
    """Return whether more containers than that stand in one another; level by level, as a frame may hold 100 000."""
    level: list[Any] = [item] if type(item) in _CONTAINERS else []
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if outer
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]
    return bool(level)


def text_map(item: Item, what: str) -> dict[str, Item]:
    """Return `item` as a map with text keys, or raise BadMessage naming `what`."""
    if type(item) is not dict:
        raise BadMessage(f"{what} must be a map, not {kind_of(item)}")
    for key in item:
        if type(key) is not str:
            raise BadMessage(f"{what} has a key that is not text")
    return item


def single_entry(item: Item, what: str) -> tuple[str, Item]:
    """Return the only entry of a map with one text key."""
    entries = text_map(item, what)
    if len(entries) != 1:
        raise BadMessage(f"{what} must have exactly one entry, not {len(entries)}")
    ((key, value),) = entries.items()
    return key, value


def fields(item: Item, what: str, required: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Item]:
    """Return a map that has every required field and none but the known ones."""
    entries = text_map(item, what)
    if missing := required.difference(entries):
        raise BadMessage(f"{what} lacks the field {min(missing)!r}")
    if unknown := entries.keys() - required - optional:
        raise BadMessage(f"{what} has the unknown field {min(unknown)[:40]!r}")
    return entries


def byte_string(item: Item, what: str, limit_bytes: int) -> bytes:
    """Return bytes, also when they came as an array of integers, as tee-signer sends Ed25519 signatures."""
    if type(item) is list:
        return _integers(item, what, limit_bytes)
    if type(item) is not bytes:
        raise BadMessage(f"{what} must be a byte string, not {kind_of(item)}")
    if len(item) > limit_bytes:
        raise BadMessage(f"{what} has {len(item)} bytes, the limit is {limit_bytes}")
    return item


def _integers(items: list[Item], what: str, limit_bytes: int) -> bytes:
    if len(items) > limit_bytes:
        raise BadMessage(f"{what} has {len(items)} bytes, the limit is {limit_bytes}")
    values = [item for item in items if type(item) is int and 0 <= item <= 255]
    if len(values) != len(items):
        raise BadMessage(f"{what} holds something else than bytes")
    return bytes(values)


def sized_bytes(item: Item, what: str, size: int) -> bytes:
    """Return exactly `size` bytes."""
    data = byte_string(item, what, size)
    if len(data) != size:
        raise BadMessage(f"{what} has {len(data)} bytes, not {size}")
    return data


def text(item: Item, what: str, limit_chars: int) -> str:
    """Return a text of at most `limit_chars` characters."""
    if type(item) is not str:
        raise BadMessage(f"{what} must be text, not {kind_of(item)}")
    if len(item) > limit_chars:
        raise BadMessage(f"{what} has {len(item)} characters, the limit is {limit_chars}")
    return item


def unsigned(item: Item, what: str, largest: int) -> int:
    """Return an integer from 0 to `largest`."""
    if type(item) is not int:
        raise BadMessage(f"{what} must be an integer, not {kind_of(item)}")
    if not 0 <= item <= largest:
        raise BadMessage(f"{what} is out of range")
    return item


def kind_of(item: Item) -> str:
    """Name an item's kind for an error text, without its value."""
    if item is None:
        return "null"
    names = {dict: "a map", list: "an array", str: "text", bytes: "a byte string", int: "an integer"}
    return names.get(type(item), type(item).__name__)
