"""Ways to run the root of an image as an unprivileged user on a read-only file system, without a capability."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from image.interpreter import shared_libraries
from tests.doubles.processes import running

USER = 65532


class Runtime(Protocol):
    """One way."""

    def command(self, arguments: Sequence[str], environment: Mapping[str, str], shared: Path) -> list[str]:
        """Return the command that runs the image's Python with arguments; `shared` is seen at `/run`, and cannot be written."""
        ...


class Unshare:
    """By util-linux alone. The root has no program that gives up capabilities: `setpriv` comes along in `shared`."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root

    def command(self, arguments: Sequence[str], environment: Mapping[str, str], shared: Path) -> list[str]:
        tools = shared / "tools"
        tools.mkdir(exist_ok=True)
        setpriv = Path(shutil.which("setpriv") or "")
        shutil.copy(setpriv, tools)
        libraries = shared_libraries([setpriv])
        for name, path in libraries.items():
            if not name.startswith("/"):
                shutil.copy(path, tools / name)
        (loader,) = (name for name in libraries if name.startswith("/"))
        script = (
            'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && mount -t tmpfs -o size=1m tmpfs "$0/tmp" && '
            'mount --bind "$1" "$0/run" && mount -o remount,ro,bind "$0/run" && mount -t proc proc "$0/proc" && '
            'mount --rbind /dev "$0/dev" && '
            'root=$0 && shift && exec chroot "$root" "$@"'
        )
        drop = [loader, "--library-path", "/run/tools", "/run/tools/setpriv", f"--reuid={USER}", f"--regid={USER}"]
        drop += ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "/usr/bin/python3"]
        clean = ["env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *(f"{k}={v}" for k, v in environment.items())]
        inside = ["sh", "-c", script, str(self._root), str(shared), *drop, *arguments]
        return [*clean, "unshare", "--mount", "--propagation", "private", *inside]


class Bubblewrap:
    """By Debian's bubblewrap, in a user namespace."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root

    def command(self, arguments: Sequence[str], environment: Mapping[str, str], shared: Path) -> list[str]:
        words = ["bwrap", "--unshare-user", "--uid", str(USER), "--gid", str(USER), "--cap-drop", "ALL", "--clearenv"]
        words += ["--ro-bind", str(self._root), "/", "--ro-bind", str(shared), "/run"]
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--die-with-parent"]
        for name, value in environment.items():
            words += ["--setenv", name, value]
        return [*words, "/usr/bin/python3", *arguments]


class Runc:
    """By runc, from a bundle."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._count = 0

    def command(self, arguments: Sequence[str], environment: Mapping[str, str], shared: Path) -> list[str]:
        self._count += 1
        bundle = self._folder / f"bundle{self._count}"
        bundle.mkdir()
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        spec = json.loads((bundle / "config.json").read_text())
        spec["root"] = {"path": str(self._root), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": USER, "gid": USER},
            "args": ["/usr/bin/python3", *arguments],
            "env": [f"{name}={value}" for name, value in environment.items()],
            "capabilities": {},
            "noNewPrivileges": True,
        }
        spec["linux"]["namespaces"] = [
            each for each in spec["linux"]["namespaces"] if each["type"] not in {"network", "cgroup"}
        ]
        spec["mounts"] = [each for each in spec["mounts"] if each["destination"] not in {"/sys/fs/cgroup", "/sys"}]
        spec["mounts"].append(
            {"destination": "/run", "type": "bind", "source": str(shared), "options": ["rbind", "ro"]}
        )
        (bundle / "config.json").write_text(json.dumps(spec))
        name = f"{self._folder.name}-{self._count}"
        return ["runc", "--root", str(self._folder / "state"), "run", "--bundle", str(bundle), name]


class Docker:
    """By Docker, as the image says; `docker` names the command with the address of its daemon."""

    def __init__(self, docker: Sequence[str], image: str) -> None:
        self._docker = docker
        self._image = image

    def command(self, arguments: Sequence[str], environment: Mapping[str, str], shared: Path) -> list[str]:
        words = [*self._docker, "run", "--rm", "--network", "host", "--read-only", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--volume", f"{shared}:/run:ro"]
        for name, value in environment.items():
            words += ["--env", f"{name}={value}"]
        return [*words, "--entrypoint", "/usr/bin/python3", self._image, *arguments]


@contextmanager
def running_docker(folder: Path) -> Iterator[list[str]]:
    """Run a daemon of Docker without networks of its own; give the command that speaks to it."""
    address = f"unix://{folder}/docker.sock"
    words = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    words += [
        "--data-root",
        f"{folder}/data",
        "--exec-root",
        f"{folder}/exec",
        "--pidfile",
        f"{folder}/pid",
        "-H",
        address,
    ]
    with running(words) as daemon:
        daemon.wait_for("API listen on")
        try:
            yield ["docker", "-H", address]
        finally:
            # In order, so that it stops its containers; some of what it has mounted it leaves.
            daemon.stop()
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                if (where := line.split()[1]).startswith(f"{folder}/"):
                    subprocess.run(["umount", "--lazy", where], check=False)
