"""`FileKeyStore`: Signatory's file, byte for byte, and every way in which a file can be wrong."""

import asyncio
import base64
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_backend.durable import locked
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keystore.base import MAX_BLOB_BYTES, Before, StoredKey
from host_backend.keystore.file import MAX_FILE_BYTES, FileKeyStore
from tests.doubles.small_disk import files_up_to

#: As Signatory writes it.
SIGNATORY_FILE = b"""[
    {
        "public_key_hash": "tz1LggX2HUdvJ1tF4Fvv8fjsrzLeW4Jr9t2Q",
        "encrypted_private_key": "z+DEj+dTDTq6T1s6mzMHMlFpGoP7waskjbMcQuwrlwM="
    }
]"""
STORED = StoredKey(
    "tz1LggX2HUdvJ1tF4Fvv8fjsrzLeW4Jr9t2Q",
    base64.b64decode("z+DEj+dTDTq6T1s6mzMHMlFpGoP7waskjbMcQuwrlwM="),
)
OTHER = StoredKey("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", b"blob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def load(path: Path) -> tuple[StoredKey, ...]:
    return asyncio.run(FileKeyStore(path).load())


def add(path: Path, key: StoredKey) -> frozenset[str]:
    return asyncio.run(FileKeyStore(path).add([key]))


def replace(path: Path, key: StoredKey, *expected: str) -> None:
    blobs = [base64.b64decode(blob) for blob in expected] or [STORED.blob]
    asyncio.run(FileKeyStore(path).replace(key, blobs))


def entries(path: Path) -> list[dict[str, object]]:
    content: list[dict[str, object]] = json.loads(path.read_bytes())
    return content


def test_reads_and_writes_signatorys_bytes(path: Path) -> None:
    assert add(path, STORED)
    assert path.read_bytes() == SIGNATORY_FILE
    assert load(path) == (STORED,)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]"])
def test_empty_file_means_no_keys(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert load(path) == ()
    assert add(path, STORED)
    assert path.read_bytes() == SIGNATORY_FILE


def test_loading_makes_nothing(path: Path) -> None:
    assert load(path.parent / "folder" / "keys.json") == ()
    assert list(path.parent.iterdir()) == []


def test_adding_makes_private_folder_and_file(path: Path) -> None:
    path = path.parent / "made" / "keys.json"
    assert add(path, STORED)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_unknown_members_repeated_keys_and_order_survive_adding(path: Path) -> None:
    entry = json.loads(SIGNATORY_FILE)[0]
    before = [
        {**entry, "note": {"ключ": [1, 2.5, None, True, "\ud800"]}},
        {"encrypted_private_key": "AAAA", "public_key_hash": "tz3"},
        entry,
        {**entry, "encrypted_private_key": "AAAA"},
    ]
    path.write_text(json.dumps(before))
    assert load(path) == (STORED, StoredKey("tz3", bytes(3)), STORED, StoredKey(STORED.pkh, bytes(3)))
    assert not add(path, STORED)
    assert path.read_text() == json.dumps(before)
    assert add(path, OTHER)
    after = entries(path)
    assert after[:-1] == before
    assert [list(entry) for entry in after[:-1]] == [list(entry) for entry in before]
    assert after[-1] == {"public_key_hash": OTHER.pkh, "encrypted_private_key": "YmxvYg=="}


def test_replaced_entries_are_kept_aside_whole(path: Path) -> None:
    entry = json.loads(SIGNATORY_FILE)[0]
    old = [{**entry, "note": 1}, {**entry, "encrypted_private_key": "AAAA"}]
    other = {"public_key_hash": "tz3", "encrypted_private_key": "AAAA", "note": 2}
    path.write_text(json.dumps([other, old[0], other, old[1]]))
    replace(path, StoredKey(STORED.pkh, b"blob"), *(str(each["encrypted_private_key"]) for each in old))
    new = {"public_key_hash": STORED.pkh, "encrypted_private_key": "YmxvYg=="}
    assert entries(path) == [other, new, other]
    aside = path.with_name(path.name + ".replaced")
    assert entries(aside) == old
    # The next one joins them.
    replace(path, StoredKey(STORED.pkh, b"blob"), "YmxvYg==")
    assert entries(aside) == [*old, new]
    assert aside.stat().st_mode & 0o777 == 0o600


def keep(path: Path, utc: str) -> Path:
    asyncio.run(FileKeyStore(path).keep(utc, Before.RESEAL))
    return path.with_name(f"{path.name}.before-reseal-{utc}")


def test_all_entries_are_kept_whole(path: Path) -> None:
    (entry,) = json.loads(SIGNATORY_FILE)
    old = [{**entry, "note": 1}, entry]
    path.write_text(json.dumps(old))
    path.chmod(0o644)
    copy = keep(path, "20260131T235959Z")
    assert entries(copy) == old
    assert copy.stat().st_mode & 0o777 == 0o600
    kept = asyncio.run(FileKeyStore(path).kept(Before.RESEAL))
    assert kept is not None
    assert (kept.where, kept.keys) == (str(copy), (STORED, STORED))


def test_other_files_are_no_copies(path: Path) -> None:
    add(path, STORED)
    for name in ("keys.json.before-reseal-", "keys.json.before-reseal-20260131T235959Z.bak", "x.before-reseal-1Z"):
        path.with_name(name).write_text("{")
    path.with_name(".keys.json.before-reseal-20260131T235959Z.x.tmp").write_text("{")
    assert asyncio.run(FileKeyStore(path).kept(Before.RESEAL)) is None


def test_a_copy_that_somebody_spoilt_is_named(path: Path) -> None:
    add(path, STORED)
    copy = keep(path, "20260131T235959Z")
    copy.write_text("{")
    with pytest.raises(ConfigError, match=f"key file {copy} is not JSON"):
        asyncio.run(FileKeyStore(path).kept(Before.RESEAL))


def test_exchanged_entries_keep_what_else_is_in_them(path: Path) -> None:
    (entry,) = json.loads(SIGNATORY_FILE)
    other = {"public_key_hash": STORED.pkh, "encrypted_private_key": "AAAA"}
    path.write_text(json.dumps([other, {**entry, "note": 1}, entry]))
    exchanged = asyncio.run(FileKeyStore(path).exchange({STORED: b"blob"}))
    assert exchanged == {STORED}
    new = {**entry, "encrypted_private_key": "YmxvYg=="}
    assert entries(path) == [other, {**new, "note": 1}, new]


def test_nothing_is_replaced_that_could_not_be_kept_aside(path: Path) -> None:
    add(path, STORED)
    before = path.read_bytes()
    aside = path.with_name(path.name + ".replaced")
    aside.write_text("{")
    with pytest.raises(ConfigError, match=f"key file {aside} is not JSON"):
        replace(path, StoredKey(STORED.pkh, b"blob"))
    assert path.read_bytes() == before


def test_key_found_stored_is_durable_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that stored it may have died between renaming the file and the fsync of the folder."""
    add(path, STORED)
    folders: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: folders.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    assert not add(path, STORED)
    assert folders == [True]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nonsense", "is not JSON"),
        (SIGNATORY_FILE[:-1], "is not JSON"),
        (SIGNATORY_FILE + b"]", "is not JSON"),
        (b"\xff\xfe[\x00]\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[" + b"9" * 5000 + b"]", "is not JSON"),
        (b"[NaN]", "could not be written back"),
        (b"[1e999]", "could not be written back"),
        (b'[{"a": 1, "a": 1}]', "names one member twice"),
        (b"null", "is not a JSON array"),
        (b"{}", "is not a JSON array"),
        (b'"text"', "is not a JSON array"),
    ],
)
def test_malformed_file_is_refused_and_left_alone(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load(path)
    assert f"key file {path}" in str(caught.value)
    with pytest.raises(ConfigError, match=reason):
        add(path, OTHER)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('"text"', "not an object"),
        ("null", "not an object"),
        ("[]", "not an object"),
        ("{}", "public_key_hash must be a text"),
        ('{"public_key_hash": 1, "encrypted_private_key": "AAAA"}', "public_key_hash must be a text"),
        ('{"public_key_hash": "tz1"}', "encrypted_private_key must be a text"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": null}', "encrypted_private_key must be a text"),
        ('{"public_key_hash": "", "encrypted_private_key": "AAAA"}', "public_key_hash must have 1 to 64"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": ""}', "must have 1 to 65536 bytes"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": "AAA"}', "is not base64"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": "AA-_"}', "is not base64"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": "AAAé"}', "is not base64"),
        ('{"public_key_hash": "tz1", "encrypted_private_key": "AA AA"}', "is not base64"),
    ],
)
def test_malformed_entry_is_refused_by_file_and_index(path: Path, entry: str, reason: str) -> None:
    good = '{"public_key_hash": "tz1", "encrypted_private_key": "AAAA"}'
    path.write_text(f"[{good}, {entry}, {good}]")
    with pytest.raises(ConfigError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(f"key file {path}, entry 1 (counted from 0): ")
    with pytest.raises(ConfigError, match=reason):
        add(path, OTHER)


def test_too_large_blob_in_a_file_is_refused(path: Path) -> None:
    text = base64.b64encode(bytes(MAX_BLOB_BYTES + 1)).decode()
    path.write_text(json.dumps([{"public_key_hash": "tz1", "encrypted_private_key": text}]))
    with pytest.raises(ConfigError, match="entry 0"):
        load(path)


def test_too_large_file_is_refused(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="is it a key file"):
        load(path)


def test_file_does_not_grow_beyond_its_limit(path: Path) -> None:
    filling = json.dumps([{"public_key_hash": "tz1", "encrypted_private_key": "AAAA", "note": "n" * MAX_FILE_BYTES}])
    surplus = len(filling) - MAX_FILE_BYTES
    path.write_text(filling.replace("n" * surplus, "", 1))
    assert path.stat().st_size == MAX_FILE_BYTES
    with pytest.raises(ConfigError, match="would exceed"):
        add(path, OTHER)
    assert path.stat().st_size == MAX_FILE_BYTES
    assert len(load(path)) == 1


def test_unreadable_file_is_unavailable(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreUnavailable, match=str(path)):
        load(path)
    with pytest.raises(StoreUnavailable, match=str(path)):
        add(path, OTHER)


def test_a_pipe_in_place_of_the_file_is_unavailable_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(StoreUnavailable, match="cannot be read: not a regular file"):
        load(path)


def test_full_disk_is_unavailable_and_loses_nothing(path: Path) -> None:
    assert add(path, STORED)
    with files_up_to(1024), pytest.raises(StoreUnavailable, match="is not stored"):
        add(path, StoredKey("tz1", bytes(4096)))
    assert path.read_bytes() == SIGNATORY_FILE
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]
    assert add(path, OTHER)


@pytest.fixture
def link(path: Path) -> Path:
    """Another path to the same key file, in a folder of its own."""
    link = path.parent / "links" / "vault.json"
    link.parent.mkdir()
    link.symlink_to(path)
    return link


def test_whoever_comes_by_a_link_waits_for_the_same_lock(path: Path, link: Path) -> None:
    with locked(path.with_name("keys.json.lock")), pytest.raises(StoreUnavailable, match="is in use by process"):
        asyncio.run(FileKeyStore(link, lock_wait_s=0.0).add([OTHER]))
    assert add(link, STORED)
    assert add(path, OTHER)
    assert load(link) == load(path) == (STORED, OTHER)
    assert list(link.parent.iterdir()) == [link]


def test_what_is_replaced_by_a_link_lies_with_the_keys(path: Path, link: Path) -> None:
    assert add(path, STORED)
    replace(link, StoredKey(STORED.pkh, b"blob"))
    assert path.with_name("keys.json.replaced").read_bytes() == SIGNATORY_FILE
    assert list(link.parent.iterdir()) == [link]


def test_what_is_kept_by_a_link_lies_with_the_keys(path: Path, link: Path) -> None:
    assert add(path, STORED)
    asyncio.run(FileKeyStore(link).keep("20260131T235959Z", Before.RESEAL))
    assert path.with_name("keys.json.before-reseal-20260131T235959Z").read_bytes() == SIGNATORY_FILE
    assert (
        asyncio.run(FileKeyStore(link).kept(Before.RESEAL))
        == asyncio.run(FileKeyStore(path).kept(Before.RESEAL))
        is not None
    )
    assert list(link.parent.iterdir()) == [link]


def test_a_link_that_was_turned_while_waiting_changes_nothing(
    path: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locked file is the one read and written."""
    elsewhere = path.with_name("elsewhere.json")

    @contextmanager
    def turning(lock: Path, wait_s: float) -> Iterator[None]:
        with locked(lock, wait_s):
            link.unlink()
            link.symlink_to(elsewhere)
            yield

    monkeypatch.setattr("host_backend.keystore.file.locked", turning)
    assert add(link, STORED)
    assert load(path) == (STORED,)
    assert not elsewhere.exists()


def test_links_in_a_circle_are_unavailable(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(StoreUnavailable, match="Too many levels of symbolic links"):
        load(path)
    with pytest.raises(StoreUnavailable, match="Too many levels of symbolic links"):
        add(path, OTHER)


def test_lock_held_too_long_is_unavailable(path: Path) -> None:
    with (
        locked(path.with_name("keys.json.lock")),
        pytest.raises(StoreUnavailable, match=f"in use by process {os.getpid()}"),
    ):
        asyncio.run(FileKeyStore(path, lock_wait_s=0.0).add([OTHER]))
    assert not path.exists()
