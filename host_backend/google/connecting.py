"""A connection to Firestore with the credentials that the configuration names."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from host_backend.config.storage import FirestorePlace
from host_backend.errors import ConfigError, reason_of
from host_backend.google.firestore import MAX_ANSWER_BYTES, Firestore

if TYPE_CHECKING:
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

#: A file of credentials has some 2 KB.
MAX_CREDENTIALS_BYTES = 64 * 1024
#: Milliseconds after which a silent connection is asked whether it lives: the library's own choice.
_KEEPALIVE_MS = 30_000


async def connect(place: FirestorePlace) -> Firestore:
    """Return a database; nothing has been asked of it yet.

    Raises:
        ConfigError: The libraries are not installed, or there are no good credentials.
    """
    return Firestore(place, open_transport(await asyncio.to_thread(find_credentials, place)))


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
        import google.auth  # noqa: PLC0415 -- as above
        import google.cloud.firestore_v1  # noqa: PLC0415 -- as above
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 -- as above
    except ImportError as error:
        raise ConfigError(f"{place}: google-cloud-firestore is missing: install enclave-signer[host-gcp]") from error
    if place.credentials_data is not None:
        return _parsed(place, "application_credentials_data", place.credentials_data)
    if place.credentials_file is not None:
        where = f"application_credentials: {place.credentials_file}"
        try:
            with place.credentials_file.open("rb") as file:
                data = file.read(MAX_CREDENTIALS_BYTES)
        except OSError as error:
            raise ConfigError(f"{place}: {where} cannot be read: {reason_of(error)}") from error
        return _parsed(place, where, data)
    try:
        credentials, _ = google.auth.default()
    except GoogleAuthError as error:
        raise ConfigError(f"{place}: this machine has no Google identity: set application_credentials") from error
    return credentials


def _parsed(place: FirestorePlace, where: str, data: str | bytes) -> Any:
    """Return the credentials in a text of JSON; no error shows its content."""
    from google.auth import identity_pool  # noqa: PLC0415 -- as above
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 -- as above
    from google.oauth2 import credentials, service_account  # noqa: PLC0415 -- as above

    # Other kinds may run programs, or ask any server that they name.
    kinds: dict[str, Any] = {
        "service_account": service_account.Credentials.from_service_account_info,
        "authorized_user": credentials.Credentials.from_authorized_user_info,
        "external_account": identity_pool.Credentials.from_info,
    }
    problem = f"must be JSON of type {', '.join(kinds)}, whole"
    try:
        information = json.loads(data)
        return kinds[information["type"]](information)
    except (ValueError, KeyError, TypeError, RecursionError, GoogleAuthError):
        raise ConfigError(f"{place}: {where}: {problem}") from None
