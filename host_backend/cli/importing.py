"""What `import` does."""

import json
import logging
from collections.abc import Sequence

import click

from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import public_key_hash
from host_backend.cli.option_map import parse_option_map
from host_backend.cli.progress import progress
from host_backend.config import Config, VaultConfig
from host_backend.log import fields
from host_backend.record import VAULT_DRIVER
from host_backend.secret_keys import open_secret_key
from host_backend.stores import create_watermark_store_for_first_key, open_configured_provisioning
from host_backend.vault.provisioning import Imported, Provisioning

logger = logging.getLogger(__name__)


def check_option_map(text: str | None) -> None:
    """Pass when the text of `--opt` is well formed; it means nothing to this kind of vault.

    Raises:
        ConfigError: It is not.
    """
    if text is not None:
        names = ", ".join(parse_option_map(text))
        logger.info("--opt means nothing to this kind of vault", extra=fields(options=names))


async def import_secret_keys(
    config: Config, vault_config: VaultConfig, keys: Sequence[PrivateKey], *, replace: bool, as_json: bool
) -> None:
    """Have keys sealed and stored, in order.

    Raises:
        HostError: At the first key that could not be; the ones logged as imported are there.
    """
    outcomes: set[Imported] = set()
    async with open_configured_provisioning(vault_config) as provisioning:
        await provisioning.require_safe_import()
        await create_watermark_store_for_first_key(config)
        with progress("importing keys", len(keys)) as advance:
            for private_key in keys:
                outcomes.add(await _import(provisioning, private_key, replace=replace, as_json=as_json))
                advance()
    if Imported.NEW in outcomes:
        logger.warning(
            "marks made elsewhere do not come with a key: if it has signed for a baker, raise its marks with `watermark raise` "
            "while no host runs, and before it signs here"
        )


async def _import(provisioning: Provisioning, private_key: PrivateKey, *, replace: bool, as_json: bool) -> Imported:
    pkh = public_key_hash(open_secret_key(private_key).public_key)
    logger.info("Requesting import operation", extra=fields(pkh=pkh, vault=VAULT_DRIVER))
    _, outcome = await provisioning.import_key(private_key, replace=replace)
    if outcome is Imported.STORED:
        logger.info("already stored: kept as it was", extra=fields(pkh=pkh, vault=provisioning.vault))
    else:
        logger.info("Successfully imported", extra=fields(pkh=pkh, vault=VAULT_DRIVER))
    if as_json:
        click.echo(json.dumps({"pkh": pkh, "vault": provisioning.vault, "outcome": outcome}))
    return outcome
