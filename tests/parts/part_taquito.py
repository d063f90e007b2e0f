"""Taquito's `RemoteSigner` at a running host: what it sends, and each of its failures."""

import json
from pathlib import Path

import pytest

from tests.doubles.known_keys import FOUR, KnownKey
from tests.parts.clients import TRANSFER, Sent, Site, check_paid_storage, check_sent, snippet

TZ1, TZ2, TZ3, TZ4 = FOUR


def send(site: Site, folder: Path, pkh: str, does: str = TRANSFER, host: str = "open") -> Sent:
    text = snippet("js").replace(TRANSFER, does)
    return site.send(["node"], folder / "program.mjs", text, pkh, host)


@pytest.mark.parametrize("key", [TZ1, TZ2, TZ3], ids=lambda key: key.name)
def test_it_sends_what_the_host_signed(site: Site, folder: Path, key: KnownKey) -> None:
    check_sent(send(site, folder, key.pkh), key)


def test_it_takes_no_signature_of_a_tz4_key(site: Site, folder: Path) -> None:
    sent = send(site, folder, TZ4.pkh)
    assert (sent.code, sent.operation) == (1, b"")
    assert 'InvalidSignatureError: Invalid signature "BLsig' in sent.said


def test_it_knows_no_tz5_key(site: Site, folder: Path) -> None:
    sent = send(site, folder, site.tz5)
    assert (sent.code, sent.operation) == (1, b"")
    assert f'InvalidKeyHashError: Invalid public key hash "{site.tz5}"' in sent.said


def test_it_signs_no_requests(site: Site, folder: Path) -> None:
    sent = send(site, folder, TZ1.pkh, host="signed")
    assert (sent.code, sent.operation) == (1, b"")
    assert "HttpResponseError: Http error response: (401)" in sent.said


def test_a_token_goes_into_its_headers(site: Site, folder: Path) -> None:
    refused = send(site, folder, TZ1.pkh, host="tokens")
    assert (refused.code, refused.operation) == (1, b"")
    headers = {"username": "alice", "Authorization": f"Bearer {site.token()}"}
    text = snippet("js").replace(':6732")', f':6732", {{ headers: {json.dumps(headers)} }})')
    check_sent(site.send(["node"], folder / "program.mjs", text, TZ1.pkh, "tokens"), TZ1)


def test_amounts_of_paid_storage_from_64_on_are_wrong(site: Site, folder: Path) -> None:
    check_paid_storage(lambda does: send(site, folder, TZ1.pkh, does), TZ1, "BadSigningDataError")
