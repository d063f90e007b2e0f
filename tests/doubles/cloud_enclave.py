"""The daemon with a sealer as far away as a cloud: `CLOUD_SEALER_STATE` names a file that says how it is at the moment.

The file holds `{"mode": …, "call_ms": …, "initialize_ms": …}`; the mode is one of `MODES`. Keys are sealed under a
key that is always the same. Each `Initialize` and each opening that gets through writes a line to standard error.
"""

import json
import os
import sys
from pathlib import Path

import trio

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.errors import NotReleased, SealingRefused, SealingUnavailable
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.local import KEY_BYTES, LocalSealer

STATE_VARIABLE = "CLOUD_SEALER_STATE"
MODES = ("ok", "unavailable", "refused", "not released", "hanging")
LIMIT_S = 3.0
#: As many calls at once as a thread pool of a real client would have.
THREADS = 64


class CloudSealer(LocalSealer):
    """Both a sealer and the provider of it."""

    limit_s = LIMIT_S

    def __init__(self, state: Path) -> None:
        super().__init__(bytes(range(KEY_BYTES)))
        self._state = state
        self._threads = trio.CapacityLimiter(THREADS)

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        await self._call("initialize_ms")
        return await super().open_sealer(credentials)

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        await self._call("call_ms")
        return await super().seal(private_key, public_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await self._call("call_ms")
        return await super().unseal(blob)

    async def _call(self, delay: str) -> None:
        state = json.loads(self._state.read_text())
        async with self._threads:
            await trio.sleep(state[delay] / 1e3)
        match state["mode"]:
            case "unavailable":
                raise SealingUnavailable("the key management service gave no answer")
            case "refused":
                raise SealingRefused("the key management service refuses: grant this image the right to decrypt")
            case "not released":
                raise NotReleased("somebody has to allow it first")
            case "hanging":
                await trio.sleep_forever()
        sys.stderr.write(f"cloud answered {delay}\n")


def main() -> None:
    config = parse_config(["--sealing-key", os.devnull, *sys.argv[1:]], os.environ)
    start_logging(config, sys.argv[1:])
    run(config, lambda: [CloudSealer(Path(os.environ[STATE_VARIABLE]))])


if __name__ == "__main__":
    main()
