"""A client for applications on the enclave's own machine: they sign, and ask for public keys, at its Unix socket.

- It needs the standard library and the wire alone, and blocks; one thread at a time uses a client.
- The process that connects is the one that must call: the enclave ends the connection of a child, or of a process that
  has changed its user since.
- Signatures are not verified here; `enclave_signer.curves` can.
"""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadFrame, BadMessage, Family, WireError, family_of
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import (
    Credentials,
    GetPublicKey,
    Import,
    ImportedKey,
    Initialize,
    ProvePossession,
    PublicKey,
    Request,
    Result,
    Sign,
    Signature,
    SigningVersion,
    UseKey,
)
from enclave_signer.tezos import encode_public_key, encode_signature, public_key_hash

#: An enclave on the same machine answers within milliseconds; one that opens a key asks a cloud, for up to 25 s.
DEFAULT_TIMEOUT_S = 30.0
_READ_BYTES = 65536
#: `struct ucred`: process, user, group. Source: `unix(7)`.
_CREDENTIALS = struct.Struct("=iII")

R = TypeVar("R", bound=Result)


class ClientError(Exception):
    """Root of what a client raises."""


class Refused(ClientError):
    """The enclave refuses the call; asking again will not help, unless the text begins with `unavailable`.

    Attributes:
        family: What the refusal means.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.family: Family = family_of(text)

    @property
    def retriable(self) -> bool:
        """Whether asking later may help: the key is not open yet, or what opens it does not answer."""
        return self.family in {Family.UNAVAILABLE, Family.NOT_RELEASED}


class Disconnected(ClientError):
    """There is no enclave, it gave no answer in time, or it has ended the connection; make a new client.

    An enclave that has rules for its clients ends the connection of those that none names; its log says which and why.
    """


class LocalClient:
    """A connection to the enclave.

    Args:
        path: Of its Unix socket.
        uid: The user that the enclave runs as; another one is given nothing. None: whichever has the socket.
        timeout_s: Seconds for connecting, and for a call in which nothing comes from the enclave.

    Raises:
        Disconnected: There is no enclave, or it is another user's.
    """

    def __init__(self, path: Path | str, *, uid: int | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._frames = FrameDecoder()
        self._initialized = False
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
            self._require_user(uid, path)
        except OSError as error:
            self.close()
            raise Disconnected(f"no enclave can be reached at {path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def _require_user(self, wanted: int | None, path: Path | str) -> None:
        found = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(found)
        if wanted is not None and uid != wanted:
            raise Disconnected(f"a process of the user {uid} listens at {path}, not of {wanted}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """End the connection, and with it the use of its keys; may be repeated."""
        self._socket.close()

    def use_key(self, pkh: str) -> "Key":
        """Return a key that is open in the enclave already; this asks no outside service.

        Args:
            pkh: Its address, `tz1…` to `tz5…`.

        Raises:
            Refused: No rule of the image allows it, or the key is not open (`retriable`).
            Disconnected: The connection has ended.
            ValueError: The enclave gave another key: do not use it.
        """
        return self._key(self.call(UseKey(pkh), ImportedKey), pkh)

    def open_key(self, blob: bytes, pkh: str, credentials: Credentials | None = None) -> "Key":
        """Return a sealed key, opened by the enclave: at its first use that asks what sealed it.

        Args:
            blob: The sealed key.
            pkh: Its address.
            credentials: Of the identity and the key-encryption key, where the image allows several.

        Raises:
            Refused: As above, or what seals the key refuses.
            Disconnected: The connection has ended.
            ValueError: The blob holds another key: do not use it.
        """
        if not self._initialized:
            self._ask(Initialize(credentials or Credentials()))
            self._initialized = True
        return self._key(self.call(Import(blob), ImportedKey), pkh)

    def call(self, request: Request, expected: type[R]) -> R:
        """Return what the enclave answers to a call of the wire; keys make theirs by it.

        Args:
            request: The call.
            expected: What its answer must be.

        Raises:
            Refused: The enclave refuses it.
            Disconnected: The connection has ended, or the answer is another kind.
        """
        result = self._ask(request)
        if not isinstance(result, expected):
            raise Disconnected("the enclave answered another call than was made: make a new client")
        return result

    def _key(self, opened: ImportedKey, pkh: str) -> "Key":
        found = public_key_hash(opened.public_key)
        if found != pkh:
            raise ValueError(f"the enclave gave the key {found} for {pkh}")
        return Key(self, opened.public_key, opened.handle)

    def _ask(self, request: Request) -> Result:
        try:
            self._socket.sendall(encode_frame(codec.encode_request(request)))
            return codec.decode_reply(request, self._receive())
        except WireError as error:
            raise Refused(str(error)) from None
        except (OSError, BadFrame, BadMessage) as error:
            self.close()
            raise Disconnected(f"the connection to the enclave has ended: {error}") from error
        except BaseException:
            # Such as one of a signal's handler: what comes late would answer the next call.
            self.close()
            raise

    def _receive(self) -> bytes:
        while (frame := self._frames.next_frame()) is None:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("closed by the enclave: see its log")
            self._frames.feed(data)
        return frame


@dataclass(frozen=True, slots=True)
class Key:
    """A key of one client, good until that is closed."""

    _client: LocalClient = field(repr=False)
    _public_key: PublicKey
    _handle: int = field(repr=False)

    @property
    def public_key(self) -> str:
        """The public key: `edpk…`, `sppk…`, `p2pk…`, `BLpk…` or `mdpk…`."""
        return encode_public_key(self._public_key)

    @property
    def pkh(self) -> str:
        """The address: `tz1…` to `tz5…`."""
        return public_key_hash(self._public_key)

    def ask_public_key(self) -> str:
        """Return the public key as the enclave says it at this moment, which shows that it is there.

        Raises:
            Refused: No rule allows it.
            Disconnected: The connection has ended.
        """
        return encode_public_key(self._client.call(GetPublicKey(self._handle), PublicKey))

    def sign(self, message: bytes, version: SigningVersion = SigningVersion.LATEST) -> str:
        """Return a signature: `edsig…`, `spsig1…`, `p2sig…`, `BLsig…` or `mdsig…`.

        Args:
            message: At most 32768 bytes. It is hashed by the enclave, except for tz4 keys, which sign it as it is.
            version: For tz4 keys.

        Raises:
            Refused: No rule allows it, or the guard refuses a second consensus message for one right.
            Disconnected: The connection has ended.
        """
        call = Sign(self._handle, message, version)
        return encode_signature(self._client.call(call, Signature))

    def prove_possession(self) -> str:
        """Return a proof of possession of a tz4 key: `BLsig…`.

        Raises:
            Refused: No rule allows it, or the key is of another kind.
            Disconnected: The connection has ended.
        """
        return encode_signature(self._client.call(ProvePossession(self._handle), Signature))
