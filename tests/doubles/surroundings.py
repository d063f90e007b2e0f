"""Says in which surroundings it runs and what it reads; ends as its last argument says."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    print(os.getpid(), os.getsid(0), sep="\n")
    print(*sys.argv[1:])
    print(os.environ.get("GIVEN"), Path.cwd(), sys.stdin.read(), sep="\n")
    if sys.argv[-1] == "ValueError":
        raise ValueError("x")
    sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else sys.argv[-1])
