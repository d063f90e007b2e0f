"""Runs the suites of the ports at Google's own services, or at any emulator: `python -m tests.conformance.at_google`.

The environment says which; what it does not name is not run, is printed, and makes the exit code 1:

- `CLOUD_KMS_KEY`: `projects/…`, and `CLOUD_KMS_ACCESS_TOKEN`, as `gcloud auth print-access-token` prints it, of somebody
  who may encrypt and decrypt with that key. `CLOUD_KMS_ADDRESS`, `host:port` without TLS, takes the place of Google's.
- `FIRESTORE_PROJECT`, and `FIRESTORE_CREDENTIALS`, a file, of somebody with roles/datastore.user there;
  `FIRESTORE_DATABASE` if it is not `(default)`. `FIRESTORE_ADDRESS`, as above, takes the place of Google's, without
  credentials. Every case has collections of its own, which stay.
- `STORAGE_BUCKET`, and `STORAGE_CREDENTIALS`, a file, of somebody with roles/storage.objectUser there. `STORAGE_ADDRESS`,
  `http://host:port`, takes the place of Google's, without credentials. Every case has a prefix of its own, which stays.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from enclave_signer.image import parse_image
from enclave_signer.sealing.gcp_client import google
from enclave_signer.sealing.gcp_kms import GcpKms
from host_backend.config.google_places import BucketPlace, FirestorePlace
from host_backend.google.buckets import open_bucket
from host_backend.google.connecting import connect
from host_backend.google.firestore import Firestore
from host_backend.google.storage import Bucket
from tests.doubles.google.buckets import client_at
from tests.doubles.google.clients import transport_to
from tests.doubles.google.cloud import IMAGE
from tests.doubles.google.http_service import Answered
from tests.doubles.google.kms import KEY
from tests.doubles.google.launcher import LauncherDouble, token
from tests.doubles.google.places import places
from tests.doubles.google.sts import StsDouble

VARIABLES = ("CLOUD_KMS_KEY", "CLOUD_KMS_ACCESS_TOKEN")
#: What the case is called in the suite of sealers, and in those of stores.
AT_GOOGLE = "gcp_kms at Google"
FIRESTORE_AT_GOOGLE = "firestore at Google"
STORAGE_AT_GOOGLE = "gcs at Google"
SUITE = Path(__file__).with_name("test_sealer.py")
KEY_STORES = str(Path(__file__).with_name("test_keystore.py"))
STORES = [KEY_STORES, str(Path(__file__).with_name("test_watermark_store.py"))]


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


def firestore_is_configured() -> bool:
    reached = os.environ.get("FIRESTORE_CREDENTIALS") or os.environ.get("FIRESTORE_ADDRESS")
    return bool(os.environ.get("FIRESTORE_PROJECT") and reached)


def new_place() -> FirestorePlace:
    """A collection that no one has used."""
    return FirestorePlace(
        os.environ["FIRESTORE_PROJECT"],
        os.environ.get("FIRESTORE_DATABASE", "(default)"),
        f"conformance-{secrets.token_hex(8)}",
        Path(os.environ.get("FIRESTORE_CREDENTIALS", "")),
    )


async def open_firestore(place: FirestorePlace) -> Firestore:
    address = os.environ.get("FIRESTORE_ADDRESS")
    return Firestore(place, transport_to(address)) if address else await connect(place)


def storage_is_configured() -> bool:
    reached = os.environ.get("STORAGE_CREDENTIALS") or os.environ.get("STORAGE_ADDRESS")
    return bool(os.environ.get("STORAGE_BUCKET") and reached)


def new_prefix() -> BucketPlace:
    """A prefix that no one has used."""
    prefix = f"conformance-{secrets.token_hex(8)}/"
    file = Path(os.environ.get("STORAGE_CREDENTIALS", ""))
    return BucketPlace(os.environ["STORAGE_BUCKET"], prefix, credentials_file=file)


async def open_storage(place: BucketPlace) -> Bucket:
    address = os.environ.get("STORAGE_ADDRESS")
    return Bucket(place, client_at(address)) if address else await open_bucket(place)


def main() -> int:
    suites: list[str] = []
    if is_configured():
        suites.append(str(SUITE))
    else:
        print(f"not run: sealers at Cloud KMS, as {' or '.join(VARIABLES)} is not set")
    if firestore_is_configured():
        suites += STORES
    else:
        print("not run: keys and marks in Firestore, as FIRESTORE_PROJECT, or how to reach it, is not set")
    if storage_is_configured():
        suites.append(KEY_STORES)
    else:
        print("not run: keys in Cloud Storage, as STORAGE_BUCKET, or how to reach it, is not set")
    if not suites:
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *dict.fromkeys(suites), "-k", "at and Google"]
    code = subprocess.run(command, check=False).returncode
    return code or int(not (is_configured() and firestore_is_configured() and storage_is_configured()))


if __name__ == "__main__":
    sys.exit(main())
