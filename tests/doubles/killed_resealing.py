"""Runs `enclave-host reseal` on copies of a folder, and dies in each at another call: `… CONFIG FOLDER TARGET ARGUMENT…`.

The calls are those to the system that change files, or come before one that does. In the copy TARGET/1 the process dies
before the first, in TARGET/2 before the second, and so on; in the last one it does not die. What it leaves is copied to
TARGET/1.left, and so on; then the same is run once more, to its end. Prints how many there are.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

from host_backend.cli.commands import cli
from tests.doubles.killed_at_every_call import CALLS, untraced

#: So that a few keys are several batches.
BATCH = 2


def _die_at(call: int) -> None:
    seen = 0

    def count(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal seen
        if event == "c_call" and called.__name__ in CALLS:
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)

    # Only what works on files is run in other threads.
    threading.setprofile(count)


def _run(arguments: list[str], call: int | None) -> bool:
    """Return whether it died."""
    child = os.fork()
    if not child:
        code = 1
        try:
            untraced()
            # What it prints is not the test's.
            os.dup2(2, 1)
            patch("host_backend.vault.resealing.BATCH", BATCH).start()
            if call is not None:
                _die_at(call)
            cli.main(["reseal", *arguments], standalone_mode=False)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        sys.exit("reseal failed")
    return os.WIFSIGNALED(status)


def main(config: Path, folder: Path, target: Path, arguments: list[str]) -> None:
    call, died = 0, True
    while died:
        call += 1
        copy = target / str(call)
        shutil.copytree(folder, copy)
        command = ["-c", str(config), "--base-dir", str(copy), *arguments]
        died = _run(command, call)
        shutil.copytree(copy, target / f"{call}.left")
        _run(command, None)
    print(call)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
