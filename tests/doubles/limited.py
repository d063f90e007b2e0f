"""Run a command that can write nothing beyond a place of any file: `python -m tests.doubles.limited BYTES COMMAND…`.

As on a disk that is full, but for files that are as long already.
"""

import os
import resource
import sys


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
