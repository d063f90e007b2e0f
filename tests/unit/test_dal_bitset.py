"""The DAL bitset, wherever it stands: one number, never negative, in its shortest form, with room for later protocols."""

from collections.abc import Callable

import pytest

from enclave_signer.errors import GuardRefused
from enclave_signer.guard import Guard
from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos.protocols import MAX_DAL_BITSET_BYTES
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import parse_message

KEY = PublicKey(KeyType.ED25519, bytes(32))
HASH = b"\xab" * 32
CONTENT = b"\x00\x00\x00\x07" + b"\x00\x00\x00\x02" + HASH
VOTE = b"\x00\x09" + CONTENT
#: 1 to what 025 has at most, what 256 slots at 16 lags would need, and all that there is room for.
SIZES = [*range(1, 134), 679, 680, MAX_DAL_BITSET_BYTES - 1, MAX_DAL_BITSET_BYTES]


def dynamic(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def attestation(bitset: bytes) -> bytes:
    return b"\x13" + b"abcd" + HASH + b"\x17" + VOTE + bitset


def aggregate(bitset: bytes) -> bytes:
    return b"\x03" + HASH + b"\x1f" + CONTENT + dynamic(b"\x00\x01\xff" + bitset)


def inlined(body: bytes) -> bytes:
    return dynamic(HASH + body + bytes(64))


def double_attestation(bitset: bytes) -> bytes:
    return b"\x03" + HASH + b"\x02\x00\x09" + inlined(b"\x17" + VOTE + bitset) + inlined(b"\x15" + VOTE)


def double_aggregate(bitset: bytes) -> bytes:
    body = b"\x1f" + CONTENT + dynamic(b"\x00\x01\xff" + bitset)
    return b"\x03" + HASH + b"\x02\x00\x09" + inlined(b"\x15" + VOTE) + inlined(body)


def entrapment(bitset: bytes) -> bytes:
    proven = b"\x00\x00\x00\x05" + dynamic(HASH) + bytes(48)
    return b"\x03" + HASH + b"\x18" + inlined(b"\x17" + VOTE + bitset) + b"\x00\x09\x03\xff\x04" + proven


EVERYWHERE = pytest.mark.parametrize("make", [attestation, aggregate, double_attestation, double_aggregate, entrapment])


def bitset(size: int, last: int = 0x01, filler: int = 0xBF) -> bytes:
    """Write a number of so many bytes; its first byte has no sign."""
    return bytes([filler] * (size - 1) + [last])


def read(message: bytes) -> tuple[bool, bool]:
    """Tell whether the host reads a message, and whether the guard lets it pass."""
    try:
        parse_message(message)
        host = True
    except MalformedRequest:
        host = False
    try:
        Guard(1, lambda _: None).check(KEY, message)
    except GuardRefused:
        return host, False
    return host, True


def agreed(message: bytes) -> bool:
    """Tell whether a message is read; what the guard does not look at is the host's to judge."""
    host, guard = read(message)
    assert host == guard or message[0] == 0x03
    return host


@EVERYWHERE
@pytest.mark.parametrize("size", SIZES)
def test_sizes(make: Callable[[bytes], bytes], size: int) -> None:
    for last, filler in ((0x01, 0x80), (0x3F, 0xBF), (0x7F if size > 1 else 0x3F, 0xBF)):
        assert agreed(make(bitset(size, last, filler)))


@EVERYWHERE
def test_the_largest_of_all(make: Callable[[bytes], bytes]) -> None:
    for size in (MAX_DAL_BITSET_BYTES + 1, 4096, 20_000):
        assert not agreed(make(bitset(size)))


@EVERYWHERE
@pytest.mark.parametrize("size", [1, 2, 5, 132, 133, 134, 679, MAX_DAL_BITSET_BYTES])
def test_none_is_negative(make: Callable[[bytes], bytes], size: int) -> None:
    positive = bitset(size)
    assert not agreed(make(bytes([positive[0] | 0x40]) + positive[1:]))


@EVERYWHERE
@pytest.mark.parametrize("size", [2, 5, 132, 133, 134, 679, MAX_DAL_BITSET_BYTES])
def test_all_are_in_their_shortest_form(make: Callable[[bytes], bytes], size: int) -> None:
    assert not agreed(make(bitset(size, 0x00)))


@EVERYWHERE
@pytest.mark.parametrize("size", [2, 5, 132, 133, 134, 679, MAX_DAL_BITSET_BYTES])
def test_none_is_truncated(make: Callable[[bytes], bytes], size: int) -> None:
    whole = bitset(size)
    for kept in {0, 1, size // 2, size - 1}:
        assert not agreed(make(whole[:kept])), kept


@EVERYWHERE
@pytest.mark.parametrize("size", [1, 2, 133, 679])
def test_nothing_follows(make: Callable[[bytes], bytes], size: int) -> None:
    for more in (b"\x00", b"\x01", b"\x80", b"\x80\x01"):
        assert not agreed(make(bitset(size) + more))
