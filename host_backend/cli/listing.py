"""What `list` and `generate` do, and the forms they print keys in: Signatory's, and JSON."""

import logging
import sys

import click

from enclave_signer.protocol.messages import KeyType
from enclave_signer.tezos import encode_public_key
from host_backend.cli.answer import Answer
from host_backend.cli.configuring import next_steps
from host_backend.cli.progress import ENCLAVE_LIMITS, progress, waiting
from host_backend.config import Config, VaultConfig
from host_backend.errors import EnclaveUnavailable, HostError
from host_backend.policy import KeyPolicy
from host_backend.record import VAULT_DRIVER
from host_backend.stores import (
    create_watermark_store_for_first_key,
    open_configured_provisioning,
    open_configured_vault,
    stored_keys,
)
from host_backend.vault.keys import VaultKey

logger = logging.getLogger(__name__)

_LABEL_COLUMNS = 27


def describe(key: VaultKey, policy: KeyPolicy | None) -> str:
    """Return the block of lines that `list` and `generate` print for a key, ending in an empty line."""
    lines = [
        ("Public Key Hash:", key.pkh),
        ("Public Key:", encode_public_key(key.public_key)),
        ("Vault:", VAULT_DRIVER),
        ("Active:", "false" if policy is None else "true"),
    ]
    if policy is not None:
        lines += [
            ("Allowed Requests:", f"[{' '.join(sorted(policy.requests))}]"),
            ("Allowed Operations:", f"[{' '.join(sorted(policy.operations))}]"),
            ("Allow Proof of Possession:", "true" if policy.allow_proof_of_possession else "false"),
        ]
    return _block(*lines)


def key_object(key: VaultKey, policy: KeyPolicy | None, vault: str) -> dict[str, object]:
    """Return a key as JSON; what an inactive key may sign is null."""
    return {
        "public_key_hash": key.pkh,
        "public_key": encode_public_key(key.public_key),
        "vault": vault,
        "active": policy is not None,
        "allowed_requests": None if policy is None else sorted(policy.requests),
        "allowed_operations": None if policy is None else sorted(policy.operations),
        "allowed_chains": None if policy is None or policy.chains is None else sorted(policy.chains),
        "allow_proof_of_possession": policy is not None and policy.allow_proof_of_possession,
        "out_of_service": None,
    }


def _block(*lines: tuple[str, str]) -> str:
    return "".join(f"{label:<{_LABEL_COLUMNS}}{value}\n" for label, value in lines) + "\n"


async def list_all(config: Config, answer: Answer) -> None:
    """Print every key of every vault, those out of service last; of an enclave that is away, the stored ones.

    Raises:
        HostError: A vault cannot be opened.
    """
    failed: HostError | None = None
    answer.add("keys")
    for vault_config in config.vaults.values():
        try:
            await _list(vault_config, config, answer)
        except HostError as error:
            failed = error
            for pkh in dict.fromkeys(key.pkh for key in await stored_keys(vault_config)):
                _print_out_of_service(pkh, f"stored, and not opened: {error}", vault_config.name, answer)
    if isinstance(failed, EnclaveUnavailable):
        raise EnclaveUnavailable(f"{failed}: start enclave-signer") from failed
    if failed is not None:
        raise failed


async def _list(vault_config: VaultConfig, config: Config, answer: Answer) -> None:
    with waiting(str(vault_config.enclave), ENCLAVE_LIMITS.sealer_s):
        async with open_configured_vault(vault_config, limits=ENCLAVE_LIMITS) as vault:
            keys, out_of_service = vault.keys, vault.out_of_service
    for key in keys:
        _print(key, vault.name, config, answer)
    for pkh, reason in out_of_service.items():
        _print_out_of_service(pkh, reason, vault.name, answer)
    if not keys:
        logger.error("No valid keys found in the vault %s", vault.name)


async def generate_keys(
    config: Config, vault_config: VaultConfig, key_type: KeyType, count: int, answer: Answer
) -> None:
    """Make keys and print each as soon as its blob is durable.

    Raises:
        HostError: A key could not be made or stored; the ones printed before are there.
    """
    async with open_configured_provisioning(vault_config) as provisioning:
        await create_watermark_store_for_first_key(config)
        # On a terminal the keys themselves show the progress.
        with progress("generating keys", count, hidden=sys.stdout.isatty() and not answer.as_json) as advance:
            made = []
            async for key in provisioning.generate_many(key_type, count):
                _print(key, vault_config.name, config, answer)
                made.append(key.pkh)
                advance()
    if not answer.as_json:
        click.echo(next_steps(made), err=True)


def _print(key: VaultKey, vault: str, config: Config, answer: Answer) -> None:
    policy = config.policies.get(key.pkh)
    answer.add("keys", key_object(key, policy, vault))
    answer.say(describe(key, policy), newline=False)


def _print_out_of_service(pkh: str, reason: str, vault: str, answer: Answer) -> None:
    answer.add("keys", {"public_key_hash": pkh, "vault": vault, "out_of_service": reason})
    # No `Public Key Hash:` here: scripts look for that to find keys that sign.
    answer.say(_block(("Out of Service:", pkh), ("Vault:", VAULT_DRIVER), ("Reason:", reason)), newline=False)
