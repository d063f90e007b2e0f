"""`enclave-host serve` that writes down, at SIGUSR2, how long its event loop was held since it was last asked.

`python -m benchmarks.watched_host serve …` is started by `benchmarks.watchers`, and writes to the file in its environment;
also how often the configuration was reloaded.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, TypeVar

from host_backend import app
from host_backend.cli.commands import main
from host_backend.log import dropped_lines
from host_backend.reload import PolicyReload
from host_backend.steps import STEP_S, Steps, Work

T = TypeVar("T")

#: The variable of the environment that names the file.
TOLD = "WATCHED_HOST_TOLD"
#: Seconds between two looks at whether the loop goes on.
PROBE_S = 0.001


class MeasuredSteps(Steps):
    """Notes the longest step of each piece of work, by the processor's time: a busy machine makes any step look long."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self._began: tuple[float, float] | None = None
        self._longest_s = 0.0

    def _look(self) -> float:
        now = time.perf_counter()
        if self._began is None:
            self._began = now, time.thread_time()
        elif now >= self._began[0] + STEP_S:
            self._note()
        return now

    def _note(self) -> None:
        if self._began is not None:
            self._longest_s = max(self._longest_s, time.thread_time() - self._began[1])
            self._began = None

    async def count(self, work: Work[T]) -> tuple[T, int]:
        """Do it; the last step ends here."""
        try:
            return await super().count(work)
        finally:
            self._note()
            Longest.steps_s.append(self._longest_s)
            self._longest_s = 0.0


class Longest:
    """Seconds since they were last reported; of the longest steps of each piece of work the median.

    The processor's time of one step has what the kernel and the machine below it do meanwhile.
    """

    steps_s: ClassVar[list[float]] = []
    held_s = 0.0

    @classmethod
    def tell(cls) -> None:
        """Write them down, and start again."""
        step_s = median(cls.steps_s) if cls.steps_s else 0.0
        write_down(f"{step_s * 1e3:.2f} {cls.held_s * 1e3:.2f} {dropped_lines()}")
        cls.steps_s.clear()
        cls.held_s = 0.0

    @classmethod
    async def probe(cls) -> None:
        """Look at the loop, for ever."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PROBE_S)
            cls.held_s = max(cls.held_s, time.perf_counter() - before - PROBE_S)


def write_down(line: str) -> None:
    """Add a line to the file."""
    with Path(os.environ[TOLD]).open("a") as file:
        file.write(f"{line}\n")


class MeasuredReload(PolicyReload):
    """Says when it is done."""

    async def reload(self) -> None:
        """Reload, and say so."""
        await super().reload()
        write_down("reloaded")


_serve = app.serve


async def _measured_serve(*arguments: Any, **options: Any) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, Longest.tell)
    probing = asyncio.create_task(Longest.probe())
    await _serve(*arguments, **options)
    probing.cancel()


if __name__ == "__main__":
    vars(app).update(serve=_measured_serve, Steps=MeasuredSteps, PolicyReload=MeasuredReload)
    main()
