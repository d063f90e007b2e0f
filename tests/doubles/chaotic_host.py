"""`enclave-host` whose disk and clock do as `CHAOS_STATE` says; its Firestore is the double at `FIRESTORE_DOUBLE`, if set."""

import os

from tests.doubles.chaotic import shift_clock, spoil_disk

if __name__ == "__main__":
    shift_clock()
    from host_backend.cli.commands import main
    from host_backend.google import connecting

    if "FIRESTORE_DOUBLE" in os.environ:
        from tests.doubles.google.clients import transport_to

        connecting.find_credentials = lambda place: None
        connecting.open_transport = lambda credentials: transport_to(os.environ["FIRESTORE_DOUBLE"])
    spoil_disk()
    main()
