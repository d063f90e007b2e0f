"""The sealer `vault_transit` in the process of a test, each time in a run of its own."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from enclave_signer.curves import SigningKey, curve
from enclave_signer.image import parse_image
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey
from enclave_signer.sealing.base import Sealer, open_key, seal_key
from enclave_signer.sealing.vault_config import VaultConfig
from enclave_signer.sealing.vault_transit import VaultTimes, VaultTransit

T = TypeVar("T")

PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
#: Nothing is waited for but answers.
AT_ONCE = VaultTimes(retry_after_s=(0.0, 0.0), refused_s=0.0, unavailable_s=0.0)


def vault_config(image: str) -> VaultConfig:
    config = parse_image(image, "image.toml").vault_transit
    assert config is not None
    return config


def with_sealer(
    image: str,
    scenario: Callable[[Sealer], Awaitable[T]],
    *,
    socket: Path = Path("/nowhere"),
    key: str | None = None,
    times: VaultTimes = AT_ONCE,
) -> T:
    """Return what becomes of a sealer."""

    async def main() -> T:
        provider = VaultTransit(vault_config(image), LauncherSocket(socket, 1.0), times)
        try:
            return await scenario(await provider.open_sealer(Credentials(None, key)))
        finally:
            await provider.aclose()

    return trio.run(main)


async def seal(sealer: Sealer) -> bytes:
    return (await seal_key(sealer, PRIVATE, trio.lowlevel.checkpoint))[0]


def sealed(image: str, key: str | None = None) -> bytes:
    return with_sealer(image, seal, key=key)


def opened(image: str, blob: bytes, times: VaultTimes = AT_ONCE) -> SigningKey:
    return with_sealer(image, lambda sealer: open_key(sealer, blob, trio.lowlevel.checkpoint), times=times)
