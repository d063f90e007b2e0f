"""What `import` does."""

import logging
import sys
from collections.abc import Sequence

import click

from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import public_key_hash
from host_backend.cli.answer import Answer
from host_backend.cli.configuring import next_steps
from host_backend.cli.option_map import parse_option_map
from host_backend.cli.progress import progress
from host_backend.config import Config, VaultConfig
from host_backend.log import fields
from host_backend.record import VAULT_DRIVER
from host_backend.secret_keys import open_secret_key
from host_backend.stores import create_watermark_store_for_first_key, open_configured_provisioning
from host_backend.vault.provisioning import Imported, Provisioning

logger = logging.getLogger(__name__)

_WORDS = {Imported.NEW: "Imported", Imported.REPLACED: "Replaced", Imported.STORED: "Stored already, unchanged:"}


def check_option_map(text: str | None) -> None:
    """Pass when the text of `--opt` is well formed; it means nothing to this kind of vault.

    Raises:
        ConfigError: It is not.
    """
    if text is not None:
        names = ", ".join(parse_option_map(text))
        logger.info("--opt means nothing to this kind of vault", extra=fields(options=names))


async def import_secret_keys(
    config: Config, vault_config: VaultConfig, keys: Sequence[PrivateKey], answer: Answer, *, replace: bool
) -> None:
    """Have keys sealed and stored, in order.

    Raises:
        HostError: At the first key that could not be; the ones logged as imported are there.
    """
    outcomes: dict[str, Imported] = {}
    answer.add("keys")
    async with open_configured_provisioning(vault_config) as provisioning:
        await provisioning.require_safe_import()
        await create_watermark_store_for_first_key(config)
        # On a terminal the keys themselves show the progress.
        with progress("importing keys", len(keys), hidden=sys.stdout.isatty() and not answer.as_json) as advance:
            for private_key in keys:
                pkh, outcome = await _import(provisioning, private_key, answer, replace=replace)
                outcomes[pkh] = outcome
                advance()
    unlisted = [pkh for pkh in outcomes if pkh not in config.policies]
    if unlisted and not answer.as_json:
        click.echo(next_steps(unlisted), err=True)
    if Imported.NEW in outcomes.values():
        logger.warning(
            "marks do not move with an imported key: if it has signed for a baker elsewhere, raise its marks with "
            "`watermark raise` while no host runs, before it signs here"
        )


async def _import(
    provisioning: Provisioning, private_key: PrivateKey, answer: Answer, *, replace: bool
) -> tuple[str, Imported]:
    pkh = public_key_hash(open_secret_key(private_key).public_key)
    logger.info("Requesting import operation", extra=fields(pkh=pkh, vault=VAULT_DRIVER))
    _, outcome = await provisioning.import_key(private_key, replace=replace)
    if outcome is Imported.STORED:
        logger.info("already stored: kept as it was", extra=fields(pkh=pkh, vault=provisioning.vault))
    else:
        logger.info("Successfully imported", extra=fields(pkh=pkh, vault=VAULT_DRIVER))
    answer.add("keys", {"public_key_hash": pkh, "vault": provisioning.vault, "outcome": outcome})
    answer.say(f"{_WORDS[outcome]} {pkh}, in vault {provisioning.vault}")
    return pkh, outcome
