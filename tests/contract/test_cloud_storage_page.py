"""The page about keys in Cloud Storage: its configuration is read, and its names, limits and texts are ours."""

import inspect
from pathlib import Path

from host_backend.config import load_config
from host_backend.config.google_places import BucketPlace
from host_backend.config.key_storage import KeysInBucket
from host_backend.google import storage
from host_backend.keystore import gcs, gcs_objects
from host_backend.keystore.base import Before, StoredKey
from tests.contract.markdown import DOCS, blocks, rows

PAGE = DOCS / "cloud-storage.md"


def test_its_configuration_is_that_of_its_commands(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    file = tmp_path / "signatory.yaml"
    file.write_text(f"base_dir: {tmp_path}\n{text}")
    (vault,) = load_config(file).vaults.values()
    assert vault.keys == KeysInBucket(BucketPlace("tz-blobs", "enclave-host/"))
    commands = "".join(blocks(PAGE, "bash"))
    assert "gcloud storage buckets create gs://tz-blobs" in commands
    assert f"{vault.keys.place}{gcs_objects.key_name('HASH')}#GENERATION" in commands


def test_its_names_and_limits_are_ours() -> None:
    text = PAGE.read_text()
    for name in (
        gcs_objects.key_name("HASH"),
        f"{gcs_objects.TOGETHER}…",
        gcs_objects.replaced_name(StoredKey("", b"")).partition("/")[0] + "/…",
        *(f"{gcs_objects.copies_below(before)}UTC" for before in Before),
        f"{storage.MAX_OBJECTS:,} objects and {gcs.MAX_LOADED_BYTES // 2**20} MiB",
        f"{storage.CALL_S:.0f} s of silence",
        f"every {gcs.LOOK_S:.0f} s",
    ):
        assert name in text, name
    assert gcs.TRIES == 8


def test_its_texts_and_its_role_are_ours() -> None:
    ours = "".join(map(inspect.getsource, (storage, gcs)))
    said = [row[0].strip("`") for row in rows(PAGE) if row[0].startswith("`… ")]
    assert len(said) == 4
    for text in said:
        for part in filter(None, (part.strip(" :") for part in text.split("…"))):
            # The service says itself that there is no such bucket; see the unit tests.
            assert part in ours or part == "bucket does not exist", part
    assert "--role=roles/storage.objectUser" in PAGE.read_text()
