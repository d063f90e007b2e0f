"""Keeps the memory of the process in RAM, where the system lets it: locked memory is never written to swap.

- A page is locked when it is first touched, not when it is reserved: the process does not grow by it.
- Under a limit nothing is locked, though it might fit today: every later allocation beyond the limit would fail.
"""

import ctypes
import errno
import os
import resource

#: `mlockall(…)`: mappings of now, later ones, and of both only pages that were touched. Source: Linux `mman.h`.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock() -> str | None:
    """Lock all memory of this process, now and later.

    Returns:
        Why it is not locked, in words; None: it is.
    """
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = limits[1] == resource.RLIM_INFINITY
    try:
        # With a limit of 0 the kernel locks for those alone who may exceed every limit (CAP_IPC_LOCK).
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY if unlimited else 0, limits[1]))
        if not ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
            return None
        number = ctypes.get_errno()
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
    except (OSError, ValueError, AttributeError) as error:
        return f"the system does not let it: {error}"
    if number == errno.EPERM and not unlimited:
        return f"{limits[1]} bytes at most may be locked (RLIMIT_MEMLOCK): allow any number, or CAP_IPC_LOCK"
    return f"the system does not let it: {os.strerror(number)}"
