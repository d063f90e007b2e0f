"""What every `WatermarkStore` does. A new store joins by one more entry in `STORES`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from enclave_signer.tezos.consensus import Right
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.firestore.moving import WholeStore
from host_backend.watermark.firestore.store import FirestoreWatermarkStore, open_marks
from host_backend.watermark.memory import MemoryWatermarkStore
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkKey, Verdict
from tests.conformance import at_google
from tests.doubles.google.clients import connected, marks_in
from tests.doubles.google.firestore import running_firestore
from tests.doubles.watermarks import created, opened, some_chain, some_pkh

ADVANCE, REPEAT = Verdict.ADVANCE, Verdict.REPEAT

CHAIN = "NetXo5iVw1vBoxM"
PKH = "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf"
KEY = MarkKey(CHAIN, PKH, Right.BLOCK)

Scenario = Callable[[WatermarkStore], Awaitable[None]]
#: Runs a scenario with a new, empty store.
Use = Callable[[Scenario], None]


@asynccontextmanager
async def open_file(folder: Path, max_level_jump: int) -> AsyncIterator[WatermarkStore]:
    store = await opened(created(folder), max_level_jump=max_level_jump)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def open_memory(folder: Path, max_level_jump: int) -> AsyncIterator[WatermarkStore]:
    yield MemoryWatermarkStore(max_level_jump)


@asynccontextmanager
async def open_firestore(
    folder: Path, max_level_jump: int, *, pessimistic: bool = False
) -> AsyncIterator[WatermarkStore]:
    with running_firestore(pessimistic=pessimistic) as double:
        marks_in(double, folder).create()
        async with (
            connected(double.address) as database,
            open_marks(folder, database, max_level_jump=max_level_jump) as store,
        ):
            yield store


@asynccontextmanager
async def open_at_google(folder: Path, max_level_jump: int) -> AsyncIterator[WatermarkStore]:
    place = at_google.new_place()
    WholeStore(folder, place, at_google.open_firestore).create()
    async with (
        await at_google.open_firestore(place) as database,
        open_marks(folder, database, max_level_jump=max_level_jump) as store,
    ):
        yield store


STORES: dict[str, Callable[[Path, int], AbstractAsyncContextManager[WatermarkStore]]] = {
    "file": open_file,
    "memory": open_memory,
    "firestore": open_firestore,
    "firestore that locks": partial(open_firestore, pessimistic=True),
}
if at_google.firestore_is_configured():
    STORES[at_google.FIRESTORE_AT_GOOGLE] = open_at_google
MAX_LEVEL_JUMP = 100


@pytest.fixture(params=STORES)
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Use:
    async def run(scenario: Scenario) -> None:
        async with STORES[request.param](tmp_path, MAX_LEVEL_JUMP) as store:
            await scenario(store)

    return lambda scenario: asyncio.run(run(scenario))


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    """How many keys: each right of a store elsewhere costs calls of a service."""
    return 40 if "firestore" in request.node.callspec.params["use"] else 700


def mark(level: int, round_: int = 0, message: int = 0) -> Mark:
    """The mark of one of several messages at a level and round."""
    return Mark(level, round_, bytes([message, *level.to_bytes(4), *round_.to_bytes(4)]).ljust(32, b"\0"))


async def refused(store: WatermarkStore, key: MarkKey, asked: Mark) -> None:
    with pytest.raises(WatermarkRejected, match=r"^watermark validation failed"):
        await store.advance(key, asked)


def test_marks_move_up_only(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert await store.advance(KEY, mark(10, 5)) is ADVANCE
        assert await store.advance(KEY, mark(10, 5)) is REPEAT
        await refused(store, KEY, mark(10, 5, message=1))
        await refused(store, KEY, mark(10, 4))
        await refused(store, KEY, mark(9, 6))
        assert await store.advance(KEY, mark(10, 6)) is ADVANCE
        assert await store.advance(KEY, mark(11, 0)) is ADVANCE
        assert await store.advance(KEY, mark(11, 0)) is REPEAT
        await refused(store, KEY, mark(10, 6))

    use(scenario)


def test_first_mark_may_be_anywhere_and_zero_is_a_level(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert await store.advance(KEY, mark(0)) is ADVANCE
        assert await store.advance(KEY, mark(0)) is REPEAT
        await refused(store, KEY, mark(0, message=1))
        other = MarkKey(CHAIN, some_pkh(2), Right.BLOCK)
        assert await store.advance(other, mark(2**31 - 1, 2**31 - 1)) is ADVANCE
        assert await store.advance(other, mark(2**31 - 1, 2**31 - 1)) is REPEAT

    use(scenario)


def test_chains_keys_and_rights_do_not_affect_each_other(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        for chain in (CHAIN, "NetXdQprcVkpaWU"):
            for pkh in (PKH, "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME"):
                for right in Right:
                    key = MarkKey(chain, pkh, right)
                    assert await store.advance(key, mark(10)) is ADVANCE
                    await refused(store, key, mark(10, message=1))

    use(scenario)


def test_refused_requests_change_nothing(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert await store.advance(KEY, mark(10)) is ADVANCE
        for asked in (mark(9), mark(10, message=1), mark(11 + MAX_LEVEL_JUMP), Mark(-1, 0, b""), Mark(11, -1, b"")):
            await refused(store, KEY, asked)
        assert await store.advance(KEY, mark(10)) is REPEAT
        assert await store.advance(KEY, mark(10, 1)) is ADVANCE

    use(scenario)


def test_a_level_outside_the_chain_s_range_is_refused_as_the_first_too(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        for asked in (Mark(-1, 0, b""), Mark(0, -1, b""), Mark(2**31, 0, b""), Mark(0, 2**64, b"")):
            await refused(store, KEY, asked)
        assert await store.advance(KEY, mark(0)) is ADVANCE

    use(scenario)


def test_largest_jump_is_obeyed(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert await store.advance(KEY, mark(DEFAULT_MAX_LEVEL_JUMP)) is ADVANCE
        with pytest.raises(WatermarkRejected, match="enclave-host watermark raise"):
            await store.advance(KEY, mark(DEFAULT_MAX_LEVEL_JUMP + MAX_LEVEL_JUMP + 1))
        assert await store.advance(KEY, mark(DEFAULT_MAX_LEVEL_JUMP + MAX_LEVEL_JUMP)) is ADVANCE

    use(scenario)


def test_mark_without_digest_has_no_repeat(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert await store.advance(KEY, Mark(10, 0, None)) is ADVANCE
        await refused(store, KEY, Mark(10, 0, None))
        await refused(store, KEY, mark(10))
        assert await store.advance(KEY, mark(10, 1)) is ADVANCE

    use(scenario)


def test_of_two_messages_asked_together_one_is_allowed(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        for level in range(20):
            asked = [mark(level, message=number % 2) for number in range(10)]
            answers = await asyncio.gather(*(store.advance(KEY, one) for one in asked), return_exceptions=True)
            allowed = {one.digest for one, answer in zip(asked, answers, strict=True) if isinstance(answer, Verdict)}
            assert len(allowed) == 1
            assert answers.count(ADVANCE) == 1
            assert answers.count(REPEAT) == 4
            assert sum(isinstance(answer, WatermarkRejected) for answer in answers) == 5

    use(scenario)


def test_requests_asked_together_are_judged_in_order(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        asked = [mark(1), mark(2), mark(2), mark(1), mark(2, 1), mark(2), mark(3, message=1), mark(3)]
        answers = await asyncio.gather(*(store.advance(KEY, one) for one in asked), return_exceptions=True)
        words = [answer.value if isinstance(answer, Verdict) else type(answer).__name__ for answer in answers]
        no = "WatermarkRejected"
        assert words == ["advance", "advance", "repeat", no, "advance", no, "advance", no]

    use(scenario)


def test_many_keys_together(use: Use, many: int) -> None:
    async def scenario(store: WatermarkStore) -> None:
        keys = [MarkKey(CHAIN, some_pkh(number), right) for number in range(many) for right in Right]
        for _ in range(2):
            answers = await asyncio.gather(*(store.advance(key, mark(7)) for key in keys))
        assert answers == [REPEAT] * len(keys)

    use(scenario)


def first_marks(pkh: str, chains: range) -> list[MarkKey]:
    return [MarkKey(some_chain(number), pkh, Right.BLOCK) for number in chains]


def test_a_key_gets_marks_on_16_chains(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        keys = first_marks(PKH, range(20))
        # Asked together or one by one.
        answers = await asyncio.gather(*(store.advance(key, mark(1)) for key in keys[:18]), return_exceptions=True)
        assert answers.count(ADVANCE) == 16
        assert sum(isinstance(answer, WatermarkRejected) for answer in answers) == 2
        # Stores that others share decide on rights in any order.
        keys = sorted(keys[:18], key=lambda key: answers[keys.index(key)] != ADVANCE) + keys[18:]
        for key in keys[16:]:
            with pytest.raises(WatermarkRejected, match=r"^watermark validation failed: .*`allowed_chains`"):
                await store.advance(key, mark(1))
        for key in keys[:16]:
            assert await store.advance(key, mark(1)) is REPEAT
            assert await store.advance(key, mark(2)) is ADVANCE
            assert await store.advance(key._replace(right=Right.ATTESTATION), mark(1)) is ADVANCE
        assert await store.advance(keys[19]._replace(pkh=some_pkh(1)), mark(1)) is ADVANCE

    use(scenario)


def test_a_store_has_marks_on_64_chains(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        for number in range(4):
            keys = first_marks(some_pkh(number), range(16 * number, 16 * number + 16))
            assert await asyncio.gather(*(store.advance(key, mark(1)) for key in keys)) == [ADVANCE] * 16
        with pytest.raises(WatermarkRejected, match="there are marks on 64 chains already"):
            await store.advance(KEY, mark(1))
        for key in first_marks(PKH, range(0, 64, 4)):
            assert await store.advance(key, mark(1)) is ADVANCE

    use(scenario)


def test_caller_that_leaves_disturbs_nobody(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        tasks = [
            asyncio.create_task(store.advance(MarkKey(CHAIN, some_pkh(number), Right.BLOCK), mark(5)))
            for number in range(20)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[1::2] == [ADVANCE] * 10
        # Whether the mark of one that left has moved, or not: the same message may be asked again.
        for number in range(20):
            assert await store.advance(MarkKey(CHAIN, some_pkh(number), Right.BLOCK), mark(5)) in Verdict

    use(scenario)


def test_a_store_that_is_whole_refuses_no_right_and_has_no_problem(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        assert (dict(store.refused), store.problem) == ({}, None)
        assert await store.advance(KEY, mark(5)) is ADVANCE
        await refused(store, KEY, mark(4))
        # A refusal by the law is no problem of the store.
        assert (dict(store.refused), store.problem) == ({}, None)

    use(scenario)


def test_closed_store_is_unavailable_and_closes_again(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.advance(KEY, mark(1))
        await asyncio.gather(store.aclose(), store.aclose())

    use(scenario)


def test_closing_answers_those_who_wait(use: Use) -> None:
    async def scenario(store: WatermarkStore) -> None:
        tasks = [asyncio.create_task(store.advance(KEY, mark(level))) for level in range(20)]
        await asyncio.sleep(0)
        await store.aclose()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        begun = answers.count(ADVANCE)
        assert answers[:begun] == [ADVANCE] * begun
        assert all(isinstance(answer, StoreUnavailable) and "is closed" in str(answer) for answer in answers[begun:])
        # A store of this machine has no one to wait for.
        assert begun == 20 or isinstance(store, FirestoreWatermarkStore)

    use(scenario)
