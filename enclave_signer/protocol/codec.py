"""Bytes of a frame to and from messages; the one table of calls.

- A request is a map with exactly one entry: the call's name and its argument.
- A reply is `{"Ok": value}` or `{"Err": {"message": text, "source": Err | null}}`.
- Tolerated on input because real peers send it: arrays of integers for bytes, an absent `version` (the latest).
- Refused: unknown fields, arrays in place of maps, bytes after the item, indefinite lengths, other versions.
- Emitted: byte strings, definite lengths, all fields.

Source: tee-signer's `doc/rpc.md`, and its recorded answers in `tests/vectors/enclave-transcripts.json`.
"""

from collections.abc import Callable

from enclave_signer.protocol import cbor
from enclave_signer.protocol.cbor import Item
from enclave_signer.protocol.errors import BadMessage, WireError
from enclave_signer.protocol.messages import (
    PRIVATE_KEY_BYTES,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    PublicKey,
    Request,
    Result,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
    SignWith,
)

#: The largest message that is signed: a Tezos operation is at most 32 KiB. tee-signer stops at 4096 bytes.
MAX_MESSAGE_BYTES = 32 * 1024
#: Our blobs and Google's ciphertexts of a private key have a few hundred bytes.
MAX_BLOB_BYTES = 4096
#: Names of Google Cloud resources are far shorter.
MAX_CREDENTIAL_CHARS = 1024
#: A reply's text is for people; a peer cannot make us keep more.
MAX_ERROR_CHARS = 4096
#: `{"Sign": {"message": [bytes as integers]}}` nests three deep, plus one to spare.
REQUEST_DEPTH = 4
#: `Err.source` nests; tee-signer's chains have up to four causes, two levels each.
REPLY_DEPTH = 16
#: Handles are small indices; CBOR can say any 64-bit integer and the answer to those is "invalid handle".
_MAX_HANDLE = 2**64 - 1

_KEY_TYPES = {key_type.value: key_type for key_type in KeyType}
_VERSIONS = {version.value: version for version in SigningVersion}
_SIGN = frozenset({"handle", "message"})
_SIGN_WITH = frozenset({"encrypted_private_key", "message"})
_VERSION = frozenset({"version"})
_CREDENTIALS = frozenset({"wip_provider_path", "encryption_key_path"})


def decode_request(frame: bytes) -> Request:
    """Return the call that a frame holds.

    Raises:
        BadMessage: Not a valid call; the text says what and where, without values.
    """
    name, argument = cbor.single_entry(cbor.decode(frame, max_depth=REQUEST_DEPTH), "a request")
    decode = _CALLS.get(name)
    if decode is None:
        raise BadMessage(f"unknown call {name[:40]!r}, known are {', '.join(_CALLS)}")
    return decode(argument)


def _initialize(item: Item) -> Initialize:
    entries = cbor.fields(item, "Initialize", frozenset(), _CREDENTIALS)
    values = {name: cbor.text(value, name, MAX_CREDENTIAL_CHARS) for name, value in entries.items()}
    return Initialize(Credentials(**values))


def _import(item: Item) -> Import:
    return Import(cbor.byte_string(item, "the blob of Import", MAX_BLOB_BYTES))


def _import_unencrypted(item: Item) -> ImportUnencrypted:
    return ImportUnencrypted(private_key(item))


def _generate(item: Item) -> Generate:
    return Generate(_key_type(item))


def _generate_and_import(item: Item) -> GenerateAndImport:
    return GenerateAndImport(_key_type(item))


def _sign(item: Item) -> Sign:
    entries = cbor.fields(item, "Sign", _SIGN, _VERSION)
    return Sign(_handle(entries["handle"]), _message(entries["message"]), _version(entries))


def _sign_with(item: Item) -> SignWith:
    entries = cbor.fields(item, "SignWith", _SIGN_WITH, _VERSION)
    blob = cbor.byte_string(entries["encrypted_private_key"], "encrypted_private_key", MAX_BLOB_BYTES)
    return SignWith(blob, _message(entries["message"]), _version(entries))


def _public_key(item: Item) -> GetPublicKey:
    return GetPublicKey(_handle(item))


def _public_key_from(item: Item) -> GetPublicKeyFrom:
    return GetPublicKeyFrom(cbor.byte_string(item, "the blob of PublicKeyFrom", MAX_BLOB_BYTES))


def _prove_possession(item: Item) -> ProvePossession:
    return ProvePossession(_handle(item))


_CALLS: dict[str, Callable[[Item], Request]] = {
    "Initialize": _initialize,
    "Import": _import,
    "ImportUnencrypted": _import_unencrypted,
    "Generate": _generate,
    "GenerateAndImport": _generate_and_import,
    "Sign": _sign,
    "SignWith": _sign_with,
    "PublicKey": _public_key,
    "PublicKeyFrom": _public_key_from,
    "ProvePossession": _prove_possession,
}


def _key_type(item: Item) -> KeyType:
    key_type = _KEY_TYPES.get(item) if type(item) is str else None
    if key_type is None:
        raise BadMessage(f"unknown key type, known are {', '.join(_KEY_TYPES)}")
    return key_type


def _handle(item: Item) -> int:
    return cbor.unsigned(item, "handle", _MAX_HANDLE)


def _message(item: Item) -> bytes:
    return cbor.byte_string(item, "message", MAX_MESSAGE_BYTES)


def _version(entries: dict[str, Item]) -> SigningVersion:
    if "version" not in entries:
        return SigningVersion.LATEST
    value = entries["version"]
    version = _VERSIONS.get(value) if type(value) is int else None
    if version is None:
        raise BadMessage("version must be one of 0, 1, 2, 255")
    return version


def private_key(item: Item) -> PrivateKey:
    """Return the private key in a one-entry map, also what a legacy blob holds once opened."""
    key_type, value = _curve_entry(item, "a private key")
    return PrivateKey(key_type, cbor.sized_bytes(value, f"the {key_type} private key", PRIVATE_KEY_BYTES))


def encode_private_key(key: PrivateKey) -> bytes:
    """Return the CBOR that is sealed: `{"Ed25519": bytes32}`. Source: tee-signer's blobs."""
    return cbor.encode({key.key_type.value: key.data})


def decode_private_key(data: bytes) -> PrivateKey:
    """Return the private key that was sealed.

    Raises:
        BadMessage: Not the CBOR of one private key.
    """
    return private_key(cbor.decode(data, max_depth=REQUEST_DEPTH))


def _curve_entry(item: Item, what: str) -> tuple[KeyType, Item]:
    name, value = cbor.single_entry(item, what)
    return _key_type(name), value


def encode_request(request: Request) -> bytes:
    """Return the body of the frame that makes a call."""
    match request:
        case Sign(handle, message, version):
            body: Item = {"Sign": {"handle": handle, "message": message, "version": version.value}}
        case Initialize(credentials):
            body = {"Initialize": _encode_credentials(credentials)}
        case Import(blob):
            body = {"Import": blob}
        case ImportUnencrypted(key):
            body = {"ImportUnencrypted": {key.key_type.value: key.data}}
        case Generate(key_type):
            body = {"Generate": key_type.value}
        case GenerateAndImport(key_type):
            body = {"GenerateAndImport": key_type.value}
        case SignWith(blob, message, version):
            body = {"SignWith": {"encrypted_private_key": blob, "message": message, "version": version.value}}
        case GetPublicKey(handle):
            body = {"PublicKey": handle}
        case GetPublicKeyFrom(blob):
            body = {"PublicKeyFrom": blob}
        case ProvePossession(handle):
            body = {"ProvePossession": handle}
    return cbor.encode(body)


def _encode_credentials(credentials: Credentials) -> dict[str, str]:
    values = {
        "wip_provider_path": credentials.wip_provider_path,
        "encryption_key_path": credentials.encryption_key_path,
    }
    return {name: value for name, value in values.items() if value is not None}


def encode_ok(result: Result) -> bytes:
    """Return the body of the frame that answers a call."""
    value: dict[str, Item] | None
    match result:
        case Signature(key_type, data) | PublicKey(key_type, data):
            value = {key_type.value: data}
        case None:
            value = None
        case ImportedKey(public_key, handle):
            value = {"public_key": {public_key.key_type.value: public_key.data}, "handle": handle}
        case SealedKey(blob, public_key, handle):
            value = {"encrypted_private_key": blob, "public_key": {public_key.key_type.value: public_key.data}}
            if handle is not None:
                value["handle"] = handle
    return cbor.encode({"Ok": value})


def encode_error(error: WireError) -> bytes:
    """Return the body of the frame that refuses a call."""
    value: Item = None
    for message in reversed([*error.chain()]):
        value = {"message": message, "source": value}
    return cbor.encode({"Err": value})


def decode_reply(request: Request, frame: bytes) -> Result:
    """Return the result of `request` that a reply holds.

    Raises:
        WireError: The enclave refused the call.
        BadMessage: The reply is garbled, or answers another kind of call; close the connection.
    """
    outcome, value = cbor.single_entry(cbor.decode(frame, max_depth=REPLY_DEPTH), "a reply")
    if outcome == "Err":
        raise _wire_error(value)
    if outcome != "Ok":
        raise BadMessage("a reply is neither Ok nor Err")
    match request:
        case Sign() | SignWith() | ProvePossession():
            return _signature(value)
        case Import():
            return _imported_key(value)
        case GetPublicKey() | GetPublicKeyFrom():
            return _decode_public_key(value)
        case Generate():
            return _sealed_key(value, with_handle=False)
        case GenerateAndImport() | ImportUnencrypted():
            return _sealed_key(value, with_handle=True)
        case Initialize():
            _nothing(value)
            return None


def _wire_error(item: Item) -> WireError:
    entries = cbor.fields(item, "Err", frozenset({"message"}), frozenset({"source"}))
    source = entries.get("source")
    message = cbor.text(entries["message"], "the message of Err", MAX_ERROR_CHARS)
    return WireError(message, None if source is None else _wire_error(source))


def _nothing(item: Item) -> None:
    # null, or an empty map as Signatory's own client accepts.
    if item is not None and item != {}:
        raise BadMessage("the result of Initialize must be null")


def _signature(item: Item) -> Signature:
    key_type, value = _curve_entry(item, "a signature")
    return Signature(key_type, cbor.sized_bytes(value, f"the {key_type} signature", SIGNATURE_BYTES[key_type]))


def _decode_public_key(item: Item) -> PublicKey:
    key_type, value = _curve_entry(item, "a public key")
    return PublicKey(key_type, cbor.sized_bytes(value, f"the {key_type} public key", PUBLIC_KEY_BYTES[key_type]))


def _imported_key(item: Item) -> ImportedKey:
    entries = cbor.fields(item, "the result of Import", frozenset({"public_key", "handle"}))
    return ImportedKey(_decode_public_key(entries["public_key"]), _handle(entries["handle"]))


def _sealed_key(item: Item, *, with_handle: bool) -> SealedKey:
    required = frozenset({"encrypted_private_key", "public_key"})
    entries = cbor.fields(item, "a sealed key", required | {"handle"} if with_handle else required)
    blob = cbor.byte_string(entries["encrypted_private_key"], "encrypted_private_key", MAX_BLOB_BYTES)
    handle = _handle(entries["handle"]) if with_handle else None
    return SealedKey(blob, _decode_public_key(entries["public_key"]), handle)
