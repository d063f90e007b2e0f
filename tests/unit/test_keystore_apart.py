"""Two key stores as one: what Signatory does not know is never in the file that it reads."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from host_backend.config.google_places import FirestorePlace
from host_backend.config.key_storage import KeysApart, KeysInFile, KeysInFirestore
from host_backend.errors import StoreUnavailable
from host_backend.keystore.apart import StoreApart
from host_backend.keystore.base import Before, KeyStore, StoredKey
from host_backend.keystore.file import FileKeyStore
from tests.doubles.known_keys import KEYS

T = TypeVar("T")

TZ1 = StoredKey(KEYS["tz1alias"].pkh, b"one")
TZ4 = StoredKey(KEYS["tz4alias"].pkh, b"four")
TZ5 = StoredKey("tz5czEJ8ZakFtpiLg55w7GVrw1rK28JTH9sS", b"five")
OTHER_TZ5 = StoredKey("tz5MuutbwRnNztNWrAU1BL7C64NaiBZ8Y4xu", b"another five")
UTC, LATER = "20261126T080000Z", "20261127T080000Z"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "keys.json", tmp_path / "keys.tz5.json"


@pytest.fixture
def store(files: tuple[Path, Path]) -> StoreApart:
    return StoreApart(*map(FileKeyStore, files))


def run(work: Awaitable[T]) -> T:
    async def all_of_it() -> T:
        return await work

    return asyncio.run(all_of_it())


def hashes(file: Path) -> list[str]:
    return [entry["public_key_hash"] for entry in json.loads(file.read_text())] if file.exists() else []


def test_each_key_is_where_it_belongs(store: StoreApart, files: tuple[Path, Path]) -> None:
    assert run(store.add([TZ1])) == {TZ1.pkh}
    before = files[0].read_bytes()
    assert run(store.add([TZ5])) == {TZ5.pkh}
    assert files[0].read_bytes() == before
    assert run(store.add([OTHER_TZ5, TZ4, TZ1])) == {OTHER_TZ5.pkh, TZ4.pkh}
    assert hashes(files[0]) == [TZ1.pkh, TZ4.pkh]
    assert hashes(files[1]) == [TZ5.pkh, OTHER_TZ5.pkh]
    assert run(store.load()) == (TZ1, TZ4, TZ5, OTHER_TZ5)


@pytest.mark.parametrize("key", [TZ1, TZ5])
def test_a_change_of_either_is_another_revision(store: StoreApart, key: StoredKey) -> None:
    before = run(store.revision())
    assert run(store.revision()) == before
    run(store.add([key]))
    assert run(store.revision()) != before


@pytest.mark.parametrize("key", [TZ1, TZ5])
def test_a_key_is_replaced_where_it_is(store: StoreApart, files: tuple[Path, Path], key: StoredKey) -> None:
    run(store.add([TZ1, TZ5]))
    run(store.replace(StoredKey(key.pkh, b"new"), [key.blob]))
    assert StoredKey(key.pkh, b"new") in run(store.load())
    assert len(run(store.load())) == 2
    with pytest.raises(StoreUnavailable, match="changed meanwhile"):
        run(store.replace(StoredKey(key.pkh, b"newer"), [key.blob]))


def test_all_are_kept_and_exchanged(store: StoreApart) -> None:
    assert run(store.kept(Before.RESEAL)) is None
    run(store.add([TZ1, TZ5]))
    run(store.keep(UTC, Before.RESEAL))
    kept = run(store.kept(Before.RESEAL))
    assert kept is not None
    assert kept.keys == (TZ1, TZ5)
    assert UTC in kept.where
    assert " and " in kept.where
    assert run(store.exchange({TZ1: b"1", TZ5: b"5", OTHER_TZ5: b"6"})) == {TZ1, TZ5}
    assert [key.blob for key in run(store.load())] == [b"1", b"5"]
    run(store.keep(LATER, Before.RESEAL))
    kept = run(store.kept(Before.RESEAL))
    assert kept is not None
    assert [key.blob for key in kept.keys] == [b"1", b"5"]
    assert run(store.exchange({})) == frozenset()
    run(store.aclose())


def test_places_beside_others() -> None:
    file = KeysInFile(Path("/k/keys.json"))
    assert file.beside() == KeysInFile(Path("/k/keys.tz5.json"))
    place = KeysInFirestore(FirestorePlace("p", "d", "keys", Path("/f")))
    assert place.beside() == KeysInFirestore(FirestorePlace("p", "d", "keys_tz5", Path("/f")))
    apart = KeysApart(file, file.beside())
    assert apart.describe() == (
        "sealed keys in /k/keys.json, those that Signatory does not know: sealed keys in /k/keys.tz5.json"
    )
    assert [*apart.dangers()] == []


def test_it_is_a_key_store() -> None:
    make: Callable[[KeyStore, KeyStore], KeyStore] = StoreApart
    assert make(FileKeyStore(Path("/a")), FileKeyStore(Path("/b"))).look_s == FileKeyStore(Path("/a")).look_s
