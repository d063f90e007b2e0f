"""Slow computations, shared between threads and the event loop."""

import threading
import weakref

import pytest
import trio

from enclave_signer.protocol.messages import KeyType, Signature
from enclave_signer.serving.workers import Job, open_workers


def job(number: int) -> Job:
    return lambda: Signature(KeyType.BLS, b"%d" % number)


def refused() -> Signature:
    raise ValueError("refused")


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_outcomes_come_in_order_of_the_jobs(threads: int) -> None:
    async def main() -> list[Signature | Exception]:
        async with open_workers(threads) as workers:
            return await workers.run("owner", [job(number) for number in range(200)])

    outcomes = trio.run(main)
    assert outcomes == [Signature(KeyType.BLS, b"%d" % number) for number in range(200)]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_an_exception_is_the_outcome_of_its_job_alone(count: int) -> None:
    async def main() -> list[Signature | Exception]:
        async with open_workers(1) as workers:
            await workers.run("owner", [job(0)])
            return await workers.run("owner", [refused, *map(job, range(1, count))])

    first, *rest = trio.run(main)
    assert isinstance(first, ValueError)
    assert len(rest) == count - 1
    assert not any(isinstance(outcome, Exception) for outcome in rest)


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("count", [1, 3])
def test_a_job_that_is_done_is_not_kept(threads: int, count: int) -> None:
    """A key hangs on it."""

    class Kept:
        def run(self) -> Signature:
            return Signature(KeyType.BLS, b"")

    async def main() -> None:
        async with open_workers(threads) as workers:
            kept = [Kept() for _ in range(count)]
            left = weakref.WeakSet(kept)
            jobs: list[Job] = [each.run for each in kept]
            del kept
            await workers.run("owner", jobs)
            del jobs
            with trio.fail_after(5):
                while left:  # noqa: ASYNC110 -- nothing tells of it
                    await trio.sleep(0.01)

    trio.run(main)


def test_many_owners_are_served_side_by_side() -> None:
    async def main() -> int:
        served = 0

        async def ask(owner: int) -> None:
            nonlocal served
            for size in (1, 5, 1, 20):
                outcomes = await workers.run(owner, [job(number) for number in range(size)])
                assert outcomes == [job(number)() for number in range(size)]
                served += size

        async with open_workers(2) as workers, trio.open_nursery() as nursery:
            for owner in range(30):
                nursery.start_soon(ask, owner)
        return served

    assert trio.run(main) == 30 * 27


def test_a_deep_batch_leaves_its_turn_to_a_small_one() -> None:
    async def main() -> list[str]:
        order: list[str] = []

        def named(name: str) -> Job:
            def run() -> Signature:
                order.append(name)
                return Signature(KeyType.BLS, b"")

            return run

        async with open_workers(0) as workers, trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, "deep", [named("deep") for _ in range(100)])
            nursery.start_soon(workers.run, "small", [named("small")])
        return order

    # The deep batch may have begun before the small one came, and no more than that.
    assert trio.run(main).index("small") <= 3


def test_threads_take_part() -> None:
    async def main() -> set[str]:
        names: set[str] = set()
        both = threading.Barrier(2, timeout=30)

        def meet() -> Signature:
            # Only passes when two of the workers are at work at once.
            names.add(threading.current_thread().name)
            both.wait()
            return Signature(KeyType.BLS, b"")

        async with open_workers(1) as workers:
            await workers.run("owner", [meet, meet])
        return names

    assert trio.run(main) == {"MainThread", "worker-0"}


def test_a_cancelled_owner_leaves_the_crew_in_order() -> None:
    async def main() -> list[Signature | Exception]:
        async with open_workers(1) as workers:
            with trio.CancelScope() as scope:
                scope.cancel()
                await workers.run("gone", [job(number) for number in range(10)])
            return await workers.run("other", [job(1), job(2)])

    assert trio.run(main) == [job(1)(), job(2)()]
