"""Slow signatures are verified in threads: those that arrive while all threads are busy wait and are verified together.

- One that is alone is verified at once, by itself: no signature waits for others to arrive.
- Where the system starts no thread, the event loop verifies: no signature is lost, and none goes unverified.
"""

import asyncio
import os
from collections import deque
from collections.abc import Sequence

from enclave_signer.curves import CurveError, SignatureCheck, verify_each
from host_backend.sparse_log import SparseLog

#: Batches at once: BLS leaves the interpreter's lock, and a core that has nothing else to do verifies as well.
BATCHES = max(1, min(4, os.cpu_count() or 1))
#: Signatures of one batch, at most 10 ms of BLS: more would save little, and the first one waits for the last.
MAX_BATCH = 16

_Waiting = tuple[SignatureCheck, "asyncio.Future[None]"]
_Answers = list[CurveError | None]


class Batches:
    """The signatures of one vault that threads verify. All methods belong to one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0
        self._last_was_alone = True
        self._sparse_log = SparseLog()

    @property
    def quiet(self) -> bool:
        """Whether nothing is verified, and the last signature was verified by itself: the next one may be as well."""
        return not self._under_way and self._last_was_alone

    async def verify(self, check: SignatureCheck) -> None:
        """Return when a signature is right.

        Raises:
            CurveError: It is wrong.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((check, answer))
        self._start()
        await answer

    def _start(self) -> None:
        while self._waiting and self._under_way < BATCHES:
            # Shared out evenly between the threads that are free.
            share = -(-len(self._waiting) // (BATCHES - self._under_way))
            batch = [self._waiting.popleft() for _ in range(min(share, MAX_BATCH))]
            self._last_was_alone = len(batch) == 1 and not self._under_way
            self._under_way += 1
            verifying = self._begin([check for check, _ in batch])
            verifying.add_done_callback(lambda done, batch=batch: self._end(batch, done))  # type: ignore[misc]

    def _begin(self, checks: Sequence[SignatureCheck]) -> "asyncio.Future[_Answers]":
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(None, verify_each, checks)
        except (RuntimeError, MemoryError) as error:
            self._sparse_log.warn(f"tz4 signatures are verified without a thread, which delays others: {error}")
        verified: asyncio.Future[_Answers] = loop.create_future()
        try:
            verified.set_result(verify_each(checks))
        except Exception as bug:  # noqa: BLE001 -- answered to those who wait, as one in a thread is
            verified.set_exception(bug)
        return verified

    def _end(self, batch: Sequence[_Waiting], done: "asyncio.Future[_Answers]") -> None:
        self._under_way -= 1
        bug = done.exception()
        answers: Sequence[BaseException | None] = [bug] * len(batch) if bug is not None else done.result()
        for (_, waiter), error in zip(batch, answers, strict=True):
            if waiter.done():
                continue  # its caller left
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        self._start()
