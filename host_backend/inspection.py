"""Keeping the memory of a process that has secrets from other processes, and from the disk."""

import ctypes
import resource

from host_backend.errors import StateConflict

#: `prctl(PR_SET_DUMPABLE, …)`. Source: Linux `prctl.h`.
_PR_SET_DUMPABLE = 4


def forbid_inspection() -> None:
    """Forbid core dumps of this process, and other processes of its user to read its memory; root still can.

    Raises:
        ConfigError: The system does not let it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0)):
        raise StateConflict("the system does not let this process hide its memory from others: prctl failed")
