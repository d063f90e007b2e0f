"""What the commands on keys do, and the forms they print in: Signatory's."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from enclave_signer.protocol.messages import KeyType, PrivateKey
from enclave_signer.tezos import TezosError, encode_public_key, parse_secret_key
from host_backend.app import create_watermark_store_for_first_key, open_configured_vault
from host_backend.config import Config, VaultConfig
from host_backend.errors import ConfigError, MalformedRequest
from host_backend.keyring import VaultKey
from host_backend.log import fields
from host_backend.policy import KeyPolicy

logger = logging.getLogger(__name__)

#: Signatory's name for the kind of vault, where it shows one.
VAULT_KIND = "ConfidentialSpace"
#: The longest secret key has 98 characters; a file may have blank lines around it.
MAX_SECRET_FILE_BYTES = 4096
_LABEL_COLUMNS = 27


def describe(key: VaultKey, policy: KeyPolicy | None) -> str:
    """Return the block of lines that `list` and `generate` print for a key, ending in an empty line."""
    lines = [
        ("Public Key Hash:", key.pkh),
        ("Public Key:", encode_public_key(key.public_key)),
        ("Reference:", ""),
        ("Vault:", VAULT_KIND),
        ("Active:", "false" if policy is None else "true"),
    ]
    if policy is not None:
        lines += [
            ("Allowed Requests:", _sorted(policy.requests)),
            ("Allowed Operations:", _sorted(policy.operations)),
            ("Allow Proof of Possession:", "false"),
        ]
    return "".join(f"{label:<{_LABEL_COLUMNS}}{value}\n" for label, value in lines) + "\n"


def _sorted(names: frozenset[str]) -> str:
    return f"[{' '.join(sorted(names))}]"


async def list_all(config: Config) -> None:
    """Print every key of every vault; keys that are out of service are named in the log.

    Raises:
        HostError: A vault cannot be opened.
    """
    for vault_config in config.vaults.values():
        async with open_configured_vault(vault_config) as vault:
            for key in vault.keys:
                click.echo(describe(key, config.policies.get(key.pkh)), nl=False)
            if not vault.keys:
                logger.error("No valid keys found in the vault %s", vault.name)


async def generate_keys(config: Config, vault_config: VaultConfig, key_type: KeyType, count: int) -> None:
    """Make keys and print each as soon as its blob is durable.

    Raises:
        HostError: A key could not be made or stored; the ones printed before are there.
    """
    async with open_configured_vault(vault_config) as vault:
        await create_watermark_store_for_first_key(config)
        for _ in range(count):
            key = await vault.generate(key_type)
            click.echo(describe(key, config.policies.get(key.pkh)), nl=False)


def read_secret_keys(arguments: Sequence[str], source: Path | None) -> list[PrivateKey]:
    """Return the secret keys that were named, whole or not at all.

    Raises:
        MalformedRequest: One of them is no secret key in clear; the text never repeats it.
    """
    if source is not None:
        texts = [_read_file(source)]
    elif list(arguments) == ["-"]:
        texts = [_read_standard_input()]
    elif arguments:
        logger.warning("a secret key on the command line can be seen by others: use the prompt, --from FILE, or -")
        texts = list(arguments)
    else:
        texts = [_ask()]
    return [_parse(text, index) for index, text in enumerate(texts)]


def _read_file(source: Path) -> str:
    if str(source) == "-":
        return _read_standard_input()
    try:
        with source.open("rb") as file:
            return _text(file.read(MAX_SECRET_FILE_BYTES + 1), str(source))
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from error


def _read_standard_input() -> str:
    return _text(sys.stdin.buffer.read(MAX_SECRET_FILE_BYTES + 1), "standard input")


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        # Its text would tell a byte of what may be a key.
        raise MalformedRequest(f"{source} holds no base58 secret key") from None


def _ask() -> str:
    if not sys.stdin.isatty():
        raise ConfigError("no terminal to ask for the secret key: use --from FILE, or - for standard input")
    text: str = click.prompt("Enter the secret key", hide_input=True, err=True)
    return text


def _parse(text: str, index: int) -> PrivateKey:
    try:
        return parse_secret_key(text.strip())
    except TezosError as error:
        which = f"secret key {index + 1}: " if index else ""
        raise MalformedRequest(f"{which}{error}") from None


async def import_secret_keys(config: Config, vault_config: VaultConfig, keys: Sequence[PrivateKey]) -> None:
    """Have keys sealed and stored, in order.

    Raises:
        HostError: At the first key that could not be; the ones logged as imported are there.
    """
    async with open_configured_vault(vault_config) as vault:
        await create_watermark_store_for_first_key(config)
        for private_key in keys:
            logger.info("Requesting import operation", extra=fields(vault=VAULT_KIND))
            key = await vault.import_key(private_key)
            logger.info("Successfully imported", extra=fields(pkh=key.pkh, vault=VAULT_KIND))
    logger.warning(
        "marks made elsewhere do not come with a key: if it has signed for a baker, see `watermark raise` before `serve`"
    )
