"""The daemon with the sealers of an image's configuration, to which Google and the launcher are doubles: `GCP_DOUBLES`."""

import json
import os
import sys
from pathlib import Path

from enclave_signer.__main__ import _open_named, run, start_logging
from enclave_signer.config import parse_config
from enclave_signer.image import Image
from enclave_signer.sealing.gcp_kms import GcpKms, GcpTimes
from tests.doubles.google.places import places


def doubled_kms(image: Image) -> GcpKms:
    """Return the sealer of Cloud KMS that is led to the doubles."""
    assert image.gcp_kms is not None
    doubles = json.loads(os.environ["GCP_DOUBLES"])
    kms, sts, token_file, socket = doubles["places"]
    where = places(kms, tuple(sts), Path(token_file), Path(socket))
    return GcpKms(image.gcp_kms, where, GcpTimes(**doubles["times"]))


def main() -> None:
    config = parse_config(sys.argv[1:], os.environ)
    start_logging(config, sys.argv[1:])
    image = config.image
    assert image is not None
    gcp_kms = doubled_kms(image)
    sealers = [gcp_kms if name == gcp_kms.name else _open_named(name, image) for name in image.sealers]
    run(config, lambda: sealers)


if __name__ == "__main__":
    main()
