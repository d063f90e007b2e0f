"""The daemon with sealers by an image's configuration, in which Google and the launcher are doubles: `GCP_DOUBLES`."""

import json
import os
import sys
from pathlib import Path

from enclave_signer.__main__ import run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.sealing.gcp_kms import GcpKms, GcpTimes
from tests.doubles.google.places import places


def main() -> None:
    config = parse_config(sys.argv[1:], os.environ)
    start_logging(config, sys.argv[1:])
    assert config.image is not None
    assert config.image.gcp_kms is not None
    doubles = json.loads(os.environ["GCP_DOUBLES"])
    kms, sts, token_file, socket = doubles["places"]
    where = places(kms, tuple(sts), Path(token_file), Path(socket))
    sealers = [GcpKms(config.image.gcp_kms, where, GcpTimes(**doubles["times"]))]
    run(config, lambda: sealers)


if __name__ == "__main__":
    main()
