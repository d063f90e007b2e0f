"""What goes wrong inside a program while it runs: its disk, and its clock, as the file `CHAOS_STATE` says at the moment."""

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

STATE_VARIABLE = "CHAOS_STATE"
#: What a disk may do: nothing bad; or one of these.
DISKS = ("good", "full", "read-only", "torn", "failing", "slow", "hanging")
#: Seconds of a slow sync.
SLOW_S = 0.3
#: Seconds between two looks whether a hanging sync may end.
_LOOK_S = 0.02
_REFUSALS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "torn": errno.EIO}


class State:
    """The file, as tests write it and programs read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = "good"
        self.clock_ahead_s = 0.0

    def save(self) -> None:
        """Have the programs see it, at once and whole."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"disk": self.disk, "clock_ahead_s": self.clock_ahead_s}))
        new.replace(self.path)

    def load(self) -> None:
        found = json.loads(self.path.read_text())
        self.disk, self.clock_ahead_s = found["disk"], found["clock_ahead_s"]


def _now() -> State:
    state = State(Path(os.environ[STATE_VARIABLE]))
    state.load()
    return state


def shift_clock() -> None:
    """Have `time.time` jump with the state; call it before any other import takes the function."""
    real: Callable[[], float] = time.time
    time.time = lambda: real() + _now().clock_ahead_s


def spoil_disk() -> None:
    """Have writes and syncs of the marks' file fail, wait or hang with the state."""
    from host_backend.watermark.file.blocks import PosixBlocks

    write, sync, syncs = PosixBlocks.pwritev, PosixBlocks.fdatasync, count()

    def pwritev(self: PosixBlocks, pieces: Sequence[bytes], offset: int) -> int:
        disk = _now().disk
        if disk not in _REFUSALS:
            return write(self, pieces, offset)
        if disk == "torn":
            data = b"".join(pieces)
            write(self, [data[: len(data) // 2]], offset)
        raise OSError(_REFUSALS[disk], os.strerror(_REFUSALS[disk]))

    def fdatasync(self: PosixBlocks) -> None:
        match _now().disk:
            case "failing" if next(syncs) % 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            case "slow":
                time.sleep(SLOW_S)
            case "hanging":
                while _now().disk == "hanging":
                    time.sleep(_LOOK_S)
        sync(self)

    PosixBlocks.pwritev, PosixBlocks.fdatasync = pwritev, fdatasync  # type: ignore[method-assign]
