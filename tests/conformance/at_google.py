"""Runs the suites of the ports at Google's own services, or at any emulator: `python -m tests.conformance.at_google`.

The environment says which; what it does not name is not run, is printed, and makes the exit code 1:

- `CLOUD_KMS_KEY`: `projects/…`, and `CLOUD_KMS_ACCESS_TOKEN`, as `gcloud auth print-access-token` prints it, of somebody
  who may encrypt and decrypt with that key. `CLOUD_KMS_ADDRESS`, `host:port` without TLS, takes the place of Google's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from enclave_signer.image import parse_image
from enclave_signer.sealing.gcp_client import google
from enclave_signer.sealing.gcp_kms import GcpKms
from tests.doubles.google.cloud import IMAGE, places
from tests.doubles.google.http_service import Answered
from tests.doubles.google.kms import KEY
from tests.doubles.google.launcher import LauncherDouble, token
from tests.doubles.google.sts import StsDouble

VARIABLES = ("CLOUD_KMS_KEY", "CLOUD_KMS_ACCESS_TOKEN")
#: What the case is called in the suite of sealers.
AT_GOOGLE = "gcp_kms at Google"
SUITE = Path(__file__).with_name("test_sealer.py")


def is_configured() -> bool:
    return all(os.environ.get(name) for name in VARIABLES)


@contextmanager
def cloud_kms(folder: Path) -> Iterator[GcpKms]:
    """Give a provider whose access token is the one that was given; launcher and STS are doubles."""
    key, access = (os.environ[name] for name in VARIABLES)
    given = {"access_token": access, "token_type": "Bearer", "expires_in": 3000}
    launcher, sts = LauncherDouble(folder), StsDouble()
    launcher.write(token())
    sts.fault = lambda: Answered(200, json.dumps(given).encode())
    config = parse_image(IMAGE.replace(KEY, key), "image.toml").gcp_kms
    assert config is not None
    with sts.serving() as address:
        where = places(os.environ.get("CLOUD_KMS_ADDRESS", ""), address, launcher.token_file, launcher.socket)
        if "CLOUD_KMS_ADDRESS" not in os.environ:
            where = replace(where, open_kms=google().open_kms)
        yield GcpKms(config, where)


def main() -> int:
    if not is_configured():
        print(f"not run: sealers at Cloud KMS, as {' or '.join(VARIABLES)} is not set")
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(SUITE), "-k", "at and Google"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
