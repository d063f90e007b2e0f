"""The daemon as its image says, with a sealer that seals nothing."""

import os
import sys

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from tests.doubles.passthrough_enclave import PassthroughSealer


def main() -> None:
    config = parse_config(sys.argv[1:], os.environ)
    start_logging(config, sys.argv[1:])
    run(config, lambda: [PassthroughSealer()])


if __name__ == "__main__":
    main()
