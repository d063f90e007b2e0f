"""The double of Firestore, by Google's own asynchronous client: what it allows, refuses, and keeps apart."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient

from tests.doubles.google.clients import transport_to
from tests.doubles.google.firestore import FirestoreDouble, running_firestore

Scenario = Callable[[Any], Awaitable[None]]
Use = Callable[[Scenario], None]


@pytest.fixture(params=["optimistic", "pessimistic"])
def double(request: pytest.FixtureRequest) -> Iterator[FirestoreDouble]:
    with running_firestore(pessimistic=request.param == "pessimistic") as double:
        yield double


@pytest.fixture
def use(double: FirestoreDouble) -> Use:
    async def run(scenario: Scenario) -> None:
        client: Any = firestore.AsyncClient(project="p", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
        transport = transport_to(double.address)
        client._firestore_api_internal = FirestoreAsyncClient(transport=transport)
        try:
            await scenario(client)
        finally:
            await transport.close()  # type: ignore[no-untyped-call]

    return lambda scenario: asyncio.run(run(scenario))


def test_documents_are_created_once_and_come_back(use: Use) -> None:
    async def scenario(client: Any) -> None:
        document = client.document("keys/a")
        await document.create({"pkh": "a", "value": b"\x00\xff", "n": 2**62})
        with pytest.raises(exceptions.AlreadyExists):
            await document.create({"pkh": "b"})
        assert (await document.get()).to_dict() == {"pkh": "a", "value": b"\x00\xff", "n": 2**62}
        assert not (await client.document("keys/b").get()).exists

    use(scenario)


def test_set_replaces_update_and_merge_change(use: Use) -> None:
    async def scenario(client: Any) -> None:
        document = client.document("keys/a")
        with pytest.raises(exceptions.NotFound):
            await document.update({"x": 1})
        await document.set({"x": 1, "y": 2})
        await document.update({"x": 3})
        await document.set({"z": 4}, merge=True)
        assert (await document.get()).to_dict() == {"x": 3, "y": 2, "z": 4}
        await document.set({"x": 5})
        assert (await document.get()).to_dict() == {"x": 5}
        await document.update({"x": firestore.DELETE_FIELD, "t": firestore.SERVER_TIMESTAMP})
        assert set((await document.get()).to_dict()) == {"t"}

    use(scenario)


def test_a_version_that_is_old_is_refused(use: Use) -> None:
    async def scenario(client: Any) -> None:
        document = client.document("keys/a")
        await document.set({"x": 1})
        old = client.write_option(last_update_time=(await document.get()).update_time)
        await document.update({"x": 2}, option=old)
        with pytest.raises(exceptions.FailedPrecondition):
            await document.update({"x": 3}, option=old)
        with pytest.raises(exceptions.FailedPrecondition):
            await document.delete(option=old)
        assert (await document.get()).to_dict() == {"x": 2}

    use(scenario)


def test_of_a_batch_all_or_nothing_is_written(use: Use) -> None:
    async def scenario(client: Any) -> None:
        await client.document("keys/a").create({"x": 1})
        batch = client.batch()
        batch.set(client.document("keys/b"), {"x": 1})
        batch.create(client.document("keys/a"), {"x": 2})
        with pytest.raises(exceptions.AlreadyExists):
            await batch.commit()
        assert not (await client.document("keys/b").get()).exists

    use(scenario)


def test_collections_are_listed_in_pages_queried_and_counted(use: Use, double: FirestoreDouble) -> None:
    async def scenario(client: Any) -> None:
        collection = client.collection("keys")
        ids = [f"k{number:03}" for number in range(230)]
        for each in ids:
            double.write(f"keys/{each}", n=1)
        double.write("keys/k000/below/one", n=1)
        assert [document.id async for document in collection.list_documents()] == ids
        assert double.calls["ListDocuments"] == 3
        assert [snapshot.id async for snapshot in collection.stream()] == ids
        assert (await collection.count().get())[0][0].value == 230
        assert [document.id async for document in client.collection("none").list_documents()] == []

    use(scenario)


def test_reserved_ids_and_large_documents_are_refused(use: Use) -> None:
    async def scenario(client: Any) -> None:
        for document, value in (("__x__", b""), ("x", bytes(1_048_577))):
            with pytest.raises(exceptions.InvalidArgument):
                await client.document(f"keys/{document}").set({"value": value})

    use(scenario)


def test_transactions_that_meet_lose_nothing(use: Use) -> None:
    """Ten tasks add one ten times each; who met another is aborted, and tries again."""

    async def scenario(client: Any) -> None:
        document = client.document("counters/one")
        await document.set({"n": 0})

        async def add(transaction: Any) -> None:
            snapshot = await document.get(transaction=transaction)
            transaction.update(document, {"n": snapshot.get("n") + 1})

        async def work() -> None:
            done = 0
            while done < 5:
                try:
                    # Decorated again each time: one that is shared sends the ids of others.
                    await firestore.async_transactional(add)(client.transaction())
                except (ValueError, exceptions.Aborted):
                    continue
                done += 1

        await asyncio.gather(*(work() for _ in range(6)))
        assert (await document.get()).to_dict() == {"n": 30}

    use(scenario)


def test_a_transaction_is_over_once(use: Use) -> None:
    async def scenario(client: Any) -> None:
        transaction = client.transaction()
        await transaction._begin()
        identity = transaction.id
        await transaction._rollback()
        transaction._id = identity
        transaction.set(client.document("keys/a"), {"x": 1})
        with pytest.raises(exceptions.InvalidArgument):
            await transaction._commit()

    use(scenario)


def test_a_writer_waits_for_a_reader_or_the_reader_is_aborted(use: Use, double: FirestoreDouble) -> None:
    async def scenario(client: Any) -> None:
        document = client.document("keys/a")
        await document.set({"x": 0})
        transaction = client.transaction()
        await transaction._begin()
        assert (await document.get(transaction=transaction)).get("x") == 0
        writing = asyncio.create_task(document.set({"x": 1}))
        if not double.documents.pessimistic:
            await writing
        transaction.set(document, {"x": 2})
        if double.documents.pessimistic:
            await transaction._commit()
            await writing
        else:
            with pytest.raises(exceptions.Aborted):
                await transaction._commit()
        assert (await document.get()).to_dict() == {"x": 1}

    use(scenario)
