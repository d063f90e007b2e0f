"""`enclave-host list`, `generate`, `import` and `reseal`: what they take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.tezos import secret_key_labels
from host_backend.cli.options import Options, takes_json, takes_options, takes_password
from host_backend.cli.presets import MAINNET, PRESETS

if TYPE_CHECKING:
    from host_backend.config import Config, VaultConfig

#: Names of key types, as Signatory takes them.
_KEY_TYPES = {name: key_type for key_type in KeyType for name in (key_type.facts.name, key_type.facts.address)}
_LABELS = ", ".join(secret_key_labels())
_NAMES_IN_PEM = ", ".join(key_type.facts.name for key_type in KeyType if key_type.facts.pem_name is not None)
_IMPORT_HELP = f"""Hand secret keys to the enclave, which seals them.

A key may be in base58, plain or encrypted ({_LABELS}), with or without `unencrypted:` or `encrypted:` before it, as
`octez-client show address -S` prints it, or in PEM or DER ({_NAMES_IN_PEM}), encrypted or not.

Of a folder of Octez each key is taken whose secret is there; lines for the configuration are printed, keys that sign
requests among them.

Without an argument the key is asked for and not shown; `-` reads it from standard input. A key given as an argument can be
seen by others on this machine, and stays in the shell's history; so does --password.
"""


@click.command("list")
@takes_json
@takes_options
def list_keys(options: Options, *, as_json: bool) -> None:
    """Show the keys of all vaults, and what they may sign."""
    import asyncio

    from host_backend.cli.listing import list_all

    asyncio.run(list_all(options.load(), as_json=as_json))


@click.command()
@click.option("-v", "--vault", required=True, help="Vault that shall hold the keys.")
@click.option("-n", "--num", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many keys.")
@click.option("-t", "--type", "kind", type=click.Choice(list(_KEY_TYPES)), default="ed25519", show_default=True)
@takes_json
@takes_options
def generate(options: Options, vault: str, num: int, kind: str, *, as_json: bool) -> None:
    """Make keys inside the enclave."""
    import asyncio

    from host_backend.cli.listing import generate_keys
    from host_backend.config.experimental import check_on

    config, key_type = options.load(), _KEY_TYPES[kind]
    check_on(key_type, config.experimental)
    asyncio.run(generate_keys(config, _vault(config, vault, "generate"), key_type, num, as_json=as_json))


@click.command("import", help=_IMPORT_HELP)
@click.argument("secret_keys", nargs=-1, metavar="[SECRET_KEY]...")
@click.option("-v", "--vault", required=True, help="Vault that shall hold the keys.")
@click.option("-f", "--from", "source", type=click.Path(path_type=Path), help="File that holds one secret key.")
@click.option(
    "--from-octez",
    type=click.Path(path_type=Path),
    help="Folder of octez-signer or octez-client, or its file secret_keys: all keys in it.",
)
@takes_password
@click.option("-o", "--opt", help="key:value[,…] for other kinds of vault; these have nothing to choose.")
@click.option("--replace", is_flag=True, help="Replace the stored blob of a key that is out of service.")
@takes_json
@takes_options
def import_keys(  # Longer than most: an argument for each option.
    options: Options,
    secret_keys: Sequence[str],
    vault: str,
    source: Path | None,
    from_octez: Path | None,
    password: str | None,
    password_file: Path | None,
    opt: str | None,
    *,
    replace: bool,
    as_json: bool,
) -> None:
    """Import what `_IMPORT_HELP` says."""
    import asyncio

    from host_backend.cli.importing import check_option_map, import_secret_keys
    from host_backend.cli.secrets import password_source, read_secret_keys
    from host_backend.config.experimental import check_on
    from host_backend.inspection import forbid_inspection

    forbid_inspection()
    config = options.load()
    target = _vault(config, vault, "import")
    check_option_map(opt)
    if from_octez is not None:
        if secret_keys or source is not None:
            raise click.UsageError("--from-octez is given, and another key: import one after the other.")
        from host_backend.cli.from_octez import import_wallet

        passwords = password_source(password, password_file)
        import_wallet(config, target, from_octez, passwords, replace=replace, as_json=as_json)
        return
    keys = read_secret_keys(secret_keys, source, password_source(password, password_file))
    for key in keys:
        check_on(key.key_type, config.experimental)
    asyncio.run(import_secret_keys(config, target, keys, replace=replace, as_json=as_json))


@click.command()
@click.option("-v", "--vault", help="Vault that holds the keys [default: all vaults].")
@click.option("--to", "target", metavar="KEY", help="Key to seal under [default: the vault's encryption_key_path].")
@click.option("--again", is_flag=True, help="Also what is under that key already: under its newest version.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; no enclave is asked.")
@click.option("--undo", is_flag=True, help="Put back the blobs that were kept last.")
@click.option("--redo", is_flag=True, help="Put back what the last --undo replaced.")
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
    as_json: bool,
) -> None:
    """Have the enclave seal stored keys anew, under another key.

    What is sealed under that key already stays as it is, so an interrupted run is finished by running it again. The
    enclave's image says what may be sealed anew, and from where to where. The old blobs are kept beside the others.
    """
    import asyncio

    from host_backend.cli.resealing import reseal_keys, targets, undo_resealing

    if undo and redo:
        raise click.UsageError("--undo and --redo undo each other: give one of them.")
    if (undo or redo) and (again or target is not None):
        raise click.UsageError("--undo and --redo put back what was kept: --to and --again mean nothing there.")
    config = options.load()
    vaults = [*config.vaults.values()] if vault is None else [_vault(config, vault, "reseal")]
    if undo or redo:
        asyncio.run(undo_resealing(vaults, redo=redo, dry_run=dry_run, as_json=as_json))
    else:
        asyncio.run(reseal_keys(targets(vaults, target), again=again, dry_run=dry_run, as_json=as_json))


@click.group("keys")
@takes_options
def keys(options: Options) -> None:
    """Say what keys may sign."""
    del options


@keys.command("allow")
@click.argument("pkh")
@click.option(
    "--for", "preset", type=click.Choice(PRESETS), default="consensus", show_default=True, help="What it is for."
)
@click.option("--chain", default=MAINNET, show_default=True, help="Chain on which it signs blocks or attestations.")
@takes_options
def allow(options: Options, pkh: str, preset: str, chain: str) -> None:
    """Add the lines of a key under `tezos` in the configuration; all other lines, and comments, stay as they are.

    A consensus key signs blocks and (pre)attestations, a companion key attestations, a staking key stakes and votes, a
    registering key delegates and changes keys, a paying key sends transactions. docs/policies.md has them all.
    """
    from host_backend.cli.configuring import allow_key

    options.start_logging(one_shot=True)
    allow_key(options.config_file, options.base_dir, pkh, preset, chain)


@click.command("reload")
@takes_options
def reload(options: Options) -> None:
    """Have the running host take over changed policies, as SIGHUP does."""
    from host_backend.cli.configuring import reload_host

    reload_host(options.load(warn=False))


def _vault(config: "Config", name: str, command: str) -> "VaultConfig":
    from host_backend.errors import ConfigError

    if name not in config.vaults:
        known = ", ".join(config.vaults) or "none"
        raise ConfigError(f"{command}: vault {name} is not found, the configuration has: {known}")
    return config.vaults[name]
