"""A stand-in that behaves as tee-signer does, over a real socket: one thread and one session per connection.

Written from recorded answers (`tests/vectors/enclave-transcripts.json`), which a test plays to it: every one of them is
equal, byte for byte, texts of errors included. It shares with the product only the curves, which have their own oracles.

- Ed25519 signatures are arrays of integers. `Sign` may come as an array, bytes as integers; unknown fields and what
  follows an item are ignored; `version` must be there.
- A BLS signature under version 0 kills the handler: the connection drops without an answer, with all its keys.
- Messages end at 4096 bytes. Causes stand below `signer error`.
- Nothing keeps it from signing two messages for one right.
- What was opened on one connection is not remembered for another: its sealer is asked for every `Import`.

Not modelled: a sealing that seals (blobs are the keys in clear, as in its `confidential_signer_mock`), the memory that
it reserves for an announced length, its speed, and its words for malformed items that were not recorded.
"""

import io
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cbor2

from enclave_signer.curves import CurveError, SigningKey, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion
from enclave_signer.protocol.values import key_type as key_type_named
from tests.doubles.held_sealer import HeldSealer
from tests.doubles.processes import PATIENCE_S

MAX_MESSAGE_BYTES = 4096
_CALLS = (
    "Initialize",
    "Import",
    "ImportUnencrypted",
    "Generate",
    "GenerateAndImport",
    "Sign",
    "SignWith",
    "PublicKey",
    "PublicKeyFrom",
    "ProvePossession",
)
_KEY_TYPES = ("Secp256k1", "NistP256", "Ed25519", "Bls")
_CUT_SHORT = 'Io(Error { kind: UnexpectedEof, message: "failed to fill whole buffer" })'


class _Refused(Exception):
    """An `Err`: the outermost text, and the one below it."""

    def __init__(self, text: str, cause: str | None = None) -> None:
        super().__init__(text)
        source = None if cause is None else {"message": cause, "source": None}
        self.reply = {"Err": {"message": text, "source": source}}


class _HandlerDied(Exception):
    """A panic: the connection drops."""


def _semantic(text: str) -> _Refused:
    return _Refused(f'Semantic(None, "{text}")')


def _wrong_type(value: object, expected: str) -> _Refused:
    match value:
        case bool() | float():
            named = "something else"
        case int():
            named = f"integer `{value}`"
        case None:
            named = "null"
        case str():
            named = "string"
        case bytes():
            named = "bytes"
        case list():
            named = "sequence"
        case _:
            named = "map"
    return _semantic(f"invalid type: {named}, expected {expected}")


def _one_of(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _variant(data: bytes, names: tuple[str, ...]) -> tuple[str, object]:
    """Return the one entry of a map; whatever follows the map is not looked at."""
    if data[:1] == b"\xff":
        raise _semantic("invalid type: break, expected enum")
    if data[:1] == b"\xbf":
        raise _semantic("invalid type: map, expected enum")
    try:
        value = cbor2.CBORDecoder(io.BytesIO(data)).decode()
    except (cbor2.CBORDecodeError, EOFError):
        raise _Refused(_CUT_SHORT) from None
    if isinstance(value, str):
        # The name of a call, and no argument.
        raise _Refused(_CUT_SHORT)
    if not isinstance(value, dict) or len(value) != 1:
        raise _wrong_type(value, "enum")
    ((name, argument),) = value.items()
    if name not in names:
        raise _semantic(f"unknown variant `{name}`, expected one of {_one_of(names)}")
    return str(name), argument


def _bytes(value: object) -> bytes:
    if isinstance(value, list):
        return bytes(value)
    if not isinstance(value, bytes):
        raise _wrong_type(value, "bytes")
    return value


def _message(value: object) -> bytes:
    message = _bytes(value)
    if len(message) > MAX_MESSAGE_BYTES:
        raise _wrong_type(message, "bytes")
    return message


def _handle(value: object) -> int:
    if not isinstance(value, int):
        raise _wrong_type(value, "integer")
    if value < 0:
        raise _semantic("unexpected negative integer")
    return value


def _version(value: object) -> SigningVersion:
    if value not in set(SigningVersion):
        raise _semantic(f"invalid value: {value}, expected one of: 0, 1, 2, 255")
    assert isinstance(value, int)
    return SigningVersion(value)


def _fields(argument: object, *names: str) -> list[object]:
    if isinstance(argument, list) and len(argument) == len(names):
        return argument
    if not isinstance(argument, dict):
        raise _wrong_type(argument, "map")
    for name in names:
        if name not in argument:
            raise _semantic(f"missing field `{name}`")
    return [argument[name] for name in names]


def _key_type(value: object) -> KeyType:
    if not isinstance(value, str):
        raise _wrong_type(value, "enum")
    if value not in _KEY_TYPES:
        raise _semantic(f"unknown variant `{value}`, expected one of {_one_of(_KEY_TYPES)}")
    return key_type_named(value)


def _open(name: str, value: object) -> SigningKey:
    """Return an opened key; sizes and ranges are reported in the words of the library of each curve."""
    data, key_type = _bytes(value), key_type_named(name)
    if len(data) != 32:
        if key_type is KeyType.ED25519:
            raise _semantic("signature error: SecretKey must be 32 bytes in length")
        raise _semantic(f"invalid length {len(data)}, expected a byte array of size 32")
    try:
        return curve(key_type).open(PrivateKey(key_type, data))
    except CurveError:
        raise _semantic("Bad encoding" if key_type is KeyType.BLS else "signature error") from None


class _Session:
    """The calls of one connection."""

    def __init__(self) -> None:
        self._initialized = False
        self._keys: list[SigningKey] = []
        self._calls: dict[str, Callable[[object], Callable[[], object]]] = {
            "Initialize": self._initialize,
            "Import": self._import,
            "ImportUnencrypted": self._import_unencrypted,
            "Generate": self._generate,
            "GenerateAndImport": self._generate_and_import,
            "Sign": self._sign,
            "SignWith": self._sign_with,
            "PublicKey": self._public_key,
            "PublicKeyFrom": self._public_key_from,
            "ProvePossession": self._prove_possession,
        }

    def answer(self, body: bytes) -> bytes:
        try:
            name, argument = _variant(body, _CALLS)
            # The whole call is read before anything is done.
            act = self._calls[name](argument)
            self._check_state(name)
            reply: object = {"Ok": act()}
        except _Refused as refused:
            reply = refused.reply
        return cbor2.dumps(reply)

    def _check_state(self, name: str) -> None:
        if name == "Initialize" and self._initialized:
            raise _Refused("already initialized")
        if name != "Initialize" and not self._initialized:
            raise _Refused("uninitialized")

    def _initialize(self, argument: object) -> Callable[[], object]:
        if not isinstance(argument, dict):
            raise _wrong_type(argument, "map")

        def act() -> None:
            self._initialized = True

        return act

    def _import(self, argument: object) -> Callable[[], object]:
        blob = _bytes(argument)
        return lambda: self._kept(_unsealed(blob))

    def _import_unencrypted(self, argument: object) -> Callable[[], object]:
        name, value = _variant(cbor2.dumps(argument), _KEY_TYPES)
        key = _open(name, value)
        return lambda: {"encrypted_private_key": cbor2.dumps({name: _bytes(value)}), **self._kept(key)}

    def _generate(self, argument: object) -> Callable[[], object]:
        key_type = _key_type(argument)

        def act() -> object:
            blob = _new_blob(key_type)
            return {"encrypted_private_key": blob, "public_key": _public_key(_unsealed(blob))}

        return act

    def _generate_and_import(self, argument: object) -> Callable[[], object]:
        key_type = _key_type(argument)

        def act() -> object:
            blob = _new_blob(key_type)
            return {"encrypted_private_key": blob, **self._kept(_unsealed(blob))}

        return act

    def _sign(self, argument: object) -> Callable[[], object]:
        handle, message, version = _fields(argument, "handle", "message", "version")
        number, data, chosen = _handle(handle), _message(message), _version(version)
        return lambda: _signed(self._key(number), data, chosen)

    def _sign_with(self, argument: object) -> Callable[[], object]:
        blob, message, version = _fields(argument, "encrypted_private_key", "message", "version")
        sealed, data, chosen = _bytes(blob), _message(message), _version(version)
        return lambda: _signed(_unsealed(sealed), data, chosen)

    def _public_key(self, argument: object) -> Callable[[], object]:
        handle = _handle(argument)
        return lambda: _public_key(self._key(handle))

    def _public_key_from(self, argument: object) -> Callable[[], object]:
        blob = _bytes(argument)
        return lambda: _public_key(_unsealed(blob))

    def _prove_possession(self, argument: object) -> Callable[[], object]:
        handle = _handle(argument)

        def act() -> object:
            try:
                return _plain(self._key(handle).prove_possession())
            except CurveError:
                raise _Refused("signer error", "Proof of possession is not supported") from None

        return act

    def _kept(self, key: SigningKey) -> dict[str, object]:
        self._keys.append(key)
        return {"public_key": _public_key(key), "handle": len(self._keys) - 1}

    def _key(self, handle: int) -> SigningKey:
        if handle >= len(self._keys):
            raise _Refused("signer error", "invalid handle")
        return self._keys[handle]


def _new_blob(key_type: KeyType) -> bytes:
    return cbor2.dumps({key_type.value: curve(key_type).generate().data})


def _unsealed(blob: bytes) -> SigningKey:
    try:
        return _open(*_variant(blob, _KEY_TYPES))
    except _Refused as refused:
        raise _Refused("deserialization error", str(refused)) from None


def _public_key(key: SigningKey) -> object:
    return _plain(key.public_key)


def _signed(key: SigningKey, message: bytes, version: SigningVersion) -> object:
    try:
        signature = key.sign(message, version)
    except CurveError:
        raise _HandlerDied from None
    plain = _plain(signature)
    # The one type that its library writes as an array.
    return {"Ed25519": list(signature.data)} if signature.key_type is KeyType.ED25519 else plain


def _plain(value: PublicKey | Signature) -> object:
    return {value.key_type.value: value.data}


class TeeSigner:
    """Takes any number of connections."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._streams: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        #: Connections taken so far.
        self.connections = 0
        #: Bodies of all calls, in order of their coming.
        self.calls: list[bytes] = []
        self._came = threading.Condition(self._lock)
        self._sealer = HeldSealer()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def names(self) -> list[str]:
        """Return the names of all calls that were calls."""
        return [next(iter(cbor2.loads(body))) for body in self.calls]

    def wait_for(self, name: str, count: int) -> None:
        """Return when there were so many calls of a name."""
        with self._came:
            assert self._came.wait_for(lambda: self.names().count(name) >= count, PATIENCE_S)

    def hold_sealer(self) -> None:
        """Let nothing be opened or sealed from now on."""
        self._sealer.hold()

    def release_sealer(self, count: int | None = None) -> None:
        """Let so many keys be opened or sealed, or all."""
        self._sealer.release(count)

    def close(self) -> None:
        self._sealer.release(None)
        for stream in (self._listener, *self._streams):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
                with self._lock:
                    self.connections += 1
                    self._streams.add(stream)
                    self._threads.append(thread)
                thread.start()

    def _serve(self, stream: socket.socket) -> None:
        session = _Session()
        with stream, stream.makefile("rb") as reader, suppress(OSError, _HandlerDied):
            while len(head := reader.read(4)) == 4:
                body = reader.read(struct.unpack(">I", head)[0])
                with self._came:
                    self.calls.append(body)
                    self._came.notify_all()
                self._sealer.wait(body)
                reply = session.answer(body)
                stream.sendall(struct.pack(">I", len(reply)) + reply)
        with self._lock:
            self._streams.discard(stream)


@contextmanager
def tee_signer() -> Iterator[TeeSigner]:
    """Listen on a free port."""
    signer = TeeSigner()
    try:
        yield signer
    finally:
        signer.close()
