"""Keys as octez-signer, octez-client and the vault `file` of Signatory keep them: names and values.

Secret keys are in clear, or under a password; all others are somewhere else, and cannot be taken over.

Source: Octez `src/lib_client_base/client_keys.ml`; Signatory `pkg/vault/file`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import TezosError, parse_public_key
from host_backend.errors import ConfigError
from host_backend.json_entry import Entry
from host_backend.octez.folder import held, read_file, read_files, reading

_HASHES, _SECRETS, _AUTHORIZED = "public_key_hashs", "secret_keys", "authorized_keys"
#: Files in which a folder of Octez has keys.
WALLET_NAMES = (_HASHES, _SECRETS, _AUTHORIZED, "public_keys")
#: Values that hold a secret key; one without a scheme does, too.
_HELD = ("unencrypted", "encrypted")
#: Where the key is otherwise, by the scheme of its value.
_ELSEWHERE = {
    "ledger": "in a Ledger, which gives no key away",
    "remote": "at a remote signer",
    **dict.fromkeys(("tcp", "unix", "http", "https"), "at another signer: import it there"),
}


@dataclass(frozen=True, slots=True)
class WalletKey:
    """A secret key of a wallet.

    Attributes:
        name: As its owner calls it.
        secret: Its text, with or without a scheme; empty if it is not here.
        obstacle: Why it cannot be taken over; empty if it can.
        pkh: The hash that the wallet has under this name; None if it has none.
    """

    name: str
    secret: str = field(repr=False)
    obstacle: str = ""
    pkh: str | None = None


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet: its secret keys, the hashes of all its keys, and by name the keys that sign requests."""

    keys: tuple[WalletKey, ...]
    hashes: frozenset[str]
    authorized: dict[str, PublicKey]


def read_wallet(place: Path) -> Wallet:
    """Return the keys in a folder of Octez, or in a single file `secret_keys`.

    Raises:
        ConfigError: It is neither; the text names the place, and repeats no value.
        StoreUnavailable: It cannot be read.
    """
    with reading(place):
        is_file = place.is_file()
    if is_file:
        return Wallet(tuple(_keys(read_file(place), {})), frozenset(), {})
    with held(place):
        found = {name: read_files(place, (name,)) for name in (_HASHES, _SECRETS, _AUTHORIZED)}
    if not any(found.values()):
        raise ConfigError(f"{place} has no {_SECRETS}: name the folder that octez-signer had as --base-dir, or a file")
    hashes = {name: value.pkh(value.text()) for file in found[_HASHES] for name, value in _named(file)}
    keys = [key for file in found[_SECRETS] for key in _keys(file, hashes)]
    authorized = {name: _public_key(value) for file in found[_AUTHORIZED] for name, value in _named(file)}
    return Wallet(tuple(keys), frozenset(hashes.values()), authorized)


def _named(file: Entry) -> list[tuple[str, Entry]]:
    pairs = []
    for item in file.items():
        members = item.members()
        if set(members) != {"name", "value"}:
            raise item.fail("must have a name and a value, and nothing else")
        pairs.append((members["name"].text(), members["value"]))
    return pairs


def _keys(file: Entry, hashes: dict[str, str]) -> list[WalletKey]:
    return [_key(name, value.text(), hashes.get(name)) for name, value in _named(file)]


def _key(name: str, value: str, pkh: str | None) -> WalletKey:
    scheme, colon, _ = value.partition(":")
    if not colon or scheme in _HELD:
        return WalletKey(name, value, pkh=pkh)
    # What stands there may be a secret: only known schemes are repeated.
    where = f"it is {_ELSEWHERE[scheme]} ({scheme}:)" if scheme in _ELSEWHERE else "nothing is known of its scheme"
    return WalletKey(name, "", where, pkh)


def _public_key(value: Entry) -> PublicKey:
    try:
        return parse_public_key(value.text())
    except TezosError as error:
        raise value.fail(f"not a public key: {error}") from None
