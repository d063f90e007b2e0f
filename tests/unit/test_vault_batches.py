"""Batches: calls asked together, and what becomes of the others when one is refused or leaves."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

from enclave_signer.errors import BlobCorrupt, SealingError, SealingUnavailable
from enclave_signer.sealing.vault_answers import BatchRefused
from enclave_signer.sealing.vault_batches import MAX_ITEMS, Batches, Item, Outcome


class Sent:
    """The requests so far, as the names of their items; each is answered when `answer` lets it be."""

    def __init__(self, outcome: Callable[[Sequence[str]], Sequence[Outcome]]) -> None:
        self.requests: list[list[str]] = []
        self.answer = trio.Event()
        self.outcomes: dict[str, str | SealingError] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self._outcome = outcome
        self._batches = Batches(self._send)

    async def _send(self, items: Sequence[Item]) -> Sequence[Outcome]:
        names = [item["name"] for item in items]
        self.requests.append(names)
        await self.answer.wait()
        return self._outcome(names)

    async def ask(self, name: str) -> None:
        with trio.CancelScope() as self.scopes[name]:
            try:
                self.outcomes[name] = await self._batches.ask({"name": name})
            except SealingError as error:
                self.outcomes[name] = error

    async def in_order(self, nursery: trio.Nursery, *names: str) -> None:
        for name in names:
            nursery.start_soon(self.ask, name)
            await trio.testing.wait_all_tasks_blocked()


def echo(names: Sequence[str]) -> Sequence[Outcome]:
    return [name.upper() for name in names]


def run(
    scenario: Callable[[Sent, trio.Nursery], Awaitable[None]],
    outcome: Callable[[Sequence[str]], Sequence[Outcome]] = echo,
) -> Sent:
    async def main() -> Sent:
        sent = Sent(outcome)
        async with trio.open_nursery() as nursery:
            await scenario(sent, nursery)
        return sent

    return trio.run(main)


def test_what_comes_meanwhile_goes_into_the_next_request() -> None:
    async def scenario(sent: Sent, nursery: trio.Nursery) -> None:
        await sent.in_order(nursery, "a", "b", "c")
        sent.answer.set()

    sent = run(scenario)
    assert sent.requests == [["a"], ["b", "c"]]
    assert sent.outcomes == {"a": "A", "b": "B", "c": "C"}


@pytest.mark.parametrize("leaving", ["b", "c", "d"])
def test_one_that_leaves_takes_nothing_from_the_others(leaving: str) -> None:
    async def scenario(sent: Sent, nursery: trio.Nursery) -> None:
        await sent.in_order(nursery, "a", "b", "c", "d")
        first, sent.answer = sent.answer, trio.Event()
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert sent.requests == [["a"], ["b", "c", "d"]]
        sent.scopes[leaving].cancel()
        await trio.testing.wait_all_tasks_blocked()
        last, sent.answer = sent.answer, trio.Event()
        last.set()
        sent.answer.set()

    sent = run(scenario)
    assert sent.outcomes == {name: name.upper() for name in "abcd" if name != leaving}
    # Only the one that sent the request takes it away, and it is sent again.
    assert sent.requests[2:] == ([["c", "d"]] if leaving == "b" else [])


def test_no_request_has_more_than_the_limit() -> None:
    names = [f"k{number}" for number in range(2 * MAX_ITEMS + 1)]

    async def scenario(sent: Sent, nursery: trio.Nursery) -> None:
        sent.answer.set()
        for name in names:
            nursery.start_soon(sent.ask, name)

    sent = run(scenario)
    assert [len(request) for request in sent.requests] == [MAX_ITEMS, MAX_ITEMS, 1]
    assert sent.outcomes == {name: name.upper() for name in names}


def test_what_is_refused_together_is_asked_in_halves() -> None:
    def outcome(names: Sequence[str]) -> Sequence[Outcome]:
        if "bad" in names:
            raise BatchRefused(BlobCorrupt("blob corrupt"))
        return echo(names)

    async def scenario(sent: Sent, nursery: trio.Nursery) -> None:
        await sent.in_order(nursery, "a", "b", "bad", "c", "d")
        sent.answer.set()

    sent = run(scenario, outcome)
    assert isinstance(sent.outcomes.pop("bad"), BlobCorrupt)
    assert sent.outcomes == {name: name.upper() for name in "abcd"}


def test_an_error_of_the_request_is_that_of_each_item() -> None:
    def outcome(_: Sequence[str]) -> Sequence[Outcome]:
        raise SealingUnavailable("the server is sealed")

    async def scenario(sent: Sent, nursery: trio.Nursery) -> None:
        sent.answer.set()
        for name in "ab":
            nursery.start_soon(sent.ask, name)

    sent = run(scenario, outcome)
    assert [str(error) for error in sent.outcomes.values()] == ["the server is sealed"] * 2
    assert len({id(error) for error in sent.outcomes.values()}) == 2
