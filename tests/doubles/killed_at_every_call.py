"""Does something to copies of a folder, and dies in each at another call to the system: `… DEED FOLDER TARGET`.

In the copy TARGET/1 the process dies before the first call that opens, writes, syncs, renames or removes something; in
TARGET/2 before the second, and so on; in the last one it does not die. Prints how many there are.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from enclave_signer.tezos import Right
from host_backend.errors import HostError
from host_backend.watermark.file.admin import FileMarks
from host_backend.watermark.file.held import held_store
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.watermarks import some_pkh

CHAIN = "NetXdQprcVkpaWU"
KEYS = [MarkKey(CHAIN, some_pkh(number), right) for number in range(2) for right in Right]
#: Calls that change something, or come before one that does.
CALLS = frozenset(
    {"close", "commit", "execute", "fchmod", "fdatasync", "flush", "fsync", "ftruncate", "link", "mkdir", "mkstemp"}
    | {"open", "pwrite", "pwritev", "rename", "replace", "rmdir", "seek", "truncate", "unlink", "write"}
)


def start_and_stop(base: Path) -> None:
    with held_store(base, in_memory_allowed=True, make_after_signatory=True) as store:
        store.hand_back()


def create(base: Path) -> None:
    FileMarks(base, in_memory_allowed=True).create()


def raise_one(base: Path) -> None:
    FileMarks(base, in_memory_allowed=True).raise_mark(KEYS[0], Mark(700, 0, None))


def reset_one(base: Path) -> None:
    FileMarks(base, in_memory_allowed=True).reset_mark(KEYS[0], Mark(50, 0, None))


def rebuild(base: Path) -> None:
    FileMarks(base, in_memory_allowed=True).rebuild(Rebuilt([key.pkh for key in KEYS], [CHAIN], 900), ".damaged")


def retire(base: Path) -> None:
    FileMarks(base, in_memory_allowed=True).retire()


DEEDS: dict[str, Callable[[Path], None]] = {
    deed.__name__: deed for deed in (start_and_stop, create, raise_one, reset_one, rebuild, retire)
}


def dying_at(call: int) -> Callable[[FrameType, str, Any], None]:
    """Return a profiler that kills the process before so many calls of `CALLS`."""
    seen = 0

    def count(_frame: FrameType, event: str, called: Any) -> None:
        nonlocal seen
        if event == "c_call" and called.__name__ in CALLS:
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def died(deed: Callable[[], object]) -> bool:
    """Do something in a child process; return whether that was killed.

    Raises:
        SystemExit: It failed.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            # A process that is killed could not write what was covered.
            sys.settrace(None)
            threading.settrace(None)
            deed()
            code = 0
        except HostError as error:
            print(error, file=sys.stderr)
        finally:
            sys.setprofile(None)
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        sys.exit("a child failed")
    return os.WIFSIGNALED(status)


def _do(deed: Callable[[Path], None], copy: Path, call: int) -> None:
    sys.setprofile(dying_at(call))
    deed(copy)


def main(name: str, folder: Path, target: Path) -> None:
    call, alive = 0, False
    while not alive:
        call += 1
        copy = target / str(call)
        shutil.copytree(folder, copy)
        alive = not died(partial(_do, DEEDS[name], copy, call))
    print(call)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
