"""The memory of the daemon is closed to other processes of its user; what a privileged one may read, nothing prevents."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.processes import ROOT, Enclave
from tests.doubles.starting import interpreters_of_their_own

UNPRIVILEGED = (sys.executable, "-m", "tests.doubles.unprivileged", sys.executable)
#: Prints 0 bytes or more of a file, or why it may not.
READ = """
import sys
try:
    with open(sys.argv[1], "rb", buffering=0) as file:
        print("opened" if sys.argv[1].endswith("mem") else "read" if file.read(1) else "empty")
except PermissionError:
    print("forbidden")
"""


@pytest.fixture(scope="module", autouse=True)
def _interpreters() -> Iterator[None]:
    """What the kernel lets others read of a process hangs on how it was started."""
    with interpreters_of_their_own():
        yield


@contextmanager
def unprivileged_enclave(module: str, *arguments: str) -> Iterator[Enclave]:
    enclave = Enclave([*UNPRIVILEGED, "-m", module, "--listen", "127.0.0.1:0", *arguments])
    try:
        enclave.ready()
        yield enclave
    finally:
        enclave.stop()
        assert enclave.process.stderr is not None
        enclave.process.stderr.close()


def read(pid: int, name: str) -> str:
    run = subprocess.run(
        [*UNPRIVILEGED, "-c", READ, f"/proc/{pid}/{name}"], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return run.stdout.strip()


@pytest.mark.parametrize("name", ["mem", "environ", "maps"])
def test_no_process_of_the_same_user_can_read_it(name: str, tmp_path: Path) -> None:
    with unprivileged_enclave(
        "enclave_signer", "--sealing-key", str(tmp_path / "key"), "--make-sealing-key"
    ) as enclave:
        assert read(enclave.pid, name) == "forbidden"


def test_a_process_that_does_not_forbid_it_can_be_read() -> None:
    # The daemon of the tests, which seals nothing, forbids nothing either. (`mem` may be closed by the system, too.)
    with unprivileged_enclave("tests.doubles.passthrough_enclave") as enclave:
        assert read(enclave.pid, "environ") == "read"
        assert read(enclave.pid, "maps") == "read"


def test_it_leaves_no_core_dump(tmp_path: Path) -> None:
    with unprivileged_enclave(
        "enclave_signer", "--sealing-key", str(tmp_path / "key"), "--make-sealing-key"
    ) as enclave:
        assert resource.prlimit(enclave.pid, resource.RLIMIT_CORE) == (0, 0)
