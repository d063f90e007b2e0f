"""Run a command as the same user without privileges: `python -m tests.doubles.unprivileged COMMAND…`.

What root may do in addition hangs on capabilities: they are taken out of what the command can ever have. Whoever has none
needs nothing taken.
"""

import ctypes
import os
import sys
from pathlib import Path

#: `prctl(PR_CAPBSET_DROP, …)`. Source: Linux `prctl.h`.
_PR_CAPBSET_DROP = 24


def main() -> None:
    if os.geteuid() == 0:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for capability in range(last + 1):
            assert ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability)) == 0
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
