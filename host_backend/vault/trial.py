"""Sealed keys opened on trial, in a session of their own: nothing is served by them, and nothing is stored."""

import asyncio
from collections.abc import Callable, Sequence

from enclave_signer.tezos import public_key_hash
from host_backend.enclave.client import EnclaveClient, open_client
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.errors import EnclaveRefused, SealerUnavailable
from host_backend.keystore.base import StoredKey
from host_backend.vault.provisioning import BATCH


async def find_unopened(
    enclave: Endpoint,
    keys: Sequence[StoredKey],
    *,
    limits: LinkLimits = DEFAULT_LIMITS,
    on_tried: Callable[[], None] = lambda: None,
) -> list[tuple[StoredKey, str]]:
    """Have an enclave open every blob, and compare each with its hash.

    Its sealer opens each for this, even those that are open in the enclave already; none of them is kept.

    Args:
        enclave: Where it is, and what its sealer is to use.
        keys: What to try.
        limits: Times of the connection.
        on_tried: Called after each key.

    Returns:
        Those that do not open as the key of their hash, each with the reason.

    Raises:
        EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or accepts no session.
    """
    client = await open_client(enclave, limits=limits)
    unopened: list[tuple[StoredKey, str]] = []
    try:
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            reasons = await asyncio.gather(*(_obstacle(client, key) for key in batch))
            for key, reason in zip(batch, reasons, strict=True):
                if reason is not None:
                    unopened.append((key, reason))
                on_tried()
    finally:
        client.close()
    return unopened


async def _obstacle(client: EnclaveClient, key: StoredKey) -> str | None:
    try:
        actual = public_key_hash(await client.public_key_from(key.blob))
    except (EnclaveRefused, SealerUnavailable) as error:
        return str(error)
    return None if actual == key.pkh else f"its blob holds another key, {actual}"
