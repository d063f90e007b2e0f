"""The daemon with a sealer that seals nothing and takes its time: `SLOW_SEALER_MS` for every blob it has not seen yet.

What it has seen once it opens at once: as with keys that the daemon remembers.
"""

import os
import sys

import trio

from enclave_signer.__main__ import configure_logging, run
from enclave_signer.config import parse_config
from enclave_signer.protocol.messages import PrivateKey, PublicKey
from enclave_signer.sealing.base import UnsealedKey
from tests.doubles.passthrough_enclave import PassthroughSealer

DELAY_VARIABLE = "SLOW_SEALER_MS"


class SlowSealer(PassthroughSealer):
    """As slow as a cloud far away."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._seen: set[bytes] = set()

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        blob = await super().seal(private_key, public_key)
        await self._wait(blob)
        return blob

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await self._wait(blob)
        return await super().unseal(blob)

    async def _wait(self, blob: bytes) -> None:
        if blob not in self._seen:
            await trio.sleep(self._delay_s)
            self._seen.add(blob)


def main() -> None:
    config = parse_config(["--sealing-key", os.devnull, *sys.argv[1:]], os.environ)
    configure_logging(config.log_level)
    run(config, SlowSealer(int(os.environ[DELAY_VARIABLE]) / 1e3))


if __name__ == "__main__":
    main()
