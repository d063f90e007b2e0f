"""The daemon with a sealer that seals nothing, as tee-signer's `confidential_signer_mock`: for tests only.

Blobs are the CBOR of the private key in clear, so recorded blobs open.
"""

import math
import os
import sys

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.errors import BlobCorrupt
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadMessage
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey


class PassthroughSealer:
    """Both a sealer and the provider of it."""

    name = "passthrough"
    takes_legacy = True
    limit_s = None
    shared_s = math.inf

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        del credentials
        return self

    async def aclose(self) -> None:
        pass

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        del public_key
        return codec.encode_private_key(private_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        try:
            return UnsealedKey(codec.decode_private_key(blob), None)
        except BadMessage as error:
            raise BlobCorrupt(f"blob corrupt: {error}") from None


def main() -> None:
    config = parse_config(["--sealing-key", os.devnull, *sys.argv[1:]], os.environ)
    start_logging(config, sys.argv[1:])
    run(config, lambda: [PassthroughSealer()])


if __name__ == "__main__":
    main()
