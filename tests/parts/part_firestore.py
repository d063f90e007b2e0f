"""A Firestore that others wrote, npm's `@firestore-emulator/server`, as a second opinion on what the key store sends.

It keeps no two writers apart, and does not look at versions, so it says nothing of races; those are for our own double,
which is stricter. Nor does it know `ListDocuments`, by which all keys are read page by page: it has no call that pages
(a query with a limit and a cursor gives the first page for ever). So stored keys are read one by one here.
"""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore_v1 import Client
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

from host_backend.errors import StoreUnavailable
from host_backend.google.documents import Write
from host_backend.google.outcomes import Conflict
from host_backend.keystore import firestore
from host_backend.keystore.base import StoredKey
from host_backend.keystore.firestore import FirestoreKeyStore
from tests.doubles.google.clients import connected
from tests.doubles.processes import PATIENCE_S, running

PACKAGE = Path(__file__).with_name("npm_firestore")
FIRST = StoredKey("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", b"\x00first blob\xff")
SECOND = StoredKey("tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", b"second blob")
NEW = StoredKey(FIRST.pkh, b"new blob")

T = TypeVar("T")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give its address, of loopback, though it listens on all."""
    folder = tmp_path_factory.mktemp("npm") / "firestore"
    shutil.copytree(PACKAGE, folder)
    # By the hashes of the lock file.
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, timeout=PATIENCE_S)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(["node", str(folder / "serve.js"), str(port)]) as program:
        program.wait_for("^ready")
        yield f"127.0.0.1:{port}"


@pytest.fixture
def collection(request: pytest.FixtureRequest) -> str:
    """A collection that no other test uses."""
    return str(request.node.name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firestore, "_PAUSE_S", 0.0)


def use(server: str, collection: str, scenario: Callable[[FirestoreKeyStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = FirestoreKeyStore(connected(server, collection))
        try:
            return await scenario(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def googles_client(server: str) -> Client:
    """Google's own client, as Signatory uses it in another language."""
    client = Client(project="p", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    # No public way leads to another address without the environment; this fails loudly when it is gone.
    assert hasattr(client, "_firestore_api_internal")
    transport = FirestoreGrpcTransport(channel=grpc.insecure_channel(server))
    client._firestore_api_internal = FirestoreClient(transport=transport)
    return client


def test_keys_are_added_once(server: str, collection: str) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.add([FIRST, SECOND]) == {FIRST.pkh, SECOND.pkh}
        assert await store.add([FIRST]) == frozenset()
        assert await store.add([NEW]) == frozenset()
        assert await store._read([FIRST.pkh, SECOND.pkh]) == {FIRST.pkh: FIRST.blob, SECOND.pkh: SECOND.blob}
        assert await store._read(["tz1"]) == {"tz1": None}

    use(server, collection, scenario)


def test_a_key_that_is_there_is_not_overwritten(server: str, collection: str) -> None:
    """By the service's own condition, not by what was read before."""

    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST])
        write = Write(f"{collection}/{FIRST.pkh}", {"pkh": FIRST.pkh, "value": NEW.blob}, absent=True)
        with pytest.raises(Conflict):
            await store._database.commit([write])
        assert await store._read([FIRST.pkh]) == {FIRST.pkh: FIRST.blob}

    use(server, collection, scenario)


def test_a_key_is_replaced_and_the_old_one_is_kept(server: str, collection: str) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST, SECOND])
        await store.replace(NEW, [FIRST.blob])
        assert await store._read([FIRST.pkh, SECOND.pkh]) == {FIRST.pkh: NEW.blob, SECOND.pkh: SECOND.blob}
        with pytest.raises(StoreUnavailable, match="was changed meanwhile"):
            await store.replace(FIRST, [FIRST.blob])

    use(server, collection, scenario)
    (kept,) = googles_client(server).collection(f"{collection}_replaced").stream()
    assert kept.to_dict() == {"pkh": FIRST.pkh, "value": FIRST.blob}


def test_blobs_are_exchanged(server: str, collection: str) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST, SECOND])
        unknown = StoredKey("tz1unknown", b"blob")
        assert await store.exchange({FIRST: b"1", SECOND: b"2", unknown: b"3"}) == {FIRST, SECOND}
        assert await store.exchange({FIRST: b"other"}) == frozenset()
        assert await store._read([FIRST.pkh, SECOND.pkh]) == {FIRST.pkh: b"1", SECOND.pkh: b"2"}

    use(server, collection, scenario)


def test_a_key_that_was_added_changes_the_revision(server: str, collection: str) -> None:
    async def scenario(store: FirestoreKeyStore) -> list[str]:
        revisions = [await store.revision()]
        for key in (FIRST, SECOND):
            await store.add([key])
            revisions.append(await store.revision())
        return revisions

    assert use(server, collection, scenario) == ["0 0", "1 0", "2 0"]


def test_googles_own_client_reads_what_we_store_and_we_what_it_stores(server: str, collection: str) -> None:
    use(server, collection, lambda store: store.add([FIRST]))
    theirs = googles_client(server).collection(collection)
    theirs.document(SECOND.pkh).create({"pkh": SECOND.pkh, "value": SECOND.blob, "more": 1})
    assert {each.id: each.get("value") for each in theirs.stream()} == {
        FIRST.pkh: FIRST.blob,
        SECOND.pkh: SECOND.blob,
    }
    found = use(server, collection, lambda store: store._read([FIRST.pkh, SECOND.pkh]))
    assert found == {FIRST.pkh: FIRST.blob, SECOND.pkh: SECOND.blob}
    theirs.document(FIRST.pkh).delete()
    assert use(server, collection, lambda store: store._read([FIRST.pkh])) == {FIRST.pkh: None}


def test_what_it_cannot_do_is_unavailable_and_no_empty_store(server: str, collection: str) -> None:
    """A host on such a service would have no keys, and must not take that for a store without any."""
    use(server, collection, lambda store: store.add([FIRST]))
    with pytest.raises(StoreUnavailable):
        use(server, collection, lambda store: store.load())
