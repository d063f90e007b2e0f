"""`enclave-host` whose Firestore is the double at the address in `FIRESTORE_DOUBLE`.

It reseals as many keys together as `RESEALED_TOGETHER` says, if that is set, so that a few keys are several batches.
"""

import os
from unittest.mock import patch

from host_backend.cli.commands import main
from host_backend.google import connecting
from tests.doubles.google.clients import transport_to

if __name__ == "__main__":
    # Wherever the configuration says, for every caller.
    connecting.find_credentials = lambda place: None
    connecting.open_transport = lambda credentials: transport_to(os.environ["FIRESTORE_DOUBLE"])
    if batch := os.environ.get("RESEALED_TOGETHER"):
        for name in ("vault.resealing.BATCH", "keystore.firestore._BATCH"):
            patch(f"host_backend.{name}", int(batch)).start()
    main()
