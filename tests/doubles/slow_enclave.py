"""The daemon with a sealer that seals nothing and takes its time: `SLOW_SEALER_MS` to seal, and to open a blob."""

import os
import sys

import trio

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.protocol.messages import PrivateKey, PublicKey
from enclave_signer.sealing.base import UnsealedKey
from tests.doubles.passthrough_enclave import PassthroughSealer

DELAY_VARIABLE = "SLOW_SEALER_MS"


class SlowSealer(PassthroughSealer):
    """As slow as a cloud far away."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        await trio.sleep(self._delay_s)
        return await super().seal(private_key, public_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await trio.sleep(self._delay_s)
        return await super().unseal(blob)


def main() -> None:
    config = parse_config(["--sealing-key", os.devnull, *sys.argv[1:]], os.environ)
    start_logging(config, sys.argv[1:])
    run(config, lambda: [SlowSealer(int(os.environ[DELAY_VARIABLE]) / 1e3)])


if __name__ == "__main__":
    main()
