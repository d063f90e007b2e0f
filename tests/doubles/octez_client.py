"""A client that asks as `octez-client` and the Octez baker do, over TCP or a Unix socket; it shares no code with the routes."""

import http.client
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import base58

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import PrivateKey, SigningVersion
from enclave_signer.tezos import encode_signature
from tests.doubles.host_process import Answer
from tests.doubles.known_keys import KnownKey
from tests.doubles.processes import PATIENCE_S

_TAGS = {"tz1": b"\0", "tz2": b"\1", "tz3": b"\2", "tz4": b"\3"}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


class SignerRefused(Exception):
    """The signer answered with another status than 200."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)
        self.answer = answer


class NoAuthorizedKey(Exception):
    """The signer wants requests signed, and the wallet has none of its keys."""


def tagged(pkh: str) -> bytes:
    """Return a hash as Octez writes it in bytes: its curve, then 20 bytes."""
    return _TAGS[pkh[:3]] + base58.b58decode_check(pkh)[3:]


def signature_by(key: KnownKey, data: bytes, *, generic: bool = False) -> str:
    """Return a key's signature, in its curve's form or as `sig…`."""
    opened = curve(key.key_type).open(PrivateKey(key.key_type, _scalar(key)))
    signature = opened.sign(data, SigningVersion.LATEST)
    if not generic:
        return encode_signature(signature)
    return base58.b58encode_check(bytes.fromhex("04822b") + signature.data).decode()


def _scalar(key: KnownKey) -> bytes:
    return key.secret_bytes[::-1] if key.pkh.startswith("tz4") else key.secret_bytes


class OctezClient:
    """A wallet whose keys live in a remote signer."""

    def __init__(self, address: int | Path, wallet: Sequence[KnownKey] = ()) -> None:
        self._address = address
        self._wallet = {key.pkh: key for key in wallet}

    def ask(self, method: str, path: str, body: str | None = None, **query: str) -> Answer:
        """Make one request, with Octez' headers."""
        unix = isinstance(self._address, Path)
        connection = (
            _UnixConnection(self._address)
            if isinstance(self._address, Path)
            else http.client.HTTPConnection("127.0.0.1", self._address, timeout=PATIENCE_S)
        )
        headers = {"Accept": "application/octet-stream;q=1, application/bson;q=0.8, application/json;q=0.5"}
        headers["Host"] = "localhost" if unix else f"127.0.0.1:{self._address}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path, body, headers)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def _get(self, path: str, member: str, **query: str) -> object:
        answer = self.ask("GET", path, **query)
        if answer.status != 200:
            raise SignerRefused(answer)
        assert answer.headers["content-type"].startswith("application/json")
        return json.loads(answer.body)[member]

    def import_key(self, pkh: str) -> str:
        """`octez-client import secret key`: return the public key."""
        return str(self._get(f"/keys/{pkh}", "public_key"))

    def list_known_keys(self) -> list[str]:
        """`octez-client list known remote keys`."""
        keys = self._get("/known_keys", "known_keys")
        assert isinstance(keys, list)
        return keys

    def _authentication(self, data: bytes) -> dict[str, str]:
        answer = self.ask("GET", "/authorized_keys")
        assert answer.status == 200
        authorized = json.loads(answer.body).get("authorized_keys")
        if authorized is None:
            return {}
        for pkh in authorized:
            if pkh in self._wallet:
                return {"authentication": signature_by(self._wallet[pkh], data)}
        raise NoAuthorizedKey

    def sign(self, pkh: str, message: bytes, version: int | None = None) -> str:
        """Have a message signed; the version is named for tz4 keys only, as in Octez."""
        query = self._authentication(b"\x04\x01" + tagged(pkh) + message)
        if version is not None:
            query["version"] = str(version)
        answer = self.ask("POST", f"/keys/{pkh}", json.dumps(message.hex()), **query)
        if answer.status != 200:
            raise SignerRefused(answer)
        return answer.signature

    def prove_possession(self, pkh: str, bls_pk: str | None = None) -> str:
        """Have possession of a tz4 key proved, perhaps bound to a named public key."""
        bound = b"" if bls_pk is None else base58.b58decode_check(bls_pk)[4:]
        query = self._authentication(b"\x04\x04" + tagged(pkh) + bound)
        if bls_pk is not None:
            query["bls_pk"] = bls_pk
        return str(self._get(f"/bls_prove_possession/{pkh}", "bls_prove_possession", **query))
