"""Values of the wire: out of a decoded item, and into one that can be encoded.

Every reader raises `BadMessage`, which names the fault and its place, without values.
"""

from enclave_signer.protocol import cbor
from enclave_signer.protocol.cbor import Item
from enclave_signer.protocol.errors import BadMessage
from enclave_signer.protocol.messages import (
    ATTESTED_KEY_BYTES,
    CHANNEL_PROOF_BYTES,
    INVENTORY_BYTES,
    MAX_BLOB_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TOKEN_CHARS,
    NONCE_BYTES,
    Attestation,
    Credentials,
    ImportedKey,
    KeyType,
    PrivateKey,
    PublicKey,
    Purpose,
    Result,
    SealedKey,
    Signature,
    SigningVersion,
)

#: Names of Google Cloud resources are far shorter.
MAX_CREDENTIAL_CHARS = 1024
#: Handles are small indices; CBOR can say any 64-bit integer and the answer to those is "invalid handle".
_MAX_HANDLE = 2**64 - 1

_KEY_TYPES = {key_type.value: key_type for key_type in KeyType}
_VERSIONS = {version.value: version for version in SigningVersion}
_PURPOSES = {purpose.value: purpose for purpose in Purpose}
_CREDENTIALS = frozenset({"wip_provider_path", "encryption_key_path"})


def credentials(item: Item) -> Credentials:
    """Return the map of `Initialize`."""
    entries = cbor.fields(item, "Initialize", frozenset(), _CREDENTIALS)
    return Credentials(**{name: cbor.text(value, name, MAX_CREDENTIAL_CHARS) for name, value in entries.items()})


def encode_credentials(given: Credentials) -> Item:
    """Return a map of the given members."""
    values = {"wip_provider_path": given.wip_provider_path, "encryption_key_path": given.encryption_key_path}
    return {name: value for name, value in values.items() if value is not None}


def key_type(item: Item) -> KeyType:
    """Return a curve by its name."""
    found = _KEY_TYPES.get(item) if type(item) is str else None
    if found is None:
        raise BadMessage(f"unknown key type, known are {', '.join(_KEY_TYPES)}")
    return found


def handle(item: Item) -> int:
    """Return the number of an open key."""
    return cbor.unsigned(item, "handle", _MAX_HANDLE)


def message(item: Item) -> bytes:
    """Return the message to sign."""
    return cbor.byte_string(item, "message", MAX_MESSAGE_BYTES)


def blob(item: Item, what: str = "encrypted_private_key") -> bytes:
    """Return a sealed key."""
    return cbor.byte_string(item, what, MAX_BLOB_BYTES)


def key_name(item: Item) -> str:
    """Return the name of a key-encryption key."""
    return cbor.text(item, "encryption_key_path", MAX_CREDENTIAL_CHARS)


def nonce(item: Item) -> bytes:
    """Return the client's nonce for a proof."""
    return cbor.sized_bytes(item, "nonce", NONCE_BYTES)


def purpose(item: Item) -> Purpose:
    """Return what a proof is asked for."""
    found = _PURPOSES.get(item) if type(item) is str else None
    if found is None:
        raise BadMessage(f"unknown purpose, known are {', '.join(_PURPOSES)}")
    return found


def version(entries: dict[str, Item]) -> SigningVersion:
    """Return the field `version` of a call; absent, as Signatory's `SignWith` has it, it means the latest."""
    if "version" not in entries:
        return SigningVersion.LATEST
    value = entries["version"]
    found = _VERSIONS.get(value) if type(value) is int else None
    if found is None:
        raise BadMessage("version must be one of 0, 1, 2, 255")
    return found


def _of_curve(item: Item, what: str) -> tuple[KeyType, Item]:
    name, value = cbor.single_entry(item, what)
    return key_type(name), value


def private_key(item: Item) -> PrivateKey:
    """Return the private key in a one-entry map, also what a legacy blob holds once opened."""
    curve, value = _of_curve(item, "a private key")
    return PrivateKey(curve, cbor.sized_bytes(value, f"the {curve} private key", curve.facts.private_key_bytes))


def public_key(item: Item) -> PublicKey:
    """Return the public key in a one-entry map."""
    curve, value = _of_curve(item, "a public key")
    return PublicKey(curve, cbor.sized_bytes(value, f"the {curve} public key", curve.facts.public_key_bytes))


def signature(item: Item) -> Signature:
    """Return the signature in a one-entry map."""
    curve, value = _of_curve(item, "a signature")
    return Signature(curve, cbor.sized_bytes(value, f"the {curve} signature", curve.facts.signature_bytes))


def encode_of_curve(value: PrivateKey | PublicKey | Signature) -> Item:
    """Return the one-entry map of a key or a signature."""
    return {value.key_type.value: value.data}


def encode_result(result: Result) -> Item:
    """Return what answers a call."""
    match result:
        case Signature() | PublicKey():
            return encode_of_curve(result)
        case None:
            return None
        case ImportedKey(key, number):
            return {"public_key": encode_of_curve(key), "handle": number}
        case SealedKey(sealed, key, number):
            fields: dict[str, Item] = {"encrypted_private_key": sealed, "public_key": encode_of_curve(key)}
            return fields if number is None else {**fields, "handle": number}
        case Attestation(attested_key, token, inventory, proof):
            return {"attested_key": attested_key, "token": token, "inventory": inventory, "channel_proof": proof}


def nothing(item: Item) -> None:
    """Pass null, and an empty map, which Signatory's own client accepts."""
    if item is not None and item != {}:
        raise BadMessage("the result of Initialize must be null")


def imported_key(item: Item) -> ImportedKey:
    """Return the result of `Import`."""
    entries = cbor.fields(item, "the result of Import", frozenset({"public_key", "handle"}))
    return ImportedKey(public_key(entries["public_key"]), handle(entries["handle"]))


_SEALED = frozenset({"encrypted_private_key", "public_key"})


def sealed_key(item: Item) -> SealedKey:
    """Return the result of `Generate` and `Reseal`."""
    entries = cbor.fields(item, "a sealed key", _SEALED)
    return SealedKey(blob(entries["encrypted_private_key"]), public_key(entries["public_key"]))


def sealed_open_key(item: Item) -> SealedKey:
    """Return the result of `GenerateAndImport` and `ImportUnencrypted`."""
    entries = cbor.fields(item, "a sealed key", _SEALED | {"handle"})
    return SealedKey(
        blob(entries["encrypted_private_key"]), public_key(entries["public_key"]), handle(entries["handle"])
    )


_ATTESTATION = frozenset({"attested_key", "token", "inventory", "channel_proof"})


def attestation(item: Item) -> Attestation:
    """Return the result of `Attest`."""
    entries = cbor.fields(item, "the result of Attest", _ATTESTATION)
    token, inventory, proof = entries["token"], entries["inventory"], entries["channel_proof"]
    return Attestation(
        cbor.sized_bytes(entries["attested_key"], "attested_key", ATTESTED_KEY_BYTES),
        None if token is None else cbor.text(token, "token", MAX_TOKEN_CHARS),
        None if inventory is None else cbor.sized_bytes(inventory, "inventory", INVENTORY_BYTES),
        None if proof is None else cbor.sized_bytes(proof, "channel_proof", CHANNEL_PROOF_BYTES),
    )
