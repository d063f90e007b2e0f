"""`enclave-host list`, `generate`, `import`, `reseal`, `keys` and `reload`: their arguments and options."""

from collections.abc import Sequence
from pathlib import Path

import click

from enclave_signer.protocol.key_types import PEM_KEY_TYPES, KeyType
from enclave_signer.tezos import secret_key_labels
from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Command, Group
from host_backend.cli.named_path import NamedPath
from host_backend.cli.options import Options, takes_json, takes_options, takes_password
from host_backend.cli.parameters import Choice, VaultName, named_vault
from host_backend.cli.presets import MAINNET, PRESETS

#: Names of key types, as Signatory takes them.
_KEY_TYPES = {name: key_type for key_type in KeyType for name in (key_type.facts.name, key_type.facts.address)}
_LABELS = ", ".join(secret_key_labels())
_NAMES_IN_PEM = ", ".join(key_type.facts.name for key_type in PEM_KEY_TYPES)
_VAULT_HELP = "Vault to store the keys in [default: the only one]."
_IMPORT_HELP = f"""Import secret keys; the enclave seals them.

A key may be in base58, plain or encrypted ({_LABELS}), with or without `unencrypted:` or `encrypted:` before it, as
`octez-client show address -S` prints it, or in PEM or DER ({_NAMES_IN_PEM}), encrypted or not.

--from-octez imports each key whose secret is in the folder, and prints lines for the configuration, including the keys
that sign requests.

Without an argument the command asks for the key and does not show it; `-` reads it from standard input. Others on this
machine can see a key given as an argument, or --password, and both stay in the shell's history.
"""


@click.command("list", cls=Command, example="enclave-host list")
@takes_json
@takes_options
def list_keys(options: Options, *, answer: Answer) -> None:
    """Show the keys of all vaults and their policies."""
    import asyncio

    from host_backend.cli.listing import list_all

    asyncio.run(list_all(options.load(), answer))


@click.command(cls=Command, example="enclave-host generate --type tz4")
@click.option("-v", "--vault", type=VaultName(), metavar="NAME", help=_VAULT_HELP)
@click.option(
    "-n",
    "--num",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="COUNT",
    help="Number of keys.",
)
@click.option(
    "-t",
    "--type",
    "kind",
    type=Choice(list(_KEY_TYPES)),
    # Listed there, they would be wider than a terminal with one curve more.
    metavar="TYPE",
    default="ed25519",
    show_default=True,
    help=f"Type of the keys: {', '.join(_KEY_TYPES)}.",
)
@takes_json
@takes_options
def generate(options: Options, vault: str | None, num: int, kind: str, *, answer: Answer) -> None:
    """Generate keys inside the enclave."""
    import asyncio

    from host_backend.cli.listing import generate_keys
    from host_backend.config.experimental import check_on

    config, key_type = options.load(), _KEY_TYPES[kind]
    check_on(key_type, config.experimental)
    asyncio.run(generate_keys(config, named_vault(config, vault), key_type, num, answer))


@click.command(
    "import",
    cls=Command,
    help=_IMPORT_HELP,
    example=(
        "enclave-host import --from key.pem",
        "enclave-host import --from-octez ~/.tezos-client",
    ),
)
@click.argument("secret_keys", nargs=-1, metavar="[SECRET_KEY]...")
@click.option("-v", "--vault", type=VaultName(), metavar="NAME", help=_VAULT_HELP)
@click.option("-f", "--from", "source", type=NamedPath(), help="File that holds one secret key.")
@click.option(
    "--from-octez",
    type=NamedPath(),
    help="Folder of octez-signer or octez-client, or its file secret_keys: import all keys in it.",
)
@takes_password
@click.option("-o", "--opt", metavar="KEY:VALUE[,…]", help="Ignored: options of other kinds of vault.")
@click.option("--replace", is_flag=True, help="Replace the stored blob of a key that no longer opens.")
@takes_json
@takes_options
def import_keys(  # Longer than most: an argument for each option.
    options: Options,
    secret_keys: Sequence[str],
    vault: str | None,
    source: Path | None,
    from_octez: Path | None,
    password: str | None,
    password_file: Path | None,
    opt: str | None,
    *,
    replace: bool,
    answer: Answer,
) -> None:
    """Import keys; the help is `_IMPORT_HELP`."""
    import asyncio

    from host_backend.cli.importing import check_option_map, import_secret_keys
    from host_backend.cli.secrets import password_source, read_secret_keys
    from host_backend.config.experimental import check_on
    from host_backend.inspection import forbid_inspection

    forbid_inspection()
    config = options.load()
    target = named_vault(config, vault)
    check_option_map(opt)
    if from_octez is not None:
        if secret_keys or source is not None:
            raise click.UsageError("--from-octez and another key are both given: import them one after the other.")
        from host_backend.cli.from_octez import import_wallet

        passwords = password_source(password, password_file)
        import_wallet(config, target, from_octez, passwords, answer, replace=replace)
        return
    keys = read_secret_keys(secret_keys, source, password_source(password, password_file))
    for key in keys:
        check_on(key.key_type, config.experimental)
    asyncio.run(import_secret_keys(config, target, keys, answer, replace=replace))


@click.command(cls=Command, example="enclave-host reseal --dry-run")
@click.option(
    "-v", "--vault", type=VaultName(), metavar="NAME", help="Vault that holds the keys [default: all vaults]."
)
@click.option("--to", "target", metavar="KEY", help="Key-encryption key [default: the vault's encryption_key_path].")
@click.option("--again", is_flag=True, help="Also reseal keys under that key already, for its newest version.")
@click.option("--dry-run", is_flag=True, help="Only show the changes; asks no enclave.")
@click.option("--undo", is_flag=True, help="Restore the blobs that the last reseal replaced.")
@click.option("--redo", is_flag=True, help="Restore the blobs that the last --undo replaced.")
@takes_json
@takes_options
def reseal(
    options: Options,
    vault: str | None,
    target: str | None,
    *,
    again: bool,
    dry_run: bool,
    undo: bool,
    redo: bool,
    answer: Answer,
) -> None:
    """Reseal stored keys under another key-encryption key.

    Keys sealed under that key already stay as they are, so you can finish an interrupted run by running it again. The
    enclave's image lists the allowed moves from key to key. The old blobs are kept beside the new ones.
    """
    import asyncio

    from host_backend.cli.resealing import reseal_keys, targets, undo_resealing

    if undo and redo:
        raise click.UsageError("--undo and --redo contradict each other: give one of them.")
    if (undo or redo) and (again or target is not None):
        raise click.UsageError("--undo and --redo restore the replaced blobs: leave out --to and --again.")
    config = options.load()
    vaults = [*config.vaults.values()] if vault is None else [named_vault(config, vault)]
    if undo or redo:
        asyncio.run(undo_resealing(vaults, answer, redo=redo, dry_run=dry_run))
    else:
        asyncio.run(reseal_keys(targets(vaults, target), answer, again=again, dry_run=dry_run))


@click.group("keys", cls=Group)
@takes_options
def keys(options: Options) -> None:
    """Allow keys to sign."""
    del options


@keys.command("allow", example="enclave-host keys allow tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb --for staking")
@click.argument("pkh")
@click.option(
    "--for", "preset", type=Choice(PRESETS), default="consensus", show_default=True, help="Purpose of the key."
)
@click.option(
    "--chain",
    default=MAINNET,
    show_default=True,
    metavar="CHAIN_ID",
    help="Chain on which it signs blocks or attestations.",
)
@takes_options
def allow(options: Options, pkh: str, preset: str, chain: str) -> None:
    """Add a key and its policy to the configuration.

    The lines go under `tezos`; all other lines and comments stay as they are.

    A consensus key signs blocks and (pre)attestations, a companion key attestations, a staking key stakes and votes, a
    registering key delegates and changes keys, a paying key sends transactions. docs/policies.md has them all.
    """
    from host_backend.cli.configuring import allow_key

    options.start_logging(one_shot=True)
    allow_key(options.config_file, options.base_dir, pkh, preset, chain)


@click.command("reload", cls=Command, example="enclave-host reload -c signatory.yaml")
@takes_options
def reload(options: Options) -> None:
    """Make the running host read its policies again, as SIGHUP does, and wait until it has."""
    from host_backend.cli.configuring import reload_host

    reload_host(options.load(warn=False))
