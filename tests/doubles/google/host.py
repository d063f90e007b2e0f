"""`enclave-host` whose Firestore is the double: `python -m tests.doubles.google.host ADDRESS ARGUMENT...`."""

import sys
from typing import TYPE_CHECKING

from host_backend.cli.commands import main
from host_backend.config.storage import FirestorePlace
from host_backend.google import connecting
from tests.doubles.google.clients import transport_to

if TYPE_CHECKING:
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport


def redirect(address: str) -> None:
    """Have every connection to Firestore lead to the double."""

    def open_transport(_: FirestorePlace) -> "Transport":
        return transport_to(address)

    connecting.open_transport = open_transport


if __name__ == "__main__":
    redirect(sys.argv.pop(1))
    main()
