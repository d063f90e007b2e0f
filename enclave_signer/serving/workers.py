"""The workers: threads that share slow computations (BLS, about 0.35 ms each) with the event loop.

- One queue for all connections, one job of each waiting batch in turn: a deep pipeline does not hold up the others.
- The event loop works too, one job between two looks at the sockets; a batch uses every core, and no call waits
  for a thread to wake without need: that takes as long as a signature.
- A connection that is alone is served at once, in the event loop.
"""

import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from enclave_signer.protocol.messages import Signature

#: A slow computation that is safe to run in any thread.
Job = Callable[[], Signature]

#: The event loop is one of the workers, so that there is no thread more than cores.
DEFAULT_THREADS = max(1, (os.cpu_count() or 1) - 1)


_NOT_RUN = RuntimeError("a job was not run")


class _Batch:
    """The jobs that one connection has waiting, and what came of those already done."""

    __slots__ = ("complete", "jobs", "left", "next", "outcomes")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.outcomes: list[Signature | Exception] = [_NOT_RUN] * len(jobs)
        self.next = 0
        self.left = len(jobs)
        self.complete = trio.Event()

    def run(self, index: int) -> None:
        """Do one job."""
        self.outcomes[index] = _outcome(self.jobs[index])


def _outcome(job: Job) -> Signature | Exception:
    """Do a job; an exception is its outcome."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 -- handed to the connection, which sorts refusals from bugs
        return error


class Workers:
    """Runs batches of jobs on all cores. Use `open_workers`."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._lock = threading.Lock()
        self._wake_threads = threading.Condition(self._lock)
        self._wake_loop = trio.Event()
        self._batches: deque[_Batch] = deque()
        self._waiting_jobs = 0
        self._idle_threads = 0
        self._closed = False
        self._last_owner: object = None

    async def run(self, owner: object, jobs: Sequence[Job]) -> list[Signature | Exception]:
        """Return the outcome of every job, in order; an exception that a job raised is its outcome.

        Args:
            owner: The connection that asks; one that is alone, job by job, is served at once.
            jobs: What to compute.
        """
        alone = len(jobs) == 1 and owner is self._last_owner and not self._waiting_jobs
        self._last_owner = owner
        if alone:
            return [_outcome(jobs[0])]
        batch = _Batch(jobs)
        self._enqueue(batch)
        await batch.complete.wait()
        return batch.outcomes

    def leave(self, owner: object) -> None:
        """Forget an owner that asks no more, and the keys that hang on it."""
        if self._last_owner is owner:
            self._last_owner = None

    def _enqueue(self, batch: _Batch) -> None:
        with self._lock:
            self._batches.append(batch)
            self._waiting_jobs += len(batch.jobs)
            # The event loop takes one job itself; a thread is woken for what it would leave waiting.
            if self._waiting_jobs > 1 and self._idle_threads:
                self._wake_threads.notify(self._waiting_jobs - 1)
        self._wake_loop.set()

    def _take(self) -> tuple[_Batch, int] | None:
        """Return the next job of the batch whose turn it is; call with the lock held."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        index = batch.next
        batch.next += 1
        self._waiting_jobs -= 1
        if batch.next < len(batch.jobs):
            self._batches.append(batch)
        return batch, index

    def _finish(self, batch: _Batch) -> bool:
        with self._lock:
            batch.left -= 1
            return batch.left == 0

    async def work_in_loop(self) -> None:
        """Do jobs between looks at the sockets, for ever."""
        while True:
            with self._lock:
                job = self._take()
                if job is None:
                    self._wake_loop = trio.Event()
            if job is None:
                await self._wake_loop.wait()
                continue
            batch, index = job
            batch.run(index)
            if self._finish(batch):
                batch.complete.set()
            # The keys of a job that is done are not kept until the next one.
            del job, batch
            await trio.lowlevel.checkpoint()

    def work_in_thread(self) -> None:
        """Do jobs until closed."""
        while True:
            with self._lock:
                while (job := self._take()) is None:
                    if self._closed:
                        return
                    self._idle_threads += 1
                    self._wake_threads.wait()
                    self._idle_threads -= 1
            batch, index = job
            batch.run(index)
            if self._finish(batch):
                try:
                    self._token.run_sync_soon(batch.complete.set)
                except trio.RunFinishedError:
                    return
            # As in the event loop.
            del job, batch

    def close(self) -> None:
        """Let the threads end once nothing waits."""
        with self._lock:
            self._closed = True
            self._wake_threads.notify_all()


@asynccontextmanager
async def open_workers(threads: int = DEFAULT_THREADS) -> AsyncIterator[Workers]:
    """Give `threads` threads and the event loop as workers."""
    workers = Workers(trio.lowlevel.current_trio_token())
    members = [threading.Thread(target=workers.work_in_thread, name=f"worker-{n}", daemon=True) for n in range(threads)]
    for member in members:
        member.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.work_in_loop)
            yield workers
            nursery.cancel_scope.cancel()
    finally:
        workers.close()
        for member in members:
            member.join()
