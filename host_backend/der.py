"""Reading DER as keys have it: tags of one byte, values of at most 64 KiB."""


class NotDer(Exception):
    """The bytes are something else, or were cut short."""


def read_value(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and the bytes of the first value, and what follows it.

    Raises:
        NotDer: There is no whole value.
    """
    if len(data) < 2:
        raise NotDer
    start, length = 2, data[1]
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 2:
            # More than 64 KiB, or no length at all.
            raise NotDer
        start, length = 2 + count, int.from_bytes(data[2 : 2 + count], "big")
    if len(data) < start + length:
        raise NotDer
    return data[0], data[start : start + length], data[start + length :]


def members(data: bytes) -> list[tuple[int, bytes]]:
    """Return the tag and the bytes of each value, one after the other.

    Raises:
        NotDer: They are not whole values.
    """
    found = []
    while data:
        tag, value, data = read_value(data)
        found.append((tag, value))
    return found
