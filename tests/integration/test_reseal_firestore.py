"""`enclave-host reseal` with keys in Firestore: the way there and back, and `kill -9` after every call of the service."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from enclave_signer.protocol.blob import LEGACY, sealed_under
from tests.doubles.google.blobs import sealed
from tests.doubles.google.cloud import running_google_cloud
from tests.doubles.google.firestore import running_firestore
from tests.doubles.google.kms import KEY, KmsDouble
from tests.doubles.google.kms import Key as KmsKey
from tests.doubles.google.site import IN_FIRESTORE, Site
from tests.doubles.google.sts import PROVIDER
from tests.doubles.host_process import VAULT
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import Enclave, running_gcp_enclave
from tests.doubles.wire import WireClient

NEW = f"{KEY}-new"
IMAGE = f"""
sealers = ["gcp_kms"]
[gcp_kms]
identity_providers = ["{PROVIDER}"]
seal_keys = ["{KEY}", "{NEW}"]
[[reseal]]
from = "legacy"
to = "{NEW}"
[[reseal]]
from = "{KEY}"
to = "{NEW}"
"""
KEYS, COPIES, UNDONE = "encrypted_keys", "encrypted_keys_before_reseal", "encrypted_keys_before_undo"
KEKS = (LEGACY, KEY, LEGACY, KEY)
#: Keys of one batch: two batches, and two of the copy.
TOGETHER = 2
RESEAL, UNDO = ("reseal", "--to", NEW), ("reseal", "--undo")

#: Hashes and blobs.
Blobs = dict[str, bytes]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Four keys in Firestore, in turns sealed by tee-signer's rules and by ours, and an image that may move them."""
    monkeypatch.setenv("RESEALED_TOGETHER", str(TOGETHER))
    image = tmp_path / "image.toml"
    image.write_text(IMAGE)
    with running_google_cloud(tmp_path) as cloud, running_firestore() as double:
        cloud.kms.keys[NEW] = KmsKey()
        with running_gcp_enclave(image, cloud.environment(), "--retain", "0") as enclave:
            site = Site(double, tmp_path / "site", enclave, KEY)
            site.configure(IN_FIRESTORE, *(key.pkh for key in FOUR))
            store_keys(site, cloud.kms)
            yield site


def store_keys(site: Site, kms: KmsDouble) -> None:
    for key, kek in zip(FOUR, KEKS, strict=True):
        blob = sealed(kms, key, KEY if kek == LEGACY else kek, legacy=kek == LEGACY)
        site.double.write(f"{KEYS}/{key.pkh}", pkh=key.pkh, value=blob)


def documents(site: Site, collection: str) -> list[tuple[str, bytes]]:
    """Return the hash and blob of every document of a collection that has some; each must be whole."""
    found = [stored.fields for path, stored in site.double.names().items() if path.startswith(f"{collection}/")]
    assert all(("value" in fields) == ("pkh" in fields) != ("whole" in fields) for fields in found)
    return [(fields["pkh"].string_value, fields["value"].bytes_value) for fields in found if "value" in fields]


def stored(site: Site) -> Blobs:
    return dict(documents(site, KEYS))


def keks(site: Site) -> list[str]:
    return [sealed_under(blob) for blob in stored(site).values()]


def copies(site: Site, collection: str = COPIES) -> list[str]:
    """Return the names of all copies in a collection that were finished."""
    names = [path for path, each in site.double.names().items() if "whole" in each.fields]
    return [name.removeprefix(f"{collection}/") for name in names if name.startswith(f"{collection}/")]


def check_that_they_open(site: Site, blobs: set[tuple[str, bytes]]) -> None:
    known = {key.pkh: key.public_key_bytes for key in FOUR}
    assert isinstance(site.enclave, Enclave)
    with WireClient(site.enclave.address, initialize=False) as client:
        assert client.call({"Initialize": {"encryption_key_path": KEY}}) == {"Ok": None}
        for pkh, blob in blobs:
            opened = client.call({"PublicKeyFrom": blob})["Ok"]
            assert isinstance(opened, dict)
            assert [*opened.values()] == [known[pkh]]


def test_there_and_back(site: Site) -> None:
    before = stored(site)
    assert site.command(*RESEAL, "--dry-run").splitlines() == [
        f"{VAULT}: 2 keys would be resealed, from legacy to {NEW}",
        f"{VAULT}: 2 keys would be resealed, from {KEY} to {NEW}",
    ]
    assert (stored(site), copies(site), site.double.calls["Commit"]) == (before, [], 0)
    said = site.command(*RESEAL).splitlines()
    (copy,) = copies(site)
    assert said == [
        f"{VAULT}: 2 keys resealed, from legacy to {NEW}",
        f"{VAULT}: 2 keys resealed, from {KEY} to {NEW}",
        f"{VAULT}: the old blobs are in {COPIES}, {copy}: they are needed until every key has signed",
    ]
    assert dict(documents(site, COPIES)) == before
    assert keks(site) == [NEW] * 4
    site.command("watermark", "init")
    with site.running() as host:
        host.wait_for("the link to the enclave is ready")
        assert [host.sign(key.pkh, transaction(1)).status for key in FOUR] == [200] * 4

    assert site.command(*UNDO, "--dry-run").splitlines() == [
        f"{VAULT}: 2 keys would be put back, from {NEW} to legacy",
        f"{VAULT}: 2 keys would be put back, from {NEW} to {KEY}",
    ]
    assert keks(site) == [NEW] * 4
    site.command(*UNDO)
    assert stored(site) == before
    assert copies(site) == [copy]
    assert site.command(*UNDO).splitlines()[0] == f"{VAULT}: nothing put back"


def test_killed_after_every_call(site: Site) -> None:
    """Every key opens before, between and after; the next run finishes what one has left; the copy is what was there."""
    before, begun = stored(site), dict(site.double.documents.by_name)
    seen: set[tuple[str, bytes]] = set()
    steps = []
    for words in (RESEAL, UNDO):
        starting = stored(site)
        for calls in count(1):
            site.double.documents.by_name = dict(begun)
            killed = site.killed(calls, *words)
            left = stored(site)
            assert left.keys() == before.keys()
            seen |= {*documents(site, KEYS), *documents(site, COPIES), *documents(site, UNDONE)}
            if left != starting:
                # Nothing is exchanged before all of it was kept.
                assert len(copies(site, COPIES if words is RESEAL else UNDONE)) == 1
            site.command(*words)
            assert keks(site) == [NEW] * 4 if words is RESEAL else stored(site) == before
            assert len(copies(site)) == 1
            assert len(copies(site, UNDONE)) == (words is UNDO)
            assert before.items() <= {*documents(site, COPIES)}
            if not killed:
                break
        steps.append(calls - 1)
        begun = dict(site.double.documents.by_name)
    print(f"\nkilled after {steps[0]} and after {steps[1]} calls, {len(seen)} blobs seen")
    assert min(steps) > 2 * len(FOUR) // TOGETHER
    check_that_they_open(site, seen)
