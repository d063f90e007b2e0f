"""`enclave-host` with its keys in Cloud Storage: real processes, the double's socket, commands and `serve`."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_signer.protocol.blob import LEGACY, sealed_under
from host_backend.keystore.base import StoredKey
from host_backend.keystore.gcs import BucketKeyStore
from tests.doubles.google.blobs import sealed
from tests.doubles.google.bucket_site import BucketSite
from tests.doubles.google.buckets import bucket_at
from tests.doubles.google.cloud import running_google_cloud
from tests.doubles.google.kms import KEY
from tests.doubles.google.kms import Key as KmsKey
from tests.doubles.google.storage import StorageDouble, running_storage
from tests.doubles.google.sts import PROVIDER
from tests.doubles.host_process import VAULT
from tests.doubles.known_keys import CHAIN_ID, FOUR, attestation, transaction
from tests.doubles.processes import Enclave, running_gcp_enclave

ALICE, BOB, CAROL, _ = FOUR
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
RESEAL, UNDO = ("reseal", "--to", NEW), ("reseal", "--undo")


@pytest.fixture
def double() -> Iterator[StorageDouble]:
    with running_storage() as double:
        yield double


@pytest.fixture
def site(double: StorageDouble, local: Enclave, tmp_path: Path) -> BucketSite:
    site = BucketSite(double, tmp_path / "site", local)
    site.configure(ALICE.pkh, BOB.pkh, CAROL.pkh)
    return site


def stored(double: StorageDouble) -> tuple[StoredKey, ...]:
    async def load() -> tuple[StoredKey, ...]:
        store = BucketKeyStore(bucket_at(double.address))
        try:
            return await store.load()
        finally:
            await store.aclose()

    return asyncio.run(load())


def test_keys_are_shared_and_one_that_is_damaged_costs_no_other(site: BucketSite) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret)
    site.double.put("enclave-host/keys/a note", b"no key")
    site.double.put(f"enclave-host/keys/{BOB.pkh}", b"")
    listed = site.command("list")
    assert f"Public Key Hash:           {ALICE.pkh}" in listed
    assert f"Out of Service:            {BOB.pkh}" in listed
    assert "keys/a note: its name must have 1 to 64 letters and digits: restore or delete it" in listed
    assert "gs://blobs/enclave-host/: 1 key" in site.command("doctor", code=1)
    with site.running() as host:
        assert host.sign(ALICE.pkh, attestation(50)).status == 200
        refusal = host.sign(BOB.pkh, attestation(50))
        assert (refusal.status, b"it must have 1 to 65536 bytes" in refusal.body) == (502, True)
        # What another stores is seen when it is asked for.
        site.command("import", "--vault", VAULT, CAROL.secret)
        assert host.sign(CAROL.pkh, attestation(51)).status == 200
        host.stop()
        assert "Traceback" not in host.log


def test_a_backup_goes_back_into_an_empty_bucket(site: BucketSite) -> None:
    file = str(site.folder / "backup")
    site.command("import", "--vault", VAULT, ALICE.secret, BOB.secret)
    before = stored(site.double)
    site.command("backup", "create", file)
    site.double.objects.clear()
    other = BucketSite(site.double, site.folder.with_name("other"), site.enclave)
    other.configure(ALICE.pkh, BOB.pkh)
    restore = ("backup", "restore", file, "--above-level", "1", "--chain", CHAIN_ID, "--yes")
    # The two objects of the keys count once there is a third.
    seen = []
    for changes in (1, 2, 3):
        assert other.killed(changes, *restore)
        seen.append(len(stored(site.double)))
        site.double.objects.clear()
    assert seen == [0, 0, 2]
    other.command(*restore)
    assert stored(site.double) == before
    with other.running() as host:
        assert host.sign(BOB.pkh, attestation(100)).status == 200


def test_tz5_keys_are_in_the_same_place(site: BucketSite) -> None:
    site.configure(ALICE.pkh, more="experimental: {tz5: true}")
    (made,) = json.loads(site.command("generate", "-v", VAULT, "-t", "tz5", "--json"))["keys"]
    assert [*site.keys] == [made["public_key_hash"]]


def test_an_import_that_is_killed_leaves_whole_keys(site: BucketSite) -> None:
    words = ("import", "--vault", VAULT, ALICE.secret, BOB.secret)
    for changes in (1, 2):
        site.double.objects.clear()
        assert site.killed(changes, *words)
        assert [key.pkh for key in stored(site.double)] == [ALICE.pkh, BOB.pkh][:changes]
    site.command(*words)
    assert f"Public Key Hash:           {BOB.pkh}" in site.command("list")


@pytest.fixture
def resealing(double: StorageDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketSite]:
    """Four keys, in turns sealed by tee-signer's rules and by ours, and an image that may move them."""
    monkeypatch.setenv("RESEALED_TOGETHER", "2")
    image = tmp_path / "image.toml"
    image.write_text(IMAGE)
    with running_google_cloud(tmp_path) as cloud:
        cloud.kms.keys[NEW] = KmsKey()
        with running_gcp_enclave(image, cloud.environment(), "--retain", "0") as enclave:
            site = BucketSite(double, tmp_path / "site", enclave, KEY)
            site.configure(*(key.pkh for key in FOUR))
            for number, key in enumerate(FOUR):
                blob = sealed(cloud.kms, key, KEY, legacy=number % 2 == 0)
                double.put(f"enclave-host/keys/{key.pkh}", blob)
            yield site


def keks(site: BucketSite) -> list[str]:
    return [sealed_under(blob) for blob in site.keys.values()]


def test_resealing_there_and_back_killed_after_every_change(resealing: BucketSite) -> None:
    site, double = resealing, resealing.double
    before, begun = dict(site.keys), dict(double.objects)
    for words, aside in ((RESEAL, "reseal"), (UNDO, "undo")):
        begun = dict(double.objects)
        for changes in (1, 3):
            double.objects = dict(begun)
            assert site.killed(changes, *words)
            # Nothing is exchanged before all of it was kept.
            assert len(double.below(f"enclave-host/before-{aside}/")) == 1
            assert site.keys.keys() == before.keys()
        said = site.command(*words)
        assert keks(site) == [NEW] * 4 if words is RESEAL else site.keys == before
    assert "gs://blobs/enclave-host/before-reseal/" in site.command(*RESEAL)
    assert said
    assert keks(site) == [NEW] * 4
    assert sealed_under(before[ALICE.pkh]) == LEGACY
    site.command("watermark", "init")
    with site.running() as host:
        host.wait_for("the link to the enclave is ready")
        assert [host.sign(key.pkh, transaction(1)).status for key in FOUR] == [200] * 4
