"""The memory of both programs is closed to other processes of its user; what a privileged one may read, nothing prevents."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.host_process import ask, run_command, running_host, write_config
from tests.doubles.processes import ROOT, Enclave, running_local_enclave
from tests.doubles.starting import interpreters_of_their_own

UNPRIVILEGED = (sys.executable, "-m", "tests.doubles.unprivileged", sys.executable)
#: The number of the capability. Source: Linux `capability.h`.
CAP_IPC_LOCK = 14
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
def unprivileged_enclave(module: str, *arguments: str, under: tuple[str, ...] = ()) -> Iterator[Enclave]:
    enclave = Enclave([*under, *UNPRIVILEGED, "-m", module, "--listen", "127.0.0.1:0", *arguments])
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


def test_no_process_of_the_same_user_can_read_what_the_host_holds(tmp_path: Path) -> None:
    """The secrets of tokens, and the keys of TLS; what it says of itself it can still read."""
    users = (
        "{alice: {password: 'a Password 1 of some length', secret: 'a Secret 1 of more than thirty-two characters'}}"
    )
    config = write_config(tmp_path, 1)
    config.write_text(config.read_text().replace("server: {", f"server: {{jwt: {{users: {users}}}, "))
    assert run_command("watermark", "init", "-c", config).code == 0
    with running_host(config, prefix=UNPRIVILEGED[:-1]) as host:
        assert {read(host.pid, name) for name in ("mem", "environ", "maps")} == {"forbidden"}
        assert resource.prlimit(host.pid, resource.RLIMIT_CORE) == (0, 0)
        page = ask(host.utility_port, "GET", "/metrics").body.decode()
        assert re.search(r"^process_open_fds [1-9]", page, re.MULTILINE)
        assert re.search(r"^process_resident_memory_bytes [1-9]", page, re.MULTILINE)


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


def status_of(pid: int, name: str) -> int:
    """Return a number that the kernel says of a process, in its own base."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1], 16 if name.startswith("Cap") else 10)


def test_all_of_its_memory_is_locked_where_the_system_lets_it(tmp_path: Path) -> None:
    may = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    may |= bool(status_of(os.getpid(), "CapEff") >> CAP_IPC_LOCK & 1)
    with running_local_enclave(tmp_path / "key") as enclave:
        enclave.wait_for("memory is locked: nothing" if may else "memory is not locked: ")
        assert (status_of(enclave.pid, "VmLck") > status_of(enclave.pid, "VmSize") * 0.9) == may
        # What is reserved and never touched takes no memory.
        assert status_of(enclave.pid, "VmRSS") < status_of(enclave.pid, "VmSize") * 0.6


def test_under_a_limit_it_is_not_locked_and_says_so(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    most = 8 << 20 if hard == resource.RLIM_INFINITY else min(hard, 8 << 20)
    limited = ("sh", "-c", f'ulimit -l {most >> 10}; exec "$@"', "sh")
    arguments = ("--sealing-key", str(tmp_path / "key"), "--make-sealing-key")
    with unprivileged_enclave("enclave_signer", *arguments, under=limited) as enclave:
        enclave.wait_for(f"memory is not locked: .*{most} bytes at most may be locked")
        assert status_of(enclave.pid, "VmLck") == 0
        assert resource.prlimit(enclave.pid, resource.RLIMIT_MEMLOCK)[1] == most
