"""octez.js at a running host, with the signer that the page gives it: what it sends, and each of its failures."""

from pathlib import Path

import pytest

from tests.doubles.known_keys import FOUR, KnownKey
from tests.parts.clients import TRANSFER, Sent, Site, check_paid_storage, check_sent, snippet

TZ1 = FOUR[0]


def send(site: Site, folder: Path, pkh: str, does: str = TRANSFER, host: str = "open") -> Sent:
    text = snippet("js", 1).replace(TRANSFER, does)
    return site.send(["node"], folder / "program.mjs", text, pkh, host)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_it_sends_what_the_host_signed(site: Site, folder: Path, key: KnownKey) -> None:
    check_sent(send(site, folder, key.pkh), key)


def test_it_knows_no_tz5_key(site: Site, folder: Path) -> None:
    sent = send(site, folder, site.tz5)
    assert (sent.code, sent.operation) == (1, b"")
    assert "unsupported Base58 prefix" in sent.said
    assert site.tz5 in sent.said


def test_it_signs_no_requests(site: Site, folder: Path) -> None:
    sent = send(site, folder, TZ1.pkh, host="signed")
    assert (sent.code, sent.operation) == (1, b"")
    assert "Error: 401 " in sent.said


def test_amounts_of_paid_storage_from_64_on_are_wrong(site: Site, folder: Path) -> None:
    check_paid_storage(lambda does: send(site, folder, TZ1.pkh, does), TZ1, "Error: 400 ")
