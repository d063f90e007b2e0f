"""The credentials that a configuration names for a Google service; no error shows their content."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from host_backend.config.google_places import BucketPlace, FirestorePlace
from host_backend.errors import ConfigError, StoreUnavailable, reason_of

#: A file of credentials has some 2 KB.
MAX_CREDENTIALS_BYTES = 64 * 1024
#: Seconds until credentials are found: that a machine has no metadata server is known after some ten.
FIND_S = 30.0

Place = TypeVar("Place", FirestorePlace, BucketPlace)
Found = TypeVar("Found")


async def in_time(find: Callable[[Place], Found], place: Place) -> Found:
    """Return what is found with the credentials of a place.

    The library limits the time between two bytes of a metadata server, and not their number. So this is done in a thread
    that no stop of the host waits for.

    Args:
        find: Blocks while it looks.
        place: Its argument.

    Raises:
        StoreUnavailable: It took too long.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Found] = loop.create_future()

    def look() -> None:
        try:
            settle = partial(found.set_result, find(place))
        except Exception as error:  # noqa: BLE001 -- raised to the caller
            settle = partial(found.set_exception, error)
        # The loop may have ended, or the caller have left.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if found.done() else settle())

    threading.Thread(target=look, name="google credentials", daemon=True).start()
    try:
        async with asyncio.timeout(FIND_S):
            return await found
    except TimeoutError:
        raise StoreUnavailable(
            f"{place}: no Google identity was found within {FIND_S:g} s: see whether this machine's metadata server answers, "
            "or set application_credentials"
        ) from None


def find_credentials(place: FirestorePlace | BucketPlace) -> Any:
    """Return the credentials of a place, Google's own object. Blocks while they are looked for.

    Raises:
        ConfigError: There are no good ones.
    """
    import google.auth  # noqa: PLC0415 -- 100 ms, if configured only
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 -- as above

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


def _parsed(place: FirestorePlace | BucketPlace, where: str, data: str | bytes) -> Any:
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
