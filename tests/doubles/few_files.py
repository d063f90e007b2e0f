"""Run a command that can have few files open at once: `python -m tests.doubles.few_files COUNT COMMAND…`."""

import os
import resource
import sys


def main() -> None:
    count = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, 64), count))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
