"""Commands on a terminal, and what it shows."""

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.doubles.processes import PATIENCE_S, ROOT


def drained(master: int) -> bytes:
    """Return what a terminal was shown, after its other side was closed, and close it."""
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:
        pass
    os.close(master)
    return shown


def on_terminal(words: Sequence[str]) -> bytes:
    """Run a command whose standard error is a terminal; return what it showed."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "host_backend", *words]
    process = subprocess.Popen(command, stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, cwd=ROOT)
    os.close(slave)
    shown = drained(master)
    assert process.wait(PATIENCE_S) == 0, shown
    return shown
