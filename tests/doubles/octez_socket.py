"""A client of Octez' sockets: writes requests and reads answers by its own rules, and shares no code with the host's."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import base58

from tests.doubles.known_keys import KnownKey
from tests.doubles.octez_client import NoAuthorizedKey, signature_by, tagged
from tests.doubles.processes import PATIENCE_S

#: Bytes of base58 texts before the 64 or 96 bytes of a signature, by how they begin.
_SIGNATURE_PREFIXES = {"edsig": 5, "spsig1": 5, "p2sig": 4, "BLsig": 4}
_KINDS = {0: "06a19f", 1: "06a1a1", 2: "06a1a4", 3: "06a1a6"}


def dynamic(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def framed(payload: bytes) -> bytes:
    return struct.pack(">H", len(payload)) + payload


def signing_request(pkh: str, message: bytes, version: int = 3, authentication: bytes = b"") -> bytes:
    """Return the payload of tag 0: a tz4 key has its tag twice, and a version."""
    key = tagged(pkh)
    form = b"\x03" + key + bytes([version]) if key[:1] == b"\x03" else key
    return b"\x00" + form + dynamic(message) + authentication


def raw_signature(text: str) -> bytes:
    prefix = next(size for label, size in _SIGNATURE_PREFIXES.items() if text.startswith(label))
    return base58.b58decode_check(text)[prefix:]


class SignerError(Exception):
    """The signer answered with an error; its text."""


@dataclass(frozen=True, slots=True)
class _Bson:
    """A reader of the one document that errors are."""

    data: bytes

    def texts(self) -> dict[str, str]:
        (size,) = struct.unpack_from("<i", self.data)
        assert size == len(self.data)
        assert self.data[-1] == 0
        left, found = self.data[4:-1], {}
        while left:
            assert left[0] == 2
            name, _, left = left[1:].partition(b"\0")
            (length,) = struct.unpack_from("<i", left)
            assert left[3 + length] == 0
            found[name.decode()] = left[4 : 3 + length].decode()
            left = left[4 + length :]
        return found


def value_of(payload: bytes) -> bytes:
    """Return the value of an answer."""
    if payload[0] == 0:
        return payload[1:]
    assert payload[0] == 1
    assert payload[1:5] == struct.pack(">I", len(payload) - 5)
    assert payload[5:9] == struct.pack(">I", len(payload) - 9)
    texts = _Bson(payload[9:]).texts()
    assert list(texts) == ["kind", "id", "msg"]
    assert (texts["kind"], texts["id"]) == ("temporary", "failure")
    raise SignerError(texts["msg"])


def hashes(data: bytes) -> list[str]:
    (size,) = struct.unpack_from(">I", data)
    assert size == len(data) - 4
    assert size % 21 == 0
    tags = [data[at : at + 21] for at in range(4, len(data), 21)]
    return [base58.b58encode_check(bytes.fromhex(_KINDS[tag[0]]) + tag[1:]).decode() for tag in tags]


class OctezSocket:
    """A connection; `address` is a port of this machine, or the path of a Unix socket."""

    def __init__(self, address: int | Path) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE_S)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(("127.0.0.1", address), PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError(data)
            data += part
        return data

    def read(self) -> bytes:
        """Return the payload of one answer."""
        (size,) = struct.unpack(">H", self._exactly(2))
        return self._exactly(size)

    def ended(self) -> bool:
        """Return whether the signer has nothing more to say, and has closed the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def ask(self, payload: bytes) -> bytes:
        """Make one request; return the value of the answer."""
        self.send(framed(payload))
        return value_of(self.read())


class OctezSocketClient:
    """`octez-client` with a locator `tcp:` or `unix:`: a connection for each operation."""

    def __init__(self, address: int | Path, wallet: Sequence[KnownKey] = ()) -> None:
        self._address = address
        self._wallet = {key.pkh: key for key in wallet}

    def ask(self, payload: bytes) -> bytes:
        with OctezSocket(self._address) as stream:
            return stream.ask(payload)

    def sign(self, pkh: str, message: bytes, version: int = 3) -> bytes:
        """Return the bytes of a signature."""
        with OctezSocket(self._address) as stream:
            wanted = stream.ask(b"\x02")
            authentication = b""
            if wanted != b"\x00":
                assert wanted[:1] == b"\x01"
                signer = next((self._wallet[key] for key in hashes(wanted[1:]) if key in self._wallet), None)
                if signer is None:
                    raise NoAuthorizedKey
                authentication = raw_signature(signature_by(signer, b"\x04\x01" + tagged(pkh) + message))
            return stream.ask(signing_request(pkh, message, version, authentication))

    def public_key(self, pkh: str) -> bytes:
        return self.ask(b"\x01" + tagged(pkh))

    def known_keys(self) -> list[str]:
        return hashes(self.ask(b"\x06"))

    def prove_possession(self, pkh: str, other: bytes | None = None) -> bytes:
        return self.ask(b"\x07" + tagged(pkh) + (b"\x00" if other is None else b"\xff" + other))
