"""The daemon with one key that is gated by a broker and one that is not; `GATED_STATE` names the folder that says how it is.

Its `state.json` holds `{"mode": …, "now": …, "seal": …}`: what the broker does, one of `MODES`; the clock of releases, in
seconds; and which key seals, one of `KEKS`. Each time that the broker is asked adds a byte to its `rounds`.
"""

import json
import os
import sys
from pathlib import Path

import trio

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.errors import NotReleased, ReleaseDenied, SealingUnavailable
from enclave_signer.protocol.blob import sealed_under
from enclave_signer.protocol.messages import PrivateKey, PublicKey
from enclave_signer.sealing import releases
from enclave_signer.sealing.base import UnsealedKey
from enclave_signer.sealing.local import KEY_BYTES, LocalSealer

STATE_VARIABLE = "GATED_STATE"
MODES = ("released", "held", "denied", "down", "hanging")
KEKS = ("gated", "free")
LIMIT_S = 0.5
FRESH_S, RETRY_S = 60, 10


class Free(LocalSealer):
    """Seals under the key that is always there."""

    def __init__(self) -> None:
        super().__init__(bytes(KEY_BYTES))


class Gated(LocalSealer):
    """A provider of both keys; a broker is asked before the gated one opens anything."""

    limit_s = LIMIT_S

    def __init__(self, folder: Path) -> None:
        super().__init__(bytes(range(KEY_BYTES)))
        self._folder = folder
        self._free = Free()

    @property
    def kek(self) -> str:
        """The name of the gated key."""
        return self._kek

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        if self._state("seal") == "free":
            return await self._free.seal(private_key, public_key)
        return await super().seal(private_key, public_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        if sealed_under(blob) != self.kek:
            return await self._free.unseal(blob)
        with (self._folder / "rounds").open("ab") as rounds:
            rounds.write(b".")
        match self._state("mode"):
            case "held":
                raise NotReleased("the broker waits for an approval")
            case "denied":
                raise ReleaseDenied("the broker's policy does not allow this image")
            case "down":
                raise SealingUnavailable("the broker cannot be reached")
            case "hanging":
                await trio.sleep_forever()
        return await super().unseal(blob)

    def now(self) -> float:
        """The clock of releases."""
        return float(self._state("now"))

    def _state(self, name: str) -> str:
        return str(json.loads((self._folder / "state.json").read_text())[name])


IMAGE = f"""
development = true
sealers = ["local"]
[local]
sealing_key = "/dev/null"
[[gated]]
key = "{Gated(Path()).kek}"
release = "attested"
fresh_s = {FRESH_S}
retry_s = {RETRY_S}
"""


def main() -> None:
    folder = Path(os.environ[STATE_VARIABLE])
    sealer = Gated(folder)
    config = parse_config(["--image", str(folder / "image.toml"), *sys.argv[1:]], os.environ)
    start_logging(config, sys.argv[1:])
    releases.now = sealer.now
    run(config, lambda: [sealer])


if __name__ == "__main__":
    main()
