"""What `import --from-octez` and `watermark migrate --from-octez` do: keys, lines of configuration and marks of octez-signer."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import click

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import Right, encode_public_key, public_key_hash
from host_backend.cli.answer import Answer
from host_backend.cli.counting import counted
from host_backend.cli.importing import import_secret_keys
from host_backend.cli.marks import chains_to_mark, hashes_of_stored
from host_backend.config import Config, VaultConfig
from host_backend.config.experimental import why_off
from host_backend.errors import ConfigError, MalformedRequest, StateConflict
from host_backend.log import fields
from host_backend.octez.marks import read_octez_marks, write_octez_marks
from host_backend.octez.wallet import Wallet, WalletKey, read_wallet
from host_backend.secret_keys import AskPassword, open_secret_key, read_secret_key
from host_backend.stores import adopt_watermarks, marks_admin
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey

logger = logging.getLogger(__name__)

#: Pairs of a key and a chain that one migration makes marks for; far more than a baker has.
_MOST_MARKS = 100_000


def import_wallet(
    config: Config,
    vault_config: VaultConfig,
    place: Path,
    ask_password: AskPassword,
    answer: Answer,
    *,
    replace: bool,
) -> None:
    """Import the secret keys of a wallet of Octez, and print what belongs into the configuration.

    Raises:
        HostError: The wallet cannot be read, or the enclave does not take a key; or, when all others were imported, some
            keys of it are not here.
    """
    wallet = read_wallet(place)
    found, refused = _secrets(wallet, ask_password, config.experimental)
    for name, why in refused.items():
        logger.warning("not imported: %s", why, extra=fields(name=name))
    answer.add("keys")
    answer.add("refused", *({"name": name, "reason": why} for name, why in refused.items()))
    named = {name: public_key_hash(open_secret_key(key).public_key) for name, key in found.items()}
    # A key may have several names.
    keys = [*{named[name]: key for name, key in found.items()}.values()]
    if keys:
        asyncio.run(import_secret_keys(config, vault_config, keys, answer, replace=replace))
    answer.add("names", *({"name": name, "public_key_hash": pkh} for name, pkh in named.items()))
    authorized = ((name, encode_public_key(key)) for name, key in wallet.authorized.items())
    answer.add("authorized_keys", *({"name": name, "public_key": key} for name, key in authorized))
    for line in _configuration(wallet, named):
        answer.say(line)
    if refused:
        raise StateConflict(
            f"{len(refused)} of {len(refused) + len(found)} keys were not imported, see the warnings above; the others were"
        )


def _secrets(
    wallet: Wallet, ask_password: AskPassword, experimental: AbstractSet[KeyType]
) -> tuple[dict[str, PrivateKey], dict[str, str]]:
    """Return the secret keys of a wallet by name, and why others are none."""
    found, refused = dict[str, PrivateKey](), dict[str, str]()
    for key in wallet.keys:
        try:
            found[key.name] = _secret(key, ask_password, experimental)
        except MalformedRequest as error:
            refused[key.name] = str(error)
    return found, refused


def _secret(key: WalletKey, ask_password: AskPassword, experimental: AbstractSet[KeyType]) -> PrivateKey:
    if key.obstacle:
        raise MalformedRequest(key.obstacle)

    def ask() -> bytes:
        logger.info("the key is encrypted", extra=fields(name=key.name))
        return ask_password()

    secret = read_secret_key(key.secret.encode(errors="surrogatepass"), ask)
    if (reason := why_off(secret.key_type, experimental)) is not None:
        raise MalformedRequest(reason)
    pkh = public_key_hash(open_secret_key(secret).public_key)
    if key.pkh not in {None, pkh}:
        raise MalformedRequest(f"the wallet lists {key.pkh} under this name, but its secret key is that of {pkh}")
    return secret


def _configuration(wallet: Wallet, named: dict[str, str]) -> Iterator[str]:
    """Yield lines of configuration, one for each key; names that could break one stand in quotes."""
    if wallet.authorized:
        yield "server:"
        yield "  authorized_keys:"
        authorized = _by_key((name, encode_public_key(key)) for name, key in wallet.authorized.items())
        yield from (f"    - {key}  # {names}" for key, names in authorized.items())
    if named:
        yield "tezos:"
        yield from (f"  {pkh}:  # {names}" for pkh, names in _by_key(named.items()).items())


def _by_key(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return all names of each key, by the key."""
    names: dict[str, str] = {}
    for name, key in named:
        names[key] = f"{names[key]}, {_name(name)}" if key in names else _name(name)
    return names


def _name(name: str) -> str:
    return name if name.isprintable() else repr(name)


def migrate_octez_marks(
    config: Config, folder: Path, above_level: int | None, chains: Sequence[str], *, stopped_in_order: bool
) -> None:
    """Raise marks to the high watermarks of octez-signer.

    Raises:
        HostError: Not done; the text says why.
    """
    if (above_level is None) != stopped_in_order:
        raise ConfigError(
            "octez-signer signs before it writes its high watermark, and does not wait for the disk: say --stopped-in-order if "
            "it ended by a signal to stop and this machine has not crashed since; else --above-level N, at or above every level "
            "that may have been signed"
        )
    marks = read_octez_marks(folder)
    if above_level is not None:
        marks = _above(config, read_wallet(folder), marks, above_level, chains)
    if not marks:
        raise ConfigError(
            f"{folder} has no high watermarks: octez-signer ran without --check-high-watermark: say --above-level, and "
            "--chain (mainnet is NetXdQprcVkpaWU)"
        )
    _warn_of_missing(marks)
    count = asyncio.run(adopt_watermarks(config, marks))
    logger.warning(
        "high watermarks of octez-signer taken over", extra=fields(marks=count, of=len(marks), source=folder)
    )
    click.echo(f"Raised {count} of {counted(len(marks), 'mark')} to those in {folder}")
    logger.warning("octez-signer must never sign again with the keys in %s, unless the marks go back", folder)


def _warn_of_missing(marks: Mapping[MarkKey, Mark]) -> None:
    """Name the rights without a mark of keys that have others: a file may be missing in a copy of the folder."""
    for chain_id, pkh in sorted({(key.chain_id, key.pkh) for key in marks}):
        if missing := [right.value for right in Right if MarkKey(chain_id, pkh, right) not in marks]:
            logger.warning(
                "no high watermark for these rights, which start without a mark unless there is one here: is a file missing?",
                extra=fields(pkh=pkh, chain_id=chain_id, rights=",".join(missing)),
            )


def _above(
    config: Config, wallet: Wallet, marks: dict[MarkKey, Mark], above_level: int, chains: Sequence[str]
) -> dict[MarkKey, Mark]:
    """Return marks at that level or above, for every key on every chain on which octez-signer may have signed."""
    pkhs = sorted({*wallet.hashes, *_hashes_of_others(wallet), *config.policies, *hashes_of_stored(config)})
    every_chain = chains_to_mark(config, pkhs, chains) | {key.chain_id for key in marks}
    return Rebuilt(pkhs, every_chain, above_level).raised(marks, _MOST_MARKS)


def _hashes_of_others(wallet: Wallet) -> Iterator[str]:
    """Yield the hashes of secret keys in clear that the wallet lists no hash for; warn of those that are encrypted."""

    def ask() -> bytes:
        raise MalformedRequest("it is encrypted")

    for key in wallet.keys:
        if key.pkh is None and not key.obstacle:
            try:
                yield public_key_hash(
                    open_secret_key(read_secret_key(key.secret.encode(errors="surrogatepass"), ask)).public_key
                )
            except MalformedRequest as error:
                logger.warning(
                    "a key without a hash in public_key_hashs gets marks only if it is imported already, or listed "
                    "under `tezos`: %s",
                    error,
                    extra=fields(name=key.name),
                )


def export_octez_marks(config: Config, folder: Path) -> None:
    """Raise the high watermarks of octez-signer to the marks that are here, while no host runs.

    Raises:
        HostError: Not done; octez-signer must not start on that folder.
    """
    admin = marks_admin(config)
    # Where a right is refused, or a host runs, this says so; and Signatory's files are as good from then on.
    admin.export()
    marks = admin.read().marks
    write_octez_marks(folder, marks)
    click.echo(f"Raised the high watermarks in {folder} to {counted(len(marks), 'mark')}")
    click.echo(f"Wrote every mark into Signatory's files in {config.base_dir}")
