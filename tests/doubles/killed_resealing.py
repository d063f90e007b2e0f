"""Runs `enclave-host reseal` on copies of a folder, and dies in each at another call: `… CONFIG FOLDER TARGET ARGUMENT…`.

The calls are those to the system that change files, or come before one that does. In the copy TARGET/1 the process dies
before the first, in TARGET/2 before the second, and so on; in the last one it does not die. What it leaves is copied to
TARGET/1.left, and so on; then the same is run once more, to its end. Prints how many there are.
"""

import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path
from unittest.mock import patch

from host_backend.cli.commands import cli
from tests.doubles.killed_at_every_call import died, dying_at

#: So that a few keys are several batches.
BATCH = 2


def _reseal(arguments: list[str], call: int | None) -> None:
    # What it prints is not the test's.
    os.dup2(2, 1)
    patch("host_backend.vault.resealing.BATCH", BATCH).start()
    if call is not None:
        # Only what works on files is run in other threads.
        threading.setprofile(dying_at(call))
    cli.main(["reseal", *arguments], standalone_mode=False)


def main(config: Path, folder: Path, target: Path, arguments: list[str]) -> None:
    call, alive = 0, False
    while not alive:
        call += 1
        copy = target / str(call)
        shutil.copytree(folder, copy)
        command = ["-c", str(config), "--base-dir", str(copy), *arguments]
        alive = not died(partial(_reseal, command, call))
        shutil.copytree(copy, target / f"{call}.left")
        died(partial(_reseal, command, None))
    print(call)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
