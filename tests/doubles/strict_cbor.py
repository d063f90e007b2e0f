"""CBOR read a second time, from RFC 8949 alone: definite lengths, no tags, no key twice. Slow and plain on purpose."""

from typing import NamedTuple

Item = object


class NotStrict(Exception):
    """It is not one whole item of this kind."""


class Other(NamedTuple):
    """A float or simple value other than false, true and null: known by its bytes."""

    data: bytes


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        if count > len(self.rest):
            raise NotStrict
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


def read(data: bytes, max_depth: int) -> Item:
    """Return the one item in bytes; containers nest `max_depth` deep at most."""
    cursor = _Cursor(data)
    item = _item(cursor, max_depth)
    if cursor.rest:
        raise NotStrict
    return item


def _item(cursor: _Cursor, depth: int) -> Item:
    first = cursor.take(1)
    major, short = first[0] >> 5, first[0] & 0x1F
    if short > 27:
        raise NotStrict
    argument = cursor.take(1 << (short - 24)) if short >= 24 else bytes([short])
    number = int.from_bytes(argument)
    match major:
        case 0:
            return number
        case 1:
            return -1 - number
        case 2:
            return cursor.take(number)
        case 3:
            return _text(cursor.take(number))
        case 4 if depth:
            return [_item(cursor, depth - 1) for _ in range(_count(cursor, number))]
        case 5 if depth:
            return _map(cursor, _count(cursor, number), depth - 1)
        case 7:
            return {20: False, 21: True, 22: None}.get(first[0] & 0x1F, Other(first + argument))
    raise NotStrict


def _count(cursor: _Cursor, count: int) -> int:
    """Return how many items a container has, each of which takes a byte at least."""
    if count > len(cursor.rest):
        raise NotStrict
    return count


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NotStrict from None


def _map(cursor: _Cursor, count: int, depth: int) -> dict[object, Item]:
    found: dict[object, Item] = {}
    for _ in range(count):
        key = _item(cursor, depth)
        if isinstance(key, list | dict) or key in found:
            raise NotStrict
        found[key] = _item(cursor, depth)
    return found
