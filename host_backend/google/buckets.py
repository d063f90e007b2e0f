"""A bucket of Cloud Storage, with the credentials that the configuration names."""

import asyncio
from typing import Any

from host_backend.config.storage import BucketPlace
from host_backend.errors import ConfigError
from host_backend.google import credentials
from host_backend.google.storage import Bucket

#: Named, or the environment (`STORAGE_EMULATOR_HOST`) could lead elsewhere.
ENDPOINT = "https://storage.googleapis.com"


async def open_bucket(place: BucketPlace) -> Bucket:
    """Return a bucket; nothing has been asked of it yet.

    Raises:
        ConfigError: The library is not installed, or there are no good credentials.
    """
    return Bucket(place, await asyncio.to_thread(_client, place))


def _client(place: BucketPlace) -> Any:
    try:
        from google.cloud.storage import Client  # noqa: PLC0415 -- 250 ms, if configured only
    except ImportError as error:
        raise ConfigError(f"{place}: google-cloud-storage is missing: install enclave-signer[host-gcs]") from error
    # The project of objects is their bucket's: none is needed here.
    return Client(
        project=None, credentials=credentials.find_credentials(place), client_options={"api_endpoint": ENDPOINT}
    )
