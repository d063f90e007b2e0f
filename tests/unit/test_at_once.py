"""So many at once, addresses in turn; no place is lost, whoever leaves when."""

import asyncio
from collections.abc import Awaitable, Callable

from host_backend.at_once import AtOnce

ONE, OTHER, THIRD, FOURTH = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"


class Asking:
    """Those who ask, each of whom goes on until a test ends it."""

    def __init__(self, limit: int) -> None:
        self._at_once = AtOnce(limit)
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.begun: list[str] = []

    async def come(self, **addresses: str) -> None:
        for name, address in addresses.items():
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._ask(name, address))
        await self._settle()

    async def _ask(self, name: str, address: str) -> None:
        async with self._at_once.turn(address):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await self._settle()

    async def leave(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def run(limit: int, scenario: Callable[[Asking], Awaitable[None]]) -> None:
    async def main() -> None:
        asking = Asking(limit)
        await scenario(asking)
        await asking.leave(*asking.tasks)

    asyncio.run(main())


def test_so_many_go_on_and_addresses_take_turns() -> None:
    async def scenario(asking: Asking) -> None:
        # One with half of its address in common is the same client.
        await asking.come(a=ONE, b=ONE, c=ONE, d=ONE, e=OTHER, f=THIRD, g=FOURTH)
        assert asking.begun == ["a", "b"]
        await asking.end("a")
        assert asking.begun == ["a", "b", "c"]
        await asking.end("b", "c")
        assert asking.begun[3:] == ["e", "f"]
        await asking.end("e", "f")
        assert asking.begun[5:] == ["d", "g"]

    run(2, scenario)


def test_who_leaves_keeps_no_place_and_takes_no_turn() -> None:
    async def scenario(asking: Asking) -> None:
        await asking.come(a=ONE, b=ONE, c=OTHER, d=ONE)
        await asking.leave("b")
        await asking.leave("a")
        assert asking.begun == ["a", "d"]
        await asking.leave("c", "d")
        await asking.come(e=ONE)
        assert asking.begun == ["a", "d", "e"]

    run(1, scenario)


def test_who_leaves_as_its_turn_comes_passes_it_on() -> None:
    async def scenario(asking: Asking) -> None:
        await asking.come(a=ONE, b=ONE, c=ONE)
        # It has its place, and has not noticed yet.
        asking.tasks["a"].cancel()
        await asyncio.sleep(0)
        await asking.leave("b")
        assert asking.begun == ["a", "c"]

    run(1, scenario)


def test_who_leaves_in_the_moment_before_its_turn_is_passed_by() -> None:
    async def scenario(asking: Asking) -> None:
        await asking.come(a=ONE, b=ONE, c=ONE)
        await asking.leave("a", "b")
        assert asking.begun == ["a", "c"]

    run(1, scenario)
