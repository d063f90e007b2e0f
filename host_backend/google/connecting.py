"""A connection to Firestore with the credentials that the configuration names."""

from typing import TYPE_CHECKING, Any

from host_backend.config.google_places import FirestorePlace
from host_backend.errors import ConfigError
from host_backend.google import credentials
from host_backend.google.firestore import MAX_ANSWER_BYTES, Firestore

if TYPE_CHECKING:
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

#: Milliseconds after which a silent connection is asked whether it lives: the library's own choice.
_KEEPALIVE_MS = 30_000


async def connect(place: FirestorePlace) -> Firestore:
    """Return a database; nothing has been asked of it yet.

    Raises:
        ConfigError: The libraries are not installed, or there are no good credentials.
        StoreUnavailable: It took too long to find credentials.
    """
    return Firestore(place, open_transport(await credentials.in_time(find_credentials, place)))


def open_transport(credentials: Any) -> "Transport":
    """Return what carries calls to the service; it belongs to the event loop that runs."""
    from google.cloud.firestore_v1.services.firestore.transports import (  # noqa: PLC0415 -- 220 ms, if configured only
        FirestoreGrpcAsyncIOTransport as Transport,
    )

    options = [("grpc.keepalive_time_ms", _KEEPALIVE_MS), ("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
    return Transport(channel=Transport.create_channel(credentials=credentials, options=options))


def find_credentials(place: FirestorePlace) -> Any:
    """Return the credentials of a place, Google's own object; see `connect`. Blocks while they are looked for."""
    try:
        import google.cloud.firestore_v1  # noqa: F401, PLC0415 -- as above
    except ImportError as error:
        raise ConfigError(f"{place}: google-cloud-firestore is missing: install enclave-signer[host-gcp]") from error
    return credentials.find_credentials(place)
