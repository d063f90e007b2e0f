"""`enclave-host` whose Cloud Storage is the double at the address in `STORAGE_DOUBLE`.

It reseals as many keys together as `RESEALED_TOGETHER` says, if that is set, so that a few keys are several batches.
"""

import os
from unittest.mock import patch

from google.auth.credentials import AnonymousCredentials

from host_backend.cli.commands import main
from host_backend.google import buckets, credentials

if __name__ == "__main__":
    buckets.ENDPOINT = os.environ["STORAGE_DOUBLE"]
    credentials.find_credentials = lambda place: AnonymousCredentials()  # type: ignore[no-untyped-call]
    if batch := os.environ.get("RESEALED_TOGETHER"):
        patch("host_backend.vault.resealing.BATCH", int(batch)).start()
    main()
