"""What came of a reload: a note in `base_dir`, by which the command that asked for it learns that.

What begins like a secret key is masked in it, as in the log. Nothing that stands in the way of the note, not even a pipe,
holds up the host or the command.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from enclave_signer.tezos import masked
from host_backend.durable import open_regular

NAME = "last-reload.json"
#: Characters of a reason; many faults of one file have some thousands.
MAX_REASON_CHARS = 16_384
#: Bytes that are read: a note with the longest reason.
MAX_NOTE_BYTES = 8 * MAX_REASON_CHARS


@dataclass(frozen=True, slots=True)
class ReloadNote:
    """What one reload did.

    Attributes:
        pid: The host.
        started: When it began to read, in seconds of this machine's monotonic clock.
        problem: Why the old policies stay; None: the new ones are in force.
    """

    pid: int
    started: float
    problem: str | None


def write_note(folder: Path, started: float, problem: str | None) -> None:
    """Write what a reload of this process did, in place of the note before.

    Raises:
        OSError: It cannot be written.
    """
    note = ReloadNote(os.getpid(), started, None if problem is None else masked(problem)[:MAX_REASON_CHARS])
    unfinished = folder / f".{NAME}"
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(note), file)
    unfinished.replace(folder / NAME)


def read_note(folder: Path) -> ReloadNote | None:
    """Return the last note; None where there is none that can be read."""
    try:
        with open_regular(folder / NAME) as file:
            return ReloadNote(**json.loads(file.read(MAX_NOTE_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
