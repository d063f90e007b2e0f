"""Tezos base58check: the table of prefixes, encoding, decoding.

- How the texts of a curve begin is in its row of facts; all other prefixes are here.
- A text is base58 of prefix, payload and the first 4 bytes of double SHA-256 over both.
- The prefix decides the kind, and every kind has one payload size: a decoded value has the right length.
- Errors never repeat the text: it may be a secret key.

Source: Octez `src/lib_crypto/base58.ml`; `tests/vectors/signatory-vectors.json`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from hashlib import sha256
from math import log

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.tezos.errors import MalformedBase58

#: Decoding is quadratic (100 000 characters take a third of a second), so longer texts are refused unread where nothing
#: longer is needed. BLsig, the longest text of a curve proper, has 142 characters.
MAX_TEXT_CHARS = 142
#: Bytes of a public key hash: BLAKE2b-160.
PUBLIC_KEY_HASH_BYTES = 20
_CHECKSUM_BYTES = 4
#: What encryption adds to a private key: 8 bytes of salt, 16 of authentication.
ENCRYPTION_BYTES = 24
_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ALPHABET = frozenset(_DIGITS)
#: Digits are made two at a time, in chunks whose value fits a machine word: digit by digit a signature takes five times longer.
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_PAIRS_IN_CHUNK = 5
_CHUNK = len(_PAIRS) ** _PAIRS_IN_CHUNK
#: Chunks of the longest text of a curve proper; longer ones are divided in halves first, which takes a third of the time.
_UNDIVIDED = 15
#: Digits are read in chunks of the same size, for the same reason.
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_DIGITS_IN_CHUNK = 2 * _PAIRS_IN_CHUNK
_DIGITS_OF_BYTE = log(256, len(_DIGITS))
_CHUNKS_OF_BYTE = _DIGITS_OF_BYTE / _DIGITS_IN_CHUNK


class Family(StrEnum):
    """What a text stands for, in the words of the error texts."""

    PUBLIC_KEY_HASH = "public key hash"
    CONTRACT = "contract address"
    PUBLIC_KEY = "public key"
    PRIVATE_KEY = "secret key"
    ENCRYPTED_PRIVATE_KEY = "encrypted secret key"
    SIGNATURE = "signature"
    CHAIN_ID = "chain id"
    BLOCK_HASH = "block hash"
    PROTOCOL_HASH = "protocol hash"
    PAYLOAD_HASH = "block payload hash"
    OPERATIONS_HASH = "operations hash"
    CONTEXT_HASH = "context hash"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a kind is written.

    Attributes:
        family: What the text stands for.
        label: How the text begins, for people.
        prefix: The bytes before the payload.
        payload_bytes: Size of the payload.
        key_type: The curve that it belongs to; None: to none in particular.
    """

    family: Family
    label: str
    prefix: bytes
    payload_bytes: int
    key_type: KeyType | None = None


def _layout(family: Family, label: str, prefix_hex: str, payload_bytes: int, key_type: KeyType | None = None) -> Layout:
    return Layout(family, label, bytes.fromhex(prefix_hex), payload_bytes, key_type)


def _of_curve(family: Family, key_type: KeyType) -> Iterator[Layout]:
    """Yield how a curve's texts of a family are written; its usual one first."""
    facts, texts = key_type.facts, key_type.facts.texts
    match family:
        case Family.PUBLIC_KEY_HASH:
            yield _layout(family, facts.address, texts.hash_prefix, PUBLIC_KEY_HASH_BYTES, key_type)
        case Family.PUBLIC_KEY:
            yield _layout(family, *texts.public_key, facts.public_key_bytes, key_type)
        case Family.PRIVATE_KEY:
            for text, size in texts.private_keys:
                yield _layout(family, *text, size, key_type)
        case Family.ENCRYPTED_PRIVATE_KEY:
            _, size = texts.private_keys[0]
            yield _layout(family, *texts.encrypted_key, ENCRYPTION_BYTES + size, key_type)
        case Family.SIGNATURE:
            yield _layout(family, *texts.signature, facts.signature_bytes, key_type)


def _of_curves(*families: Family) -> dict[str, Layout]:
    """Return how texts of these families are written, by names such as `ED25519_PUBLIC_KEY`; a second one ends in `_2`."""
    return {
        "_".join([key_type.name, family.name, *([str(number)] if number > 1 else [])]): layout
        for family in families
        for key_type in KeyType
        for number, layout in enumerate(_of_curve(family, key_type), start=1)
    }


class Kind(Enum):
    """Every kind of text this signer reads or writes; those of a curve are found by `kinds_of`."""

    vars().update(_of_curves(Family.PUBLIC_KEY_HASH))
    CONTRACT = _layout(Family.CONTRACT, "KT1", "025a79", 20)
    vars().update(
        _of_curves(Family.PUBLIC_KEY, Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY, Family.SIGNATURE),
    )
    GENERIC_SIGNATURE = _layout(Family.SIGNATURE, "sig", "04822b", 64)
    CHAIN_ID = _layout(Family.CHAIN_ID, "Net", "575200", 4)
    BLOCK_HASH = _layout(Family.BLOCK_HASH, "B", "0134", 32)
    PROTOCOL_HASH = _layout(Family.PROTOCOL_HASH, "P", "02aa", 32)
    BLOCK_PAYLOAD_HASH = _layout(Family.PAYLOAD_HASH, "vh", "016af2", 32)
    OPERATION_LIST_LIST_HASH = _layout(Family.OPERATIONS_HASH, "LLo", "1d9f6d", 32)
    CONTEXT_HASH = _layout(Family.CONTEXT_HASH, "Co", "4fc7", 32)


def _longest_text(family: Family) -> int:
    """Return the characters of the longest text of a family; computed, as writing it takes milliseconds."""
    return max(
        1
        + int(
            log(int.from_bytes(kind.value.prefix) + 1, len(_DIGITS))
            + (kind.value.payload_bytes + _CHECKSUM_BYTES) * _DIGITS_OF_BYTE
        )
        for kind in Kind
        if kind.value.family is family
    )


_LONGEST = {family: _longest_text(family) for family in Family}


def kinds_of(family: Family) -> dict[KeyType, Kind]:
    """Return the kinds of a family, by the curve that each belongs to; the first of a curve is its usual one."""
    found: dict[KeyType, Kind] = {}
    for kind in Kind:
        if kind.value.family is family and kind.value.key_type is not None:
            found.setdefault(kind.value.key_type, kind)
    return found


def encode(kind: Kind, payload: bytes) -> str:
    """Write a payload as text.

    Args:
        kind: What the payload is.
        payload: Exactly the bytes that the kind asks for.

    Returns:
        The base58check text, e.g. `tz1…`.

    Raises:
        MalformedBase58: The payload has another size; look at where it came from.
    """
    layout = kind.value
    if len(payload) != layout.payload_bytes:
        raise MalformedBase58(_size_text(layout, len(payload)))
    data = layout.prefix + payload
    return _base58(data + _checksum(data))


def _base58(data: bytes) -> str:
    """Return the digits of bytes that do not begin with a zero, as those of no prefix do."""
    chunks = int(len(data) * _CHUNKS_OF_BYTE) + 1
    return "".join(_texts(int.from_bytes(data), chunks)).lstrip(_DIGITS[0])


def _texts(number: int, chunks: int) -> list[str]:
    """Return the digits of a number below `_CHUNK ** chunks`, a text for each chunk, with zeros in front."""
    if chunks > _UNDIVIDED:
        half = chunks // 2
        high, low = divmod(number, _CHUNK**half)
        return _texts(high, chunks - half) + _texts(low, half)
    pairs, count = _PAIRS, len(_PAIRS)
    cube = count**3
    texts: list[str] = []
    for _ in range(chunks):
        number, chunk = divmod(number, _CHUNK)
        # Written out, for the five pairs of a chunk: a loop takes half as long again.
        high, low = divmod(chunk, cube)
        middle, last = divmod(low, count)
        texts.append(
            f"{pairs[high // count]}{pairs[high % count]}{pairs[middle // count]}{pairs[middle % count]}{pairs[last]}"
        )
    texts.reverse()
    return texts


def decode(text: str, *families: Family) -> tuple[Kind, bytes]:
    """Read a text that stands for one of the given families.

    Args:
        text: Anything; only exact base58check is accepted, without spaces around it.
        families: The acceptable ones, at least one.

    Returns:
        The kind, and a payload of that kind's size.

    Raises:
        MalformedBase58: The text is too long, garbled, of an unknown kind, or of a kind not wanted here; the error says
            which.
    """
    wanted = " or ".join(_with_article(family) for family in families)
    kind, payload = _split(_decode_checked(text, wanted, _limit(families)), wanted)
    family = kind.value.family
    if family not in families:
        raise MalformedBase58(f"wrong kind: got {_with_article(family)} ({kind.value.label}…) where {wanted} is needed")
    return kind, payload


def _decode_checked(text: str, wanted: str, limit_chars: int) -> bytes:
    """Undo base58 and check the checksum; returns prefix and payload."""
    if not text:
        raise MalformedBase58(f"empty text where {wanted} is needed")
    if len(text) > limit_chars:
        raise MalformedBase58(
            f"{len(text)} characters where {wanted} is needed; no such text is longer than {limit_chars}"
        )
    if not _ALPHABET.issuperset(text):
        raise MalformedBase58(f"invalid character where {wanted} is needed; base58 has no 0, O, I, l and no spaces")
    raw = _bytes(text)
    data, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if _checksum(data) != checksum:
        raise MalformedBase58(f"invalid checksum where {wanted} is needed; copy it again in full")
    return data


def _limit(families: tuple[Family, ...]) -> int:
    """Return how long a text may be: also one of a kind that is wrong here, so that the error can name it."""
    return max(MAX_TEXT_CHARS, *(_LONGEST[family] for family in families))


def _bytes(text: str) -> bytes:
    """Return the bytes that digits stand for; each digit 1 at the beginning is a zero."""
    number = 0
    for start in range(0, len(text), _DIGITS_IN_CHUNK):
        digits = text[start : start + _DIGITS_IN_CHUNK]
        chunk = 0
        for digit in digits:
            chunk = chunk * len(_DIGITS) + _VALUES[digit]
        number = number * len(_DIGITS) ** len(digits) + chunk
    zeros = len(text) - len(text.lstrip(_DIGITS[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _split(data: bytes, wanted: str) -> tuple[Kind, bytes]:
    """Find the kind by its prefix; no prefix of the table begins another."""
    for kind in Kind:
        layout = kind.value
        if data.startswith(layout.prefix):
            payload = data[len(layout.prefix) :]
            if len(payload) != layout.payload_bytes:
                raise MalformedBase58(_size_text(layout, len(payload)))
            return kind, payload
    raise MalformedBase58(f"unknown prefix where {wanted} is needed; check that the text is one")


def _size_text(layout: Layout, size_bytes: int) -> str:
    return f"{_with_article(layout.family)} ({layout.label}…) of {size_bytes} bytes instead of {layout.payload_bytes}"


def _with_article(family: Family) -> str:
    return f"an {family}" if family[0] in "aeio" else f"a {family}"


def _checksum(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()[:_CHECKSUM_BYTES]
