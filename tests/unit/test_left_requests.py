"""Requests whose clients have left: those count that go on."""

import asyncio
from collections.abc import Callable, Coroutine

from host_backend.api.left_requests import LEFT_REQUESTS_OF_ADDRESS, LeftRequests
from host_backend.errors import ClientLeft
from host_backend.leaving import waiting

ADDRESS = "192.0.2.7"


async def in_line(gate: asyncio.Event) -> None:
    with waiting():
        await gate.wait()


async def at_work(gate: asyncio.Event) -> None:
    await gate.wait()


def refused_after(request: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> bool:
    """Return whether an address is refused in the moment in which as many as may go on have left."""

    async def run() -> bool:
        left, gate = LeftRequests(), asyncio.Event()
        tasks = [asyncio.create_task(request(gate)) for _ in range(LEFT_REQUESTS_OF_ADDRESS)]
        await asyncio.sleep(0)
        for task in tasks:
            left.leave(ADDRESS, task)
        refused = left.too_many(ADDRESS)
        gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each is None or isinstance(each, ClientLeft) for each in outcomes)
        await asyncio.sleep(0)
        assert not left.too_many(ADDRESS)
        return refused

    return asyncio.run(run())


def test_requests_that_go_on_count_until_they_end() -> None:
    assert refused_after(at_work)


def test_requests_that_only_wait_end_at_once_and_do_not_count() -> None:
    assert not refused_after(in_line)
