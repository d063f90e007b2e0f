"""With which credentials Firestore is asked, and that no text says what they are."""

import asyncio
import json
import threading
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from host_backend.config.google_places import FirestorePlace
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.google import credentials
from host_backend.google.connecting import connect, find_credentials

SECRET = "c2VjcmV0IGNyZWRlbnRpYWxz"


@pytest.fixture(scope="module")
def account() -> str:
    """A service account that no one has."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "host@p.iam.gserviceaccount.com",
            "private_key": key.decode(),
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def test_credentials_come_from_the_configuration_before_the_file(account: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("no credentials")
    place = FirestorePlace("p", "d", "c", tmp_path / "other.json", account)
    assert find_credentials(place).service_account_email == "host@p.iam.gserviceaccount.com"
    (tmp_path / "account.json").write_text(account)
    place = FirestorePlace("p", "d", "c", tmp_path / "account.json")
    assert find_credentials(place).service_account_email == "host@p.iam.gserviceaccount.com"


def test_a_connection_leads_to_google_whatever_the_environment_says(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")

    async def run() -> None:
        async with await connect(FirestorePlace("p", "(default)", "c", credentials_data=account)) as database:
            channel = database._transport.grpc_channel
            assert channel._channel.target.decode() == "firestore.googleapis.com"

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        f'{{"type": "service_account", "private_key": "{SECRET}", "client_email": "x", "token_uri": "x"}}',
        f'{{"type": "service_account", "private_key": "{SECRET}"}}',
        f'{{"type": "{SECRET}"}}',
        f'{{"{SECRET}": ',
        f'["{SECRET}"]',
        f'"{SECRET}"',
        SECRET,
    ],
)
def test_what_is_wrong_with_credentials_is_told_without_them(data: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(data)
    for place, where in (
        (FirestorePlace("p", "d", "c", credentials_data=data), "application_credentials_data"),
        (FirestorePlace("p", "d", "c", file), f"application_credentials: {file}"),
    ):
        with pytest.raises(ConfigError) as caught:
            find_credentials(place)
        assert str(caught.value) == (
            f"Firestore p/d/c: {where}: must be JSON of type service_account, authorized_user, external_account, whole"
        )
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"application_credentials: .*/none cannot be read: No such file"):
        find_credentials(FirestorePlace("p", "d", "c", tmp_path / "none"))


def test_a_search_without_end_ends_for_its_caller_and_at_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "FIND_S", 0.05)
    place, ended = FirestorePlace("p", "d", "c"), threading.Event()
    try:
        # The end of a loop waits for its own threads.
        with pytest.raises(StoreUnavailable, match=r"no Google identity was found within 0\.05 s"):
            asyncio.run(credentials.in_time(lambda _: ended.wait(), place))
        (searching,) = (each for each in threading.enumerate() if each.name == "google credentials")
        assert searching.daemon
    finally:
        ended.set()
    searching.join()
    assert asyncio.run(credentials.in_time(lambda found: found, place)) is place
