"""`enclave-host` whose Firestore is the double at the address in `FIRESTORE_DOUBLE`."""

import os

from host_backend.cli.commands import main
from host_backend.google import connecting
from tests.doubles.google.clients import transport_to

if __name__ == "__main__":
    # Wherever the configuration says, and whoever asks.
    connecting.find_credentials = lambda place: None
    connecting.open_transport = lambda credentials: transport_to(os.environ["FIRESTORE_DOUBLE"])
    main()
