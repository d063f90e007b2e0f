"""The measured image runs as its user on a read-only file system, without a capability, and signs; one runtime a part.

Google's services are doubles: the code that leads the daemon to them comes from outside, everything else is the image's.
"""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from image.root import IMAGE_TOML, PROGRAM
from tests.doubles import built_image
from tests.doubles.google.cloud import GoogleCloud, running_google_cloud
from tests.doubles.image_root import ISOLATED, WITH_DOUBLES
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave, kept
from tests.doubles.runtimes import USER, Bubblewrap, Docker, Runc, Runtime, Unshare, running_docker
from tests.doubles.wire import WireClient

#: Seconds: an image takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(1200)
#: What the doubles need; everything else that they import is in the image.
DRIVER = ("gcp_enclave.py", "google/places.py")
#: As the daemon's own start does.
INSIDE = WITH_DOUBLES.removesuffix("main()")
INSIDE += "from enclave_signer.__main__ import forbid_inspection; forbid_inspection(); main()"
#: Says what the kernel lets the process do.
PROBE = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
written = {}
for path in ("/written", "/usr/lib/enclave-signer/written", "/etc/enclave-signer/image.toml"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        written[path] = "written"
    except OSError as error:
        written[path] = error.strerror
names = ("Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs")
print(json.dumps({"written": written} | {name: status[name].split() for name in names}))
"""


RUNTIMES: dict[str, Callable[[Path, Path], Runtime]] = {"unshare": Unshare, "bwrap": Bubblewrap, "runc": Runc}


class Shared:
    """A folder that the image sees at `/run`: the doubles' code, and the launcher's token."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shared"
        for name in DRIVER:
            target = self.path / "tests" / "doubles" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "tests" / "doubles" / name, target)

    def environment(self, cloud: GoogleCloud) -> dict[str, str]:
        return {name: value.replace(str(self.path), "/run") for name, value in cloud.environment().items()}


@pytest.fixture(params=[*RUNTIMES, "docker"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    with ExitStack() as stack:
        if request.param == "docker":
            docker = stack.enter_context(running_docker(tmp_path))
            subprocess.run([*docker, "load", "-i", built_image.image("production") / "image.tar"], check=True)
            yield Docker(docker, "production-of-parts")
            return
        root = built_image.unpacked("production", tmp_path / "root")
        yield RUNTIMES[request.param](root, tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def test_it_may_do_nothing_but_run(runtime: Runtime, shared: Shared) -> None:
    command = runtime.command([*ISOLATED, "-c", PROBE], {}, shared.path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"\n{found}")
    written = found.pop("written")
    assert written["/written"] == "Read-only file system"
    assert set(written.values()) <= {"Read-only file system", "Permission denied"}
    assert set(found.pop("Uid") + found.pop("Gid")) == {str(USER)}
    assert found.pop("NoNewPrivs") == ["1"]
    assert {int(mask, 16) for (mask,) in found.values()} == {0}


def test_it_signs(runtime: Runtime, shared: Shared) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    launcher = shared.path / "launcher"
    launcher.mkdir()
    with running_google_cloud(launcher) as cloud:
        arguments = [*ISOLATED, "-c", INSIDE, f"/{PROGRAM}", "/run"]
        arguments += ["--image", f"/{IMAGE_TOML}", "--listen", f"127.0.0.1:{port}"]
        for path in (shared.path, *shared.path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = runtime.command(arguments, shared.environment(cloud), shared.path)
        with kept(Enclave(command)) as enclave, WireClient(("127.0.0.1", port)) as client:
            for handle, key in enumerate(FOUR):
                assert "Ok" in client.call({"GenerateAndImport": key.key_type.value})
                assert "Ok" in client.call({"Sign": {"handle": handle, "message": attestation(7), "version": 2}})
            limits = Path(f"/proc/{inside(port)}/limits").read_text()
            print(f"\nready: {enclave.log.splitlines()[-1]}")
    (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def inside(port: int) -> str:
    """Return the process that listens, as the machine knows it."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"/usr/bin/python3" and f"127.0.0.1:{port}".encode() in words:
                return process.name
    raise AssertionError("the daemon is not there")


def test_the_entry_point_is_the_daemon(runtime: Runtime, shared: Shared) -> None:
    command = runtime.command([*ISOLATED, f"/{PROGRAM}", "--image", f"/{IMAGE_TOML}", "--version"], {}, shared.path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout[:15]) == (0, "enclave-signer "), done.stderr
