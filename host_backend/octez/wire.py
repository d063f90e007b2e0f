"""Octez' socket protocol, to the byte. Pure.

- A frame is u16 (big-endian) bytes, and then so many: one request or one answer, nothing left over.
- A request begins with its tag; lists, messages and errors have their u32 bytes in front. A signature of the request is
  whatever follows the message.
- An answer begins with 0 and is the value, or with 1 and is a list of errors.
- A frame that is not a request ends the connection without an answer, as with octez-signer. Of a frame the first byte decides
  before the rest has come: no request of HTTP goes further than three bytes. A handshake of TLS begins as a request does, and
  ends when the time for one is over.

Source: Octez `src/lib_signer_services/signer_messages.ml`, `src/lib_base/unix/socket.ml`.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion
from enclave_signer.tezos import PUBLIC_KEY_HASH_BYTES, Family, encode, kinds_of, parse_public_key_hash
from host_backend.octez.bson import error_document

#: The largest that a length of 16 bits can announce.
MAX_FRAME_BYTES = 0xFFFF
#: Of an error's text: a hundred times what ours have.
MAX_ERROR_CHARS = 4096
#: Hashes of keys in one answer.
MAX_HASHES = (MAX_FRAME_BYTES - 6) // (1 + PUBLIC_KEY_HASH_BYTES)

_LENGTH = struct.Struct(">H")
_SIZE = struct.Struct(">I")
_OK, _ERROR = b"\x00", b"\x01"
_FALSE, _TRUE = 0x00, 0xFF
_HASH_KINDS = kinds_of(Family.PUBLIC_KEY_HASH)
#: Kinds of keys of which Octez' sockets have a form; signatures of requests may be of any kind that we know.
_TYPES = {key_type.facts.tag: key_type for key_type in KeyType if key_type.facts.tag <= KeyType.BLS.facts.tag}
_TZ5_TAG = 4
_SIGNATURE_SIZES = {0, *(key_type.facts.signature_bytes for key_type in KeyType)}
#: How a tz4 key signs; 3 adds a kind of key, and signs with the others as 2 does.
_VERSIONS = (SigningVersion.V0, SigningVersion.V1, SigningVersion.V2, SigningVersion.V2)


class NotOctez(Exception):
    """What came is no request; the connection ends."""


class _Tag(IntEnum):
    SIGN = 0
    PUBLIC_KEY = 1
    AUTHORIZED_KEYS = 2
    NONCE = 3
    NONCE_HASH = 4
    SUPPORTS_NONCES = 5
    KNOWN_KEYS = 6
    PROVE_POSSESSION = 7


@dataclass(frozen=True, slots=True)
class SignRequest:
    """Sign a message; `authentication` is a signature of the request, empty if there is none."""

    pkh: str
    message: bytes = field(repr=False)
    version: SigningVersion = SigningVersion.V2
    authentication: bytes = b""


@dataclass(frozen=True, slots=True)
class PublicKeyRequest:
    """Tell a public key."""

    pkh: str


@dataclass(frozen=True, slots=True)
class AuthorizedKeysRequest:
    """Tell which keys may sign requests."""


@dataclass(frozen=True, slots=True)
class NonceRequest:
    """Make a deterministic nonce, or tell its hash."""

    pkh: str


@dataclass(frozen=True, slots=True)
class SupportsNoncesRequest:
    """Tell whether a key makes deterministic nonces."""

    pkh: str


@dataclass(frozen=True, slots=True)
class KnownKeysRequest:
    """Tell all keys."""


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """Prove possession of a tz4 key, for itself or for another one."""

    pkh: str
    other: PublicKey | None


@dataclass(frozen=True, slots=True)
class Tz5Request:
    """Whatever is asked of a tz5 key: there is no form in which a client could sign with one."""


Request = (
    SignRequest
    | PublicKeyRequest
    | AuthorizedKeysRequest
    | NonceRequest
    | SupportsNoncesRequest
    | KnownKeysRequest
    | ProofRequest
    | Tz5Request
)


class _Tz5(Exception):
    """A hash of a tz5 key came."""


class Frames:
    """Takes bytes as they come, and gives the frames in them."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        """Return how many bytes wait."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        self._data += data

    def next(self) -> bytes | None:
        """Return the next frame without its length; None until it has come whole.

        Raises:
            NotOctez: It cannot become a request.
        """
        if len(self._data) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._data)
        if not size:
            raise NotOctez("an empty frame came")
        end = _LENGTH.size + size
        if len(self._data) > _LENGTH.size and self._data[_LENGTH.size] not in _READERS:
            raise NotOctez(
                f"no request begins with {self._data[_LENGTH.size]}: this is Octez' socket protocol, not HTTP"
            )
        if len(self._data) < end:
            return None
        frame = bytes(self._data[_LENGTH.size : end])
        del self._data[:end]
        return frame


class _Reader:
    """The rest of a frame."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise NotOctez("a request ends too early")
        self._at += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def sized(self) -> bytes:
        return self.take(_SIZE.unpack(self.take(_SIZE.size))[0])

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at < len(self._data):
            raise NotOctez("a request has bytes too many")

    def pkh(self) -> str:
        tag, digest = self.byte(), self.take(PUBLIC_KEY_HASH_BYTES)
        if tag == _TZ5_TAG:
            raise _Tz5
        if tag not in _TYPES:
            raise NotOctez(f"no kind of key has the tag {tag}")
        return encode(_HASH_KINDS[_TYPES[tag]], digest)

    def signature(self) -> bytes:
        data = self.rest()
        if len(data) not in _SIGNATURE_SIZES:
            raise NotOctez(f"no signature has {len(data)} bytes")
        return data


def _sign(reader: _Reader) -> SignRequest:
    tag, version = reader.byte(), SigningVersion.V2
    if tag == KeyType.BLS.facts.tag:
        # The hash has its own tag, here once more.
        pkh, number = reader.pkh(), reader.byte()
        if number >= len(_VERSIONS):
            raise NotOctez(f"there is no signing version {number}")
        version = _VERSIONS[number]
    elif tag in _TYPES:
        pkh = encode(_HASH_KINDS[_TYPES[tag]], reader.take(PUBLIC_KEY_HASH_BYTES))
    else:
        raise NotOctez(f"no kind of key has the tag {tag}")
    return SignRequest(pkh, reader.sized(), version, reader.signature())


def _nonce(reader: _Reader) -> NonceRequest:
    request = NonceRequest(reader.pkh())
    reader.sized()
    reader.signature()
    return request


def _proof(reader: _Reader) -> ProofRequest:
    pkh, flag = reader.pkh(), reader.byte()
    if flag not in {_FALSE, _TRUE}:
        raise NotOctez(f"{flag} is neither true nor false")
    size = KeyType.BLS.facts.public_key_bytes
    return ProofRequest(pkh, PublicKey(KeyType.BLS, reader.take(size)) if flag else None)


_READERS: dict[int, Callable[[_Reader], Request]] = {
    _Tag.SIGN: _sign,
    _Tag.PUBLIC_KEY: lambda reader: PublicKeyRequest(reader.pkh()),
    _Tag.AUTHORIZED_KEYS: lambda _: AuthorizedKeysRequest(),
    _Tag.NONCE: _nonce,
    _Tag.NONCE_HASH: _nonce,
    _Tag.SUPPORTS_NONCES: lambda reader: SupportsNoncesRequest(reader.pkh()),
    _Tag.KNOWN_KEYS: lambda _: KnownKeysRequest(),
    _Tag.PROVE_POSSESSION: _proof,
}


def parse_request(frame: bytes) -> Request:
    """Return the request in a frame of at least a byte.

    Raises:
        NotOctez: There is none.
    """
    reader = _Reader(frame)
    tag = reader.byte()
    if tag not in _READERS:
        raise NotOctez(f"no request begins with {tag}")
    try:
        request = _READERS[tag](reader)
    except _Tz5:
        return Tz5Request()
    reader.end()
    return request


def framed(payload: bytes) -> bytes:
    """Return a frame; at most `MAX_FRAME_BYTES` go into one."""
    return _LENGTH.pack(len(payload)) + payload


def signature_answer(signature: Signature) -> bytes:
    """Answer with a signature, or a proof of possession."""
    return _OK + signature.data


def public_key_answer(key: PublicKey) -> bytes:
    """Answer with a public key."""
    return _OK + bytes([key.key_type.facts.tag]) + key.data


def authorized_keys_answer(pkhs: Iterable[str] | None) -> bytes:
    """Answer which keys may sign requests; None: requests are not signed."""
    return _OK + (b"\x00" if pkhs is None else b"\x01" + _sized(map(tagged_hash, pkhs)))


def known_keys_answer(hashes: Iterable[bytes]) -> bytes:
    """Answer which keys there are: hashes as `tagged_hash` gives them, at most `MAX_HASHES`."""
    return _OK + _sized(hashes)


def no_nonces_answer() -> bytes:
    """Answer that a key makes no deterministic nonces."""
    return _OK + bytes([_FALSE])


def error_answer(text: str) -> bytes:
    """Answer with an error."""
    document = error_document(text[:MAX_ERROR_CHARS])
    error = _SIZE.pack(len(document)) + document
    return _ERROR + _SIZE.pack(len(error)) + error


def tagged_hash(pkh: str) -> bytes:
    """Return the hash of a key in bytes, its kind first."""
    key_type, digest = parse_public_key_hash(pkh)
    return bytes([key_type.facts.tag]) + digest


def has_form(tagged: bytes) -> bool:
    """Return whether a client of Octez' sockets could have anything signed with a key, by its hash in bytes."""
    return tagged[0] in _TYPES


def _sized(parts: Iterable[bytes]) -> bytes:
    data = b"".join(parts)
    return _SIZE.pack(len(data)) + data
