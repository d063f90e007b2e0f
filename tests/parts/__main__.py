"""`make parts`: tests that need more than Python and pip, one row a part: ran, failed, or not installed.

With `--all` it is an error when a part could not run: a test that did not run has shown nothing.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Part:
    """Tests, and what they need.

    Attributes:
        name: The module of its tests, without `part_`.
        missing: Returns the parts that are not there; None when it can run.
        only: Which of its tests, by a word in their names; all where it is empty.
    """

    name: str
    missing: Callable[[], str | None]
    only: str = ""

    @property
    def title(self) -> str:
        """What its row is called."""
        return f"{self.name}, {self.only}" if self.only else self.name


def _mounts() -> str | None:
    if os.geteuid() != 0:
        return "root, to mount"
    return None if which("mount") else "mount"


def _users() -> str | None:
    return None if os.geteuid() == 0 else "root, to be other users"


def _local_users() -> str | None:
    if missing := _users() or _programs("unshare", "setpriv")():
        return missing
    mounted = any(line.split()[2] == "cgroup2" for line in Path("/proc/mounts").read_text().splitlines())
    return None if mounted else "control groups of version 2"


def _programs(*names: str) -> Callable[[], str | None]:
    return lambda: next((name for name in names if which(name) is None), None)


def _image(*runtime: str) -> Callable[[], str | None]:
    """Return the parts missing to build the image, and to run it."""

    def missing() -> str | None:
        if os.geteuid() != 0:
            return "root, to build without a daemon"
        base = () if "IMAGE_BASE" in os.environ else ("mmdebstrap",)
        return _programs("buildah", *base, *runtime)()

    return missing


def _buildkit() -> str | None:
    """Return the parts missing to build by Docker: its old builder makes all targets, also those with another configuration."""
    if missing := _image("dockerd", "docker")():
        return missing
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False).stdout
    # Until version 23 it came with the command.
    old = re.search(r"version (1\d|2[0-2])\.", version) is not None
    plugin = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    return None if old or plugin.returncode == 0 else "docker's buildx"


def _skopeo() -> str | None:
    """Return the parts missing to fetch two versions of skopeo, and to run them."""
    if os.geteuid() != 0:
        return "root, to unpack another Debian"
    library = next((name for name in ("gpgme", "devmapper") if find_library(name) is None), None)
    return _programs("mmdebstrap")() or (library and f"lib{library}")


def _venv() -> str | None:
    """PyTezos needs an environment of its own: it wants other versions than ours."""
    return None if find_spec("ensurepip") else "ensurepip, to make an environment"


PARTS = (
    Part("mounts", _mounts),
    Part("users", _users),
    Part("proxies", _programs("nginx", "haproxy")),
    Part("java", _programs("java", "javac")),
    Part("metrics", _programs("promtool")),
    Part("firestore", _programs("node", "npm")),
    Part("image", _image()),
    Part("image_versions", _image("mmdebstrap", "unshare", "chroot")),
    Part("image_runs", _image("unshare", "setpriv"), "unshare"),
    Part("image_runs", _image("bwrap"), "bwrap"),
    Part("image_runs", _image("runc"), "runc"),
    Part("image_runs", _image("dockerd", "docker"), "docker"),
    Part("image_docker", _buildkit),
    Part("browser", _programs("chromium")),
    Part("compose", _image("dockerd", "docker", "docker-compose")),
    Part("alerts", _programs("promtool", "prometheus")),
    Part("systemd", _programs("systemd-analyze", "strace")),
    Part("go", _programs("go")),
    Part("commands", _programs("gcloud", "skopeo")),
    Part("taquito", _programs("node", "npm")),
    Part("octez_js", _programs("node", "npm")),
    Part("pytezos", _venv),
    Part("skopeo", _skopeo),
    Part("local_use", _local_users),
    Part("other_languages", _programs("node"), "javascript"),
    Part("other_languages", _programs("go"), "golang"),
)


def run(part: Part) -> str:
    """Run the tests of a part, and return what became of it."""
    if missing := part.missing():
        return f"not run: {missing} is missing"
    tests = HERE / f"part_{part.name}.py"
    words = ["-q", *(["-k", part.only] if part.only else []), str(tests)]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=HERE.parents[1], check=False)
    return "ran" if done.returncode == 0 else f"FAILED (pytest exits with {done.returncode})"


def main(arguments: list[str]) -> int:
    outcomes = {part.title: run(part) for part in PARTS}
    width = max(map(len, outcomes))
    for name, outcome in outcomes.items():
        print(f"{name:<{width}}  {outcome}")
    if any(outcome.startswith("FAILED") for outcome in outcomes.values()):
        return 1
    return int("--all" in arguments and any(outcome != "ran" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
