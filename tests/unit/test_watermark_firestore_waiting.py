"""What waits in the watermark store in Firestore: bounded, dropped when no one waits for it, and ended by closing."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import ClientLeft, StoreUnavailable, TooManyWait, WatermarkRejected
from host_backend.leaving import leave
from host_backend.watermark.firestore import places, transactions
from host_backend.watermark.firestore import store as stores
from host_backend.watermark.firestore.first_marks import MAX_CHAINS_OF_KEY, MAX_NEW_CHAINS, FirstMarks
from host_backend.watermark.firestore.store import FirestoreWatermarkStore, open_marks
from host_backend.watermark.rule import MAX_CHAINS_PER_KEY, Mark, MarkKey, Verdict
from tests.doubles.google.clients import connected, marks_in
from tests.doubles.google.firestore import Fault, FirestoreDouble, running_firestore
from tests.doubles.watermarks import KEY, OTHER, A, some_chain, some_pkh

Scenario = Callable[[FirestoreWatermarkStore, "Gate"], Awaitable[None]]


class Gate:
    """Holds up calls of one method until it is opened; the first one that comes is waited for."""

    def __init__(self, double: FirestoreDouble, method: str) -> None:
        self._open = threading.Event()
        self._reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._method = method
        double.faults = self._fault

    def _fault(self, method: str) -> None:
        if method == self._method and not self._open.is_set():
            self._loop.call_soon_threadsafe(self._reached.set)
            self._open.wait(60)

    async def reached(self) -> None:
        async with asyncio.timeout(60):
            await self._reached.wait()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def double() -> Iterator[FirestoreDouble]:
    with running_firestore() as double:
        yield double


@pytest.fixture
def folder(double: FirestoreDouble, tmp_path: Path) -> Path:
    """A folder that has made its store."""
    marks_in(double, tmp_path).create()
    return tmp_path


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_TRANSACTIONS", 1)


def use(double: FirestoreDouble, folder: Path, scenario: Scenario, method: str = "Commit") -> None:
    """Run a scenario with a gate before calls of one method."""

    async def run() -> None:
        async with connected(double.address) as database, open_marks(folder, database) as store:
            gate = Gate(double, method)
            try:
                await scenario(store, gate)
            finally:
                gate.open()

    asyncio.run(run())


def asked(store: FirestoreWatermarkStore, key: MarkKey) -> asyncio.Task[Verdict]:
    return asyncio.create_task(store.advance(key, A))


def key(number: int, chain: int = 1) -> MarkKey:
    return MarkKey(some_chain(chain), some_pkh(number), Right.BLOCK)


def test_first_marks_that_are_refused_wait_for_no_other(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAX_TRANSACTIONS", 2)

    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        first = asked(store, key(1, chain=100))
        await gate.reached()
        with pytest.raises(WatermarkRejected, match="gets none on another"):
            await store.advance(key(2, chain=101), A)
        assert not first.done()
        gate.open()
        assert await first is Verdict.ADVANCE

    marks_in(double, folder).adopt({key(2, chain): A for chain in range(MAX_CHAINS_PER_KEY)})
    use(double, folder, scenario)


def test_one_key_does_not_hold_up_others(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MAX_TRANSACTIONS", places.MAX_TRANSACTIONS_OF_KEY + 1)

    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        many = [asked(store, key(1, chain)) for chain in range(20)]
        await gate.reached()
        # Known already: it is judged and answered, without a write.
        assert await store.advance(OTHER, A) is Verdict.REPEAT
        assert not any(each.done() for each in many)
        for each in many:
            each.cancel()

    marks_in(double, folder).adopt({OTHER: A} | {key(1, chain): Mark(1, 0, None) for chain in range(20)})
    use(double, folder, scenario)


def test_what_nobody_waits_for_any_more_is_never_begun(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        under_way = asked(store, KEY)
        await gate.reached()
        double.calls.clear()
        left = [asked(store, key(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        gate.open()
        assert await under_way is Verdict.ADVANCE
        # Behind all others: they had their turns.
        assert await store.advance(OTHER, A) is Verdict.ADVANCE

    use(double, folder, scenario, "BatchGetDocuments")
    # Each of the two judged, and then written.
    assert double.calls["BeginTransaction"] <= 3


def test_a_request_that_waits_ends_when_its_client_leaves(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        under_way = asked(store, KEY)
        await gate.reached()
        waits = asked(store, OTHER)
        await asyncio.sleep(0)
        leave(waits)
        leave(under_way)
        with pytest.raises(ClientLeft):
            await waits
        # This one may have cost its right already: it is finished.
        assert not under_way.done()
        gate.open()
        assert await under_way is Verdict.ADVANCE

    use(double, folder, scenario)


def test_requests_that_wait_are_bounded_in_all(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_REQUESTS", 2)

    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        two = [asked(store, key(number)) for number in range(2)]
        await gate.reached()
        with pytest.raises(TooManyWait, match="2 requests wait for their marks already"):
            await store.advance(OTHER, A)
        assert store.problem is None
        gate.open()
        assert await asyncio.gather(*two) == [Verdict.ADVANCE] * 2
        assert await store.advance(OTHER, A) is Verdict.ADVANCE

    use(double, folder, scenario)


def test_what_is_not_begun_in_time_is_told_so(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        under_way = asked(store, KEY)
        await gate.reached()
        monkeypatch.setattr(places, "WAIT_S", 0.0)
        with pytest.raises(StoreUnavailable, match=r"not begun within 0 s: too many other marks are being written"):
            await store.advance(OTHER, A)
        # It says nothing of Firestore.
        assert store.problem is None
        monkeypatch.setattr(places, "WAIT_S", 60.0)
        gate.open()
        assert await under_way is Verdict.ADVANCE

    use(double, folder, scenario)


def test_closing_refuses_what_is_not_begun_and_answers_the_rest(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        under_way = asked(store, KEY)
        await gate.reached()
        waiting = [asked(store, key(number)) for number in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.aclose())
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, StoreUnavailable)
            assert str(each).endswith("is closed")
        assert not under_way.done()
        gate.open()
        assert await under_way is Verdict.ADVANCE
        await closing

    use(double, folder, scenario)


def test_closing_ends_whatever_the_service_does(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "CLOSE_S", 0.0)
    monkeypatch.setattr(stores, "CLOSE_S", 0.0)
    monkeypatch.setattr(places, "MAX_TRANSACTIONS", 64)

    async def scenario(store: FirestoreWatermarkStore, gate: Gate) -> None:
        under_way = [asked(store, key(number)) for number in range(5)]
        await gate.reached()
        double.faults = lambda _method: Fault.HANGS
        await store.aclose()
        for each in await asyncio.gather(*under_way, return_exceptions=True):
            assert isinstance(each, StoreUnavailable)
        assert not store._working
        assert not store._transactions._ending

    use(double, folder, scenario)


# First marks


async def in_turn(marks: FirstMarks, key: MarkKey, end: asyncio.Event, entered: list[MarkKey]) -> None:
    async with marks.turn(key, ()):
        entered.append(key)
        await end.wait()


async def pause() -> None:
    """Let all others go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_first_marks_wait_on_few_chains_of_a_key_and_in_all() -> None:
    async def run() -> None:
        marks, end, entered = FirstMarks(), asyncio.Event(), list[MarkKey]()

        def take(number: int, chain: int) -> asyncio.Task[None]:
            return asyncio.create_task(in_turn(marks, key(number, chain), end, entered))

        tasks = [take(1, chain) for chain in range(MAX_CHAINS_OF_KEY)]
        await pause()
        with pytest.raises(TooManyWait, match=rf"first marks of {some_pkh(1)} on 24 chains wait already"):
            await take(1, 100)
        # Another key's, on as many chains as there may be.
        tasks += [take(2 + chain // 8, chain) for chain in range(MAX_CHAINS_OF_KEY, MAX_NEW_CHAINS)]
        await pause()
        with pytest.raises(TooManyWait, match="first marks on 32 chains wait already"):
            await take(100, 100)
        end.set()
        await asyncio.gather(*tasks)
        assert len(entered) == MAX_NEW_CHAINS
        await take(100, 100)
        assert not marks._waiting

    asyncio.run(run())


def test_of_a_new_chain_one_first_mark_goes_first_and_all_others_together() -> None:
    async def run() -> None:
        marks, first, others, entered = FirstMarks(), asyncio.Event(), asyncio.Event(), list[MarkKey]()
        tasks = [asyncio.create_task(in_turn(marks, key(0), first, entered))]
        tasks += [asyncio.create_task(in_turn(marks, key(number), others, entered)) for number in range(1, 100)]
        await pause()
        assert entered == [key(0)]
        first.set()
        for _ in range(20):
            await pause()
        assert entered == [key(number) for number in range(100)]
        others.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
