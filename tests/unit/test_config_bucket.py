"""A vault whose keys are in Cloud Storage: its configuration, and the client that it gets."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from host_backend.config import load_config
from host_backend.config.google_places import BucketPlace
from host_backend.config.key_storage import KeysInBucket, KeyStorage
from host_backend.errors import ConfigError
from host_backend.google.buckets import open_bucket

BEGIN = "vaults.v.config.storage.config"


def configured(folder: Path, *storages: str, more: str = "") -> list[KeyStorage]:
    lines = ["vaults:"]
    for name, storage in zip("vw", storages, strict=False):
        lines.append(f"  {name}: {{driver: confidentialspace, config: {{host: h, storage: {storage}}}}}")
    file = folder / "signatory.yaml"
    file.write_text("\n".join([*lines, f"base_dir: {folder}", more]))
    return [vault.keys for vault in load_config(file).vaults.values()]


def bucket(fields: str) -> str:
    return f"{{driver: gcs, config: {{{fields}}}}}"


def test_keys_in_a_bucket(tmp_path: Path) -> None:
    (found,) = configured(tmp_path, bucket("bucket: tz-blobs"))
    assert found == KeysInBucket(BucketPlace("tz-blobs", "enclave-host/"))
    assert found.describe() == "sealed keys in gs://tz-blobs/enclave-host/"
    (found,) = configured(tmp_path, bucket("bucket: b-1, prefix: a/b.c/, project: p-1, application_credentials: /f"))
    assert found == KeysInBucket(BucketPlace("b-1", "a/b.c/", "p-1", Path("/f")))
    (found,) = configured(tmp_path, bucket("bucket: b-1, application_credentials_data: '{\"secret\": 1}'"))
    assert isinstance(found, KeysInBucket)
    assert found.place.credentials_data == '{"secret": 1}'
    assert "secret" not in f"{found!r} {found.describe()}"


def test_keys_that_signatory_does_not_know_are_in_the_same_place(tmp_path: Path) -> None:
    (found,) = configured(tmp_path, bucket("bucket: tz-blobs"), more="experimental: {tz5: true}")
    assert found == KeysInBucket(BucketPlace("tz-blobs", "enclave-host/"))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "must name the `bucket` of Cloud Storage"),
        ("prefix: p", "must name the `bucket` of Cloud Storage"),
        ("bucket: B", "bucket: must be the name of a bucket"),
        ("bucket: b/c", "bucket: must be the name of a bucket"),
        ("bucket: gs://bb", "bucket: must be the name of a bucket"),
        ("bucket: bbb, project: p/q", "project: must be the id of a project"),
        ("bucket: bbb, bukcet: p", "unknown field, did you mean bucket?"),
        *(
            (f"bucket: bbb, prefix: '{prefix}'", "prefix: must be words of letters and digits between slashes")
            for prefix in ("/", "/a", "a//b", "..", "a/../b", "a/.", "a b", "é", "a" * 201)
        ),
    ],
)
def test_what_is_no_place_is_named(tmp_path: Path, fields: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, bucket(fields))
    assert BEGIN in str(caught.value) or "storage:" in str(caught.value)
    assert str(caught.value).endswith(problem)


def test_two_vaults_do_not_share_a_prefix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shares gs://bbb/a/ with vault v: give each its own `storage`"):
        configured(tmp_path, bucket("bucket: bbb, prefix: a"), bucket("bucket: bbb, prefix: a/"))


def test_calls_lead_to_google_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    account = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    for name in ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def run() -> None:
        opened = await open_bucket(BucketPlace("b", "p/", credentials_data=json.dumps(account)))
        assert opened._client._connection.API_BASE_URL == "https://storage.googleapis.com"
        assert opened._client._credentials.refresh_token == "x"
        await opened.aclose()

    asyncio.run(run())


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(
        ConfigError, match=r"gs://b/p/: google-cloud-storage is missing: install enclave-signer\[host-gcs\]"
    ):
        asyncio.run(open_bucket(BucketPlace("b", "p/")))
