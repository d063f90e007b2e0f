"""Batches: items that wait at the same moment share a request, so that a start with hundreds of keys takes few.

One request of a kind is under way at a time; items that come meanwhile go into the next one. The first caller in line
sends the request for all; if it is cancelled, the next one does.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from enclave_signer.errors import SealingError, again
from enclave_signer.sealing.vault_answers import BatchRefused

#: Vault and OpenBao take 1000 strings in one request by default; an item has five.
MAX_ITEMS = 200

Item = Mapping[str, str]
Outcome = str | SealingError


@dataclass(slots=True, eq=False)
class _Waiting:
    """An item and its outcome, once there is one."""

    item: Item
    outcome: Outcome | None = None


class Batches:
    """Items of one kind.

    Args:
        send: Sends a request for some of them and returns their outcomes.
    """

    def __init__(self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]) -> None:
        self._send = send
        self._line = trio.Lock()
        self._waiting: list[_Waiting] = []

    async def ask(self, item: Item) -> str:
        """Return the result for one item.

        Raises:
            SealingError: Its own error, or that of the request that it was part of.
        """
        mine = _Waiting(item)
        self._waiting.append(mine)
        try:
            async with self._line:
                while mine.outcome is None:
                    await self._ask_next()
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        if isinstance(mine.outcome, SealingError):
            raise again(mine.outcome)
        return mine.outcome

    async def _ask_next(self) -> None:
        asked, self._waiting = self._waiting[:MAX_ITEMS], self._waiting[MAX_ITEMS:]
        try:
            outcomes = await self._outcomes([each.item for each in asked])
        except BaseException:
            # This caller is cancelled; the others are still in line.
            self._waiting[:0] = asked
            raise
        for each, outcome in zip(asked, outcomes, strict=True):
            each.outcome = outcome

    async def _outcomes(self, items: Sequence[Item]) -> Sequence[Outcome]:
        try:
            return await self._send(items)
        except BatchRefused as error:
            if len(items) == 1:
                return [error.alone]
            # The reason may be one of them, or their number.
            half = len(items) // 2
            return [*await self._outcomes(items[:half]), *await self._outcomes(items[half:])]
        except SealingError as error:
            return [error] * len(items)
