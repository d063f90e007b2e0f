"""`make run` without make: both programs on a folder, until asked to stop."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.processes import PATIENCE_S, ROOT


class Quickstart:
    """A running quick start, whose output is read until it says how to stop it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            # Temporary folders may be in memory.
            [sys.executable, "-m", "quickstart", str(folder), "--allow-memory-file-system"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.said = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line == "Ctrl-C stops both programs.\n":
                return
        raise AssertionError(f"it ended:\n{self.said}")

    def find(self, pattern: str) -> re.Match[str]:
        found = re.search(pattern, self.said)
        assert found, self.said
        return found

    def stop(self, number: signal.Signals = signal.SIGINT, *, whole_session: bool = False) -> int:
        """Send a signal, to the session as a terminal does or to the one process, and return the exit code."""
        if whole_session:
            os.killpg(self.pid, number)
        else:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.said += rest
        return self.process.returncode


@contextmanager
def running_quickstart(folder: Path) -> Iterator[Quickstart]:
    """Start it; stop it at the end if it still runs."""
    quickstart = Quickstart(folder)
    try:
        quickstart.ready()
        yield quickstart
    finally:
        if quickstart.process.poll() is None:
            quickstart.stop(signal.SIGTERM)
        assert quickstart.process.stdout is not None
        quickstart.process.stdout.close()
