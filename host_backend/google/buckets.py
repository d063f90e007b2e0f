"""A bucket of Cloud Storage, with the credentials that the configuration names."""

from typing import Any

from host_backend.config.google_places import BucketPlace
from host_backend.errors import ConfigError
from host_backend.google import credentials
from host_backend.google.storage import Bucket

#: Named, or the environment (`STORAGE_EMULATOR_HOST`) could lead elsewhere.
ENDPOINT = "https://storage.googleapis.com"


async def open_bucket(place: BucketPlace) -> Bucket:
    """Return a bucket; nothing has been asked of it yet.

    Raises:
        ConfigError: The library is not installed, or there are no good credentials.
        StoreUnavailable: It took too long to find credentials.
    """
    return Bucket(place, await credentials.in_time(_client, place))


def _client(place: BucketPlace) -> Any:
    try:
        import google.cloud.storage  # noqa: F401, PLC0415 -- 250 ms, if configured only
    except ImportError as error:
        raise ConfigError(f"{place}: google-cloud-storage is missing: install enclave-signer[host-gcs]") from error
    return client_at(ENDPOINT, credentials.find_credentials(place))


def client_at(endpoint: str, found: Any) -> Any:
    """Return what makes calls to an address, with Google's own credentials, each within the limits of `call_limits`."""
    from google.auth.credentials import with_scopes_if_required  # noqa: PLC0415 -- as above
    from google.auth.transport.requests import AuthorizedSession, Request  # noqa: PLC0415 -- as above
    from google.cloud.storage import Client  # noqa: PLC0415 -- as above
    from requests import Session  # noqa: PLC0415 -- as above

    from host_backend.google.limited_http import limit  # noqa: PLC0415 -- as above

    scoped = with_scopes_if_required(found, Client.SCOPE)  # type: ignore[no-untyped-call]
    for_tokens = Session()
    session = AuthorizedSession(scoped, auth_request=Request(for_tokens))  # type: ignore[no-untyped-call]
    limit(for_tokens)
    limit(session)
    options = {"api_endpoint": endpoint}
    # The project of objects is their bucket's: none is needed here.
    return Client(project=None, credentials=scoped, client_options=options, _http=session)
