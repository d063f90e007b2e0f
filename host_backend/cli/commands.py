"""`enclave-host` and its commands: what they take and print."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enclave_signer import __version__
from host_backend.cli.configuration import configuration
from host_backend.cli.options import Options, takes_options
from host_backend.cli.watermark import watermark

if TYPE_CHECKING:
    from enclave_signer.protocol.messages import KeyType
    from host_backend.config import Config, VaultConfig

#: The exit code of a bug. Source: sysexits.h, EX_SOFTWARE.
EXIT_BUG = 70
#: Names of key types, as Signatory takes them.
_KEY_TYPES = ("ed25519", "tz1", "secp256k1", "tz2", "p256", "tz3", "bls", "tz4")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@takes_options
def cli(options: Options) -> None:
    """Keep Tezos keys sealed by an enclave, and sign with them over HTTP."""
    del options


@cli.command()
@takes_options
def serve(options: Options) -> None:
    """Sign for clients over HTTP until stopped."""
    from host_backend.app import run_serve

    run_serve(options.load(), options.read_config)


@cli.command("list")
@takes_options
def list_keys(options: Options) -> None:
    """Show the keys of all vaults, and what they may sign."""
    import asyncio

    from host_backend.cli.keys import list_all

    asyncio.run(list_all(options.load()))


@cli.command()
@click.option("-v", "--vault", required=True, help="Vault that shall hold the keys.")
@click.option("-n", "--num", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many keys.")
@click.option("-t", "--type", "kind", type=click.Choice(_KEY_TYPES), default="ed25519", show_default=True)
@takes_options
def generate(options: Options, vault: str, num: int, kind: str) -> None:
    """Make keys inside the enclave."""
    import asyncio

    from host_backend.cli.keys import generate_keys

    config = options.load()
    asyncio.run(generate_keys(config, _vault(config, vault, "generate"), _key_type(kind), num))


@cli.command("import")
@click.argument("secret_keys", nargs=-1, metavar="[SECRET_KEY]...")
@click.option("--vault", required=True, help="Vault that shall hold the keys.")
@click.option("-f", "--from", "source", type=click.Path(path_type=Path), help="File that holds one secret key.")
@takes_options
def import_keys(options: Options, secret_keys: Sequence[str], vault: str, source: Path | None) -> None:
    """Hand secret keys to the enclave, which seals them.

    Without an argument the key is asked for and not shown; `-` reads it from standard input. A key given as an
    argument can be seen by others on this machine, and stays in the shell's history.
    """
    import asyncio

    from host_backend.cli.keys import import_secret_keys, read_secret_keys

    config = options.load()
    target = _vault(config, vault, "import")
    asyncio.run(import_secret_keys(config, target, read_secret_keys(secret_keys, source)))


@cli.command()
def version() -> None:
    """Show the version."""
    click.echo(f"Release Version: {__version__}")


cli.add_command(configuration)
cli.add_command(watermark)


def _vault(config: "Config", name: str, command: str) -> "VaultConfig":
    from host_backend.errors import ConfigError

    if name not in config.vaults:
        known = ", ".join(config.vaults) or "none"
        raise ConfigError(f"{command}: vault {name} is not found, the configuration has: {known}")
    return config.vaults[name]


def _key_type(kind: str) -> "KeyType":
    from enclave_signer.protocol.messages import KeyType

    curves = (KeyType.ED25519, KeyType.SECP256K1, KeyType.P256, KeyType.BLS)
    return curves[_KEY_TYPES.index(kind) // 2]


def main() -> None:
    """Run the command line; every failure is one line and the exit code of its family."""
    try:
        code = cli.main(prog_name="enclave-host", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(_said("interrupted", 1))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 -- the command line's catch-all
        sys.exit(_failed(error))
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception) -> int:
    import logging

    from host_backend.errors import HostError

    if isinstance(error, HostError):
        return _said(str(error), error.exit_code)
    logging.getLogger(__name__).error("a bug, please report it", exc_info=error)
    return _said("internal error: see the log above", EXIT_BUG)


def _said(text: str, code: int) -> int:
    click.echo(f"Error: {text}", err=True)
    return code
