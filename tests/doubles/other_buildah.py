"""Another version of buildah: that of Debian 13, in a root of its own."""

import subprocess
from pathlib import Path

#: Without a virtual network buildah starts nothing there.
PACKAGES = "buildah,netavark,ca-certificates"
#: It would raise limits of processes above what a container may.
CONFIGURATION = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
#: Its root has to be a mount of its own, and it sees the folders that `image/build.py` names.
SCRIPT = """#!/bin/sh
exec unshare --mount --propagation unchanged sh -c '
  root=$0
  mount --bind "$root" "$root" || exit 1
  for folder in /proc /dev /sys /tmp "{work}"; do
    mkdir -p "$root$folder" && mount --rbind "$folder" "$root$folder" || exit 1
  done
  exec chroot "$root" /usr/bin/buildah "$@"' "{root}" "$@"
"""


def other_buildah(root: Path, work: Path) -> Path:
    """Return a folder in which `buildah` is another version; its root is made where it is not there yet, by the network.

    Args:
        root: Where it is kept, outside of `work` and of `/tmp`: both are seen in it.
        work: What it has to see, beside `/tmp`.
    """
    if not (root / "usr/bin/buildah").exists():
        root.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", str(root)]
        subprocess.run(command, check=True, capture_output=True)
        (root / "etc/containers/containers.conf").write_text(CONFIGURATION)
    programs = work / "programs"
    programs.mkdir(exist_ok=True)
    script = programs / "buildah"
    script.write_text(SCRIPT.format(root=root, work=work))
    script.chmod(0o755)
    return programs
