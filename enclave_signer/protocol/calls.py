"""The one table of calls: what a call is named, how its argument and its result are read, with which key it is made, when.

A new call is a dataclass in `messages`, a row here, a handler in `session` and a method of the host's client. The type
checker finds a missing row in `call_of`, a missing fact of a row, a missing handler in `session`; tests, the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from enclave_signer.protocol import cbor, values
from enclave_signer.protocol.cbor import Item
from enclave_signer.protocol.messages import (
    Attest,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportUnencrypted,
    Initialize,
    ProvePossession,
    ProvePossessionOf,
    Request,
    Reseal,
    Result,
    Sign,
    SignWith,
    UseKey,
)

R = TypeVar("R", bound=Request)

#: How a call names its key: by its handle, by its blob, or by its public key hash.
KeyName = int | bytes | str


class Unnamed(Enum):
    """Why a call names no key."""

    #: It concerns none.
    NONE = "none"
    #: It makes a key, or brings one: which one is not known before it has been made.
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[R]):
    """A row.

    Attributes:
        name: On the wire.
        read: Returns the call of an argument; raises `BadMessage`.
        write: Returns the argument of a call.
        result: Returns the result that answers it; raises `BadMessage`.
        key: Returns how a call names the key that it is made with; or why none does.
        asks_sealer: Whether the enclave may have to ask its sealer, or the launcher, and take long.
        reads_session: Whether it reads what earlier calls leave behind, so that it must wait until they are done.
        before_initialize: Whether it may be made in a new session; all others are answered `uninitialized` there.
    """

    name: str
    read: Callable[[Item], R]
    write: Callable[[R], Item]
    result: Callable[[Item], Result]
    key: Callable[[R], KeyName] | Unnamed
    asks_sealer: bool
    reads_session: bool
    before_initialize: bool


def _read_sign(item: Item) -> Sign:
    entries = cbor.fields(item, "Sign", _SIGN, _VERSION)
    return Sign(values.handle(entries["handle"]), values.message(entries["message"]), values.version(entries))


def _read_sign_with(item: Item) -> SignWith:
    entries = cbor.fields(item, "SignWith", _SIGN_WITH, _VERSION)
    blob = values.blob(entries["encrypted_private_key"])
    return SignWith(blob, values.message(entries["message"]), values.version(entries))


def _read_reseal(item: Item) -> Reseal:
    entries = cbor.fields(item, "Reseal", _RESEAL)
    return Reseal(values.blob(entries["encrypted_private_key"]), values.key_name(entries["encryption_key_path"]))


def _read_prove_possession_of(item: Item) -> ProvePossessionOf:
    entries = cbor.fields(item, "ProvePossessionOf", _PROVE_OF)
    return ProvePossessionOf(values.handle(entries["handle"]), values.public_key(entries["public_key"]))


def _read_attest(item: Item) -> Attest:
    entries = cbor.fields(item, "Attest", _ATTEST)
    return Attest(values.nonce(entries["nonce"]), values.purpose(entries["purpose"]))


_SIGN = frozenset({"handle", "message"})
_SIGN_WITH = frozenset({"encrypted_private_key", "message"})
_VERSION = frozenset({"version"})
_PROVE_OF = frozenset({"handle", "public_key"})
_RESEAL = frozenset({"encrypted_private_key", "encryption_key_path"})
_ATTEST = frozenset({"nonce", "purpose"})

_INITIALIZE: Call[Initialize] = Call(
    name="Initialize",
    read=lambda item: Initialize(values.credentials(item)),
    write=lambda call: values.encode_credentials(call.credentials),
    result=values.nothing,
    key=Unnamed.NONE,
    asks_sealer=True,
    reads_session=True,
    before_initialize=True,
)
_IMPORT: Call[Import] = Call(
    name="Import",
    read=lambda item: Import(values.blob(item, "the blob of Import")),
    write=lambda call: call.blob,
    result=values.imported_key,
    key=lambda call: call.blob,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_IMPORT_UNENCRYPTED: Call[ImportUnencrypted] = Call(
    name="ImportUnencrypted",
    read=lambda item: ImportUnencrypted(values.private_key(item)),
    write=lambda call: values.encode_of_curve(call.private_key),
    result=values.sealed_open_key,
    key=Unnamed.NEW,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_GENERATE: Call[Generate] = Call(
    name="Generate",
    read=lambda item: Generate(values.key_type(item)),
    write=lambda call: call.key_type.value,
    result=values.sealed_key,
    key=Unnamed.NEW,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_GENERATE_AND_IMPORT: Call[GenerateAndImport] = Call(
    name="GenerateAndImport",
    read=lambda item: GenerateAndImport(values.key_type(item)),
    write=lambda call: call.key_type.value,
    result=values.sealed_open_key,
    key=Unnamed.NEW,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_SIGN_CALL: Call[Sign] = Call(
    name="Sign",
    read=_read_sign,
    write=lambda call: {"handle": call.handle, "message": call.message, "version": call.version.value},
    result=values.signature,
    key=lambda call: call.handle,
    asks_sealer=False,
    reads_session=True,
    before_initialize=False,
)
_SIGN_WITH_CALL: Call[SignWith] = Call(
    name="SignWith",
    read=_read_sign_with,
    write=lambda call: {
        "encrypted_private_key": call.blob,
        "message": call.message,
        "version": call.version.value,
    },
    result=values.signature,
    key=lambda call: call.blob,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_PUBLIC_KEY: Call[GetPublicKey] = Call(
    name="PublicKey",
    read=lambda item: GetPublicKey(values.handle(item)),
    write=lambda call: call.handle,
    result=values.public_key,
    key=lambda call: call.handle,
    asks_sealer=False,
    reads_session=True,
    before_initialize=False,
)
_PUBLIC_KEY_FROM: Call[GetPublicKeyFrom] = Call(
    name="PublicKeyFrom",
    read=lambda item: GetPublicKeyFrom(values.blob(item, "the blob of PublicKeyFrom")),
    write=lambda call: call.blob,
    result=values.public_key,
    key=lambda call: call.blob,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)
_PROVE_POSSESSION: Call[ProvePossession] = Call(
    name="ProvePossession",
    read=lambda item: ProvePossession(values.handle(item)),
    write=lambda call: call.handle,
    result=values.signature,
    key=lambda call: call.handle,
    asks_sealer=False,
    reads_session=True,
    before_initialize=False,
)
_PROVE_POSSESSION_OF: Call[ProvePossessionOf] = Call(
    name="ProvePossessionOf",
    read=_read_prove_possession_of,
    write=lambda call: {"handle": call.handle, "public_key": values.encode_of_curve(call.public_key)},
    result=values.signature,
    key=lambda call: call.handle,
    asks_sealer=False,
    reads_session=True,
    before_initialize=False,
)
_RESEAL_CALL: Call[Reseal] = Call(
    name="Reseal",
    read=_read_reseal,
    write=lambda call: {"encrypted_private_key": call.blob, "encryption_key_path": call.target},
    result=values.sealed_key,
    key=lambda call: call.blob,
    asks_sealer=True,
    reads_session=False,
    before_initialize=False,
)

_ATTEST_CALL: Call[Attest] = Call(
    name="Attest",
    read=_read_attest,
    write=lambda call: {"nonce": call.nonce, "purpose": call.purpose.value},
    result=values.attestation,
    key=Unnamed.NONE,
    asks_sealer=True,
    reads_session=False,
    before_initialize=True,
)
_USE_KEY: Call[UseKey] = Call(
    name="UseKey",
    read=lambda item: UseKey(values.key_hash(item)),
    write=lambda call: call.pkh,
    result=values.imported_key,
    key=lambda call: call.pkh,
    asks_sealer=False,
    reads_session=True,
    before_initialize=True,
)

#: By name, in the order of the document.
CALLS: dict[str, Call[Any]] = {
    call.name: call
    for call in (
        _INITIALIZE,
        _IMPORT,
        _IMPORT_UNENCRYPTED,
        _GENERATE,
        _GENERATE_AND_IMPORT,
        _SIGN_CALL,
        _SIGN_WITH_CALL,
        _PUBLIC_KEY,
        _PUBLIC_KEY_FROM,
        _PROVE_POSSESSION,
        _PROVE_POSSESSION_OF,
        _RESEAL_CALL,
        _ATTEST_CALL,
        _USE_KEY,
    )
}
#: Calls that concern no key, and calls of which it is not known beforehand with which one they are made.
WITHOUT_KEY = frozenset(name for name, call in CALLS.items() if call.key is Unnamed.NONE)
OF_NEW_KEYS = frozenset(name for name, call in CALLS.items() if call.key is Unnamed.NEW)


def call_of(request: Request) -> Call[Any]:  # noqa: C901, PLR0911, PLR0912 -- one line for each call
    """Return the row of a call; the one that is made all the time is found first."""
    match request:
        case Sign():
            return _SIGN_CALL
        case Initialize():
            return _INITIALIZE
        case Import():
            return _IMPORT
        case ImportUnencrypted():
            return _IMPORT_UNENCRYPTED
        case Generate():
            return _GENERATE
        case GenerateAndImport():
            return _GENERATE_AND_IMPORT
        case SignWith():
            return _SIGN_WITH_CALL
        case GetPublicKey():
            return _PUBLIC_KEY
        case GetPublicKeyFrom():
            return _PUBLIC_KEY_FROM
        case ProvePossession():
            return _PROVE_POSSESSION
        case ProvePossessionOf():
            return _PROVE_POSSESSION_OF
        case Reseal():
            return _RESEAL_CALL
        case Attest():
            return _ATTEST_CALL
        case UseKey():
            return _USE_KEY
