"""A key broker's double with images that name it, and what sealers of these are asked."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import SealingError
from enclave_signer.image import parse_image
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey
from enclave_signer.sealing.base import Sealer, open_key, seal_key
from enclave_signer.sealing.kbs import Kbs, open_kbs
from tests.doubles.certificates import Authority
from tests.doubles.kbs import KbsDouble
from tests.doubles.kbs_image import KEK, OLD_KEK, OLD_RESOURCE, RESOURCE, kbs_image

T = TypeVar("T")

PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
BOTH = {RESOURCE: KEK, OLD_RESOURCE: OLD_KEK}
HANDSHAKE = ["auth", "attest", "resource"]


class Broker:
    """The double, and images that name it."""

    def __init__(self, double: KbsDouble, authority: Authority) -> None:
        self.double = double
        self.authority = authority
        double.resources = {RESOURCE: KEK}

    def provider(
        self,
        keys: Mapping[str, bytes] | None = None,
        *,
        tee: str = "sample",
        ca_file: Path | None = None,
        agent: str = "",
        answer_s: float = 8.0,
    ) -> Kbs:
        text = kbs_image(self.double.url, ca_file or self.authority.file, keys, tee)
        config = parse_image(text, "image.toml").kbs
        assert config is not None
        return open_kbs(config, agent, answer_s)


def with_sealer(
    provider: Kbs,
    scenario: Callable[[Sealer], Awaitable[T]],
    credentials: Credentials = Credentials(),  # noqa: B008
) -> T:
    async def main() -> T:
        return await scenario(await provider.open_sealer(credentials))

    return trio.run(main)


async def seal(sealer: Sealer) -> bytes:
    return (await seal_key(sealer, PRIVATE, trio.lowlevel.checkpoint))[0]


def opening(blob: bytes) -> Callable[[Sealer], Awaitable[SigningKey]]:
    async def open_it(sealer: Sealer) -> SigningKey:
        return await open_key(sealer, blob, trio.lowlevel.checkpoint)

    return open_it


def refusal_of(provider: Kbs) -> SealingError:
    """Return why there is no sealer."""
    with pytest.raises(SealingError) as raised:
        with_sealer(provider, seal)
    return raised.value


def broker_as_new(double: KbsDouble, authority: Authority) -> Broker:
    """Return a running double as new, but for the server, which knows it."""
    url = double.url
    double.__init__()  # type: ignore[misc]
    double.url = url
    return Broker(double, authority)
