"""What `import` does."""

import json
import logging
from collections.abc import Sequence

import click

from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import public_key_hash
from host_backend.cli.listing import VAULT_KIND
from host_backend.cli.option_map import parse_option_map
from host_backend.cli.progress import progress
from host_backend.config import Config, VaultConfig
from host_backend.log import fields
from host_backend.secret_keys import open_secret_key
from host_backend.stores import create_watermark_store_for_first_key, open_configured_vault
from host_backend.vault import Vault

logger = logging.getLogger(__name__)

_IMPORTED, _STORED, _REPLACED = "imported", "already stored", "replaced"


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
    outcomes: set[str] = set()
    async with open_configured_vault(vault_config) as vault:
        await create_watermark_store_for_first_key(config)
        with progress("importing keys", len(keys)) as advance:
            for private_key in keys:
                outcomes.add(await _import(vault, private_key, replace=replace, as_json=as_json))
                advance()
    if _IMPORTED in outcomes:
        logger.warning(
            "marks made elsewhere do not come with a key: if it has signed for a baker, see `watermark raise` "
            "before `serve`"
        )


async def _import(vault: Vault, private_key: PrivateKey, *, replace: bool, as_json: bool) -> str:
    pkh = public_key_hash(open_secret_key(private_key).public_key)
    logger.info("Requesting import operation", extra=fields(pkh=pkh, vault=VAULT_KIND))
    outcome = _IMPORTED
    if pkh in vault.quarantined:
        outcome = _REPLACED
    elif any(key.pkh == pkh for key in vault.keys):
        outcome = _STORED
    await vault.import_key(private_key, replace=replace)
    if outcome != _STORED:
        # Of a key that was stored already the vault has told.
        logger.info("Successfully imported", extra=fields(pkh=pkh, vault=VAULT_KIND))
    if as_json:
        click.echo(json.dumps({"pkh": pkh, "vault": vault.name, "outcome": outcome}))
    return outcome
