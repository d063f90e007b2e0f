"""Builds the images of the Dockerfile with buildah, without a registry and without a daemon.

- Everything that goes into an image is put into a folder of its own first: nothing else of the checkout can get in.
- The base is what `--base` names. Without it, Debian's packages are put together by mmdebstrap, once, and kept.
- Two builds of the measured image from the same files and the same base have one digest, by whichever version of buildah.

usage: python3 image/build.py --image-toml FILE
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from image.layout import Built, read_layout, with_layer
from image.root import HOST, TOP, CannotMake, authorities, check_image_toml, fetch_wheels

#: Debian 12's, which is in the base, and the processor of confidential machines.
PYTHON, MACHINE = "3.11", "x86_64"
#: Names of the images: only the measured one is called `enclave-signer`.
PRODUCTION, DEVELOPMENT, HOST_IMAGE = "enclave-signer", "enclave-signer-development", "enclave-host"
TARGETS = {"production": PRODUCTION, "development": DEVELOPMENT, "host": HOST_IMAGE}
#: The packages of the base: Python with pip, certificates, and what those need.
BASE_PACKAGES = "python3,python3-pip,ca-certificates"
BASE_TAG = "localhost/enclave-signer-base:bookworm"
#: Files of the checkout that images are made of.
SOURCES = (
    "Dockerfile",
    "LICENSE",
    "requirements.txt",
    "requirements-enclave.txt",
    "image",
    "enclave_signer",
    "host_backend",
)


class Buildah:
    """buildah with images and containers in a folder, so that it leaves nothing behind elsewhere.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._environment = _storage(folder, "overlay")
            self.run("images")
        except CannotMake:
            # Copies of whole trees, twice as slow; it works everywhere.
            self._environment = _storage(folder, "vfs")

    def run(self, *words: str) -> str:
        """Return what a command of buildah prints.

        Raises:
            CannotMake: It failed; the text is the end of what it said.
        """
        return _run("buildah", *words, environment=self._environment)

    def base(self, archive: Path) -> str:
        """Return the name of an image made of an archive."""
        container = self.run("from", "scratch").strip()
        self.run("add", container, str(archive), "/")
        self.run("commit", "--rm", "--timestamp", "0", container, BASE_TAG)
        return BASE_TAG

    def build(self, context: Path, base: str, target: str, *more: str) -> None:
        """Build a target of the Dockerfile in a context."""
        self.run(
            "build",
            "--format=oci",
            "--timestamp=0",
            "--identity-label=false",
            "--network=none",
            f"--build-arg=BASE={base}",
            f"--target={target}",
            *more,
            str(context),
        )


def _storage(folder: Path, driver: str) -> dict[str, str]:
    """Return the environment of buildah with its storage in a folder, kept by a driver."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / f"{driver}.conf"
    where = f'graphroot = "{folder}/{driver}"\nrunroot = "{folder}/run-{driver}"\n'
    storage.write_text(f'[storage]\ndriver = "{driver}"\n{where}')
    names = {"CONTAINERS_STORAGE_CONF": str(storage), "STORAGE_DRIVER": driver, "BUILDAH_ISOLATION": "chroot"}
    return {**os.environ, **names}


def put_together(context: Path, image_toml: Path | None) -> None:
    """Put what images are made of into a folder."""
    for name in SOURCES:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, context / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source, context / name)
    wheels = TOP / "build" / "wheels"
    requirements = HOST if image_toml is None else TOP / "requirements-enclave.txt"
    folder = fetch_wheels(wheels, PYTHON, MACHINE, requirements)
    shutil.copytree(folder, context / "build" / "wheels" / folder.name)
    if image_toml is not None:
        shutil.copyfile(image_toml, context / "build" / "image.toml")
        for path in authorities(image_toml):
            shutil.copyfile(path, context / "build" / path.name)


def make_base(archive: Path) -> Path:
    """Return the archive of the base; it is made where it is not there yet, with the network.

    Raises:
        CannotMake: mmdebstrap is not there, or failed.
    """
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        made = archive.with_name("unfinished.tar")
        made.unlink(missing_ok=True)
        words = ("--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(made))
        _run("mmdebstrap", *words, environment={**os.environ, "SOURCE_DATE_EPOCH": "0"})
        made.rename(archive)
    with archive.open("rb") as file:
        sys.stdout.write(f"base  sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}  {archive}\n")
    return archive


def build_image(target: str, image_toml: Path | None, out: Path, *, base: str | None, work: Path, name: str) -> Built:
    """Build an image into a folder: in the layout of OCI in `oci`, for Docker in `image.tar`, and its list in `sbom.json`.

    Args:
        target: One of `TARGETS`.
        image_toml: What the image says of itself; None for the host.
        out: The folder; it is replaced.
        base: The name of the base; None: made here.
        work: Where buildah keeps its images, and the base is kept.
        name: What the image is called.
    """
    _check(target, image_toml, name)
    buildah = Buildah(work / "buildah")
    base = base or buildah.base(make_base(work / "base.tar"))
    tag = f"localhost/{name}:latest"
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        put_together(context, image_toml)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        buildah.build(context, base, target, f"--tag={tag}")
        if target == "production":
            buildah.build(context, base, "measured", f"--output=type=local,dest={out}")
    buildah.run("push", "--format=oci", tag, f"oci:{out}/oci:latest")
    if target == "production":
        layer = out / "layer.tar.gz"
        with_layer(out / "oci", layer)
        layer.unlink()
        tag = _pulled(buildah, out / "oci")
    buildah.run("push", tag, f"docker-archive:{out}/image.tar:{name}:latest")
    return read_layout(out / "oci")


def _pulled(buildah: Buildah, layout: Path) -> str:
    """Take a layout into buildah's store; return the image's id there."""
    with tempfile.TemporaryDirectory() as folder:
        # Of a folder the path becomes the image's name, and not every path is one.
        archive = Path(folder, "oci.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(layout, arcname=".")
        return buildah.run("pull", "--quiet", f"oci-archive:{archive}").strip()


def build_by_docker(target: str, image_toml: Path | None, *, base: str | None, work: Path, name: str) -> str:
    """Build an image by Docker, into its own store; return its id there, which differs from build to build.

    Args:
        target: One of `TARGETS`.
        image_toml: What the image says of itself; None for the host.
        base: The name of the base; None: made here.
        work: Where the base is kept.
        name: What the image is called.
    """
    _check(target, image_toml, name)
    # Its old builder makes all targets, also those with another configuration.
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    if base is None:
        base = BASE_TAG
        _run("docker", "import", str(make_base(work / "base.tar")), base, environment=environment)
    with tempfile.TemporaryDirectory() as folder:
        put_together(Path(folder), image_toml)
        words = ("--network=none", f"--build-arg=BASE={base}", f"--target={target}", f"--tag={name}", folder)
        _run("docker", "build", *words, environment=environment)
    return _run("docker", "image", "inspect", "--format={{.Id}}", name, environment=environment).strip()


def _check(target: str, image_toml: Path | None, name: str) -> None:
    if image_toml is not None:
        check_image_toml(image_toml, development=target == "development")
    if target != "production" and name == PRODUCTION:
        raise CannotMake(f"{PRODUCTION} is the name of the measured image: a {target} image has another one")


def _run(*words: str, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        raise CannotMake(f"{words[0]} is not installed") from None
    if done.returncode:
        raise CannotMake(f"{words[0]} {words[1]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Build an image and print its digest; return the exit code."""
    parser = argparse.ArgumentParser(description="Build an image.")
    parser.add_argument("--image-toml", type=Path, metavar="FILE", help="what the image of an enclave says of itself")
    parser.add_argument("--target", choices=TARGETS, default="production", help="which (default: %(default)s)")
    parser.add_argument("--name", help="what it is called (default: by its target)")
    parser.add_argument("--docker", action="store_true", help="by Docker, for a look: its digest is another one")
    parser.add_argument(
        "--base", metavar="IMAGE", help="the base of the stage that builds (default: made by mmdebstrap)"
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", default=TOP / "build", help="where base and images are kept"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to put it (default: build/ and its name)")
    given = parser.parse_args(arguments)
    if given.image_toml is None and given.target != "host":
        parser.error("name what the image says of itself: IMAGE_TOML=FILE; there is no default")
    name = given.name or TARGETS[given.target]
    out = given.out or TOP / "build" / name
    try:
        if given.docker:
            made = build_by_docker(
                given.target, given.image_toml, base=given.base, work=given.work.absolute(), name=name
            )
            sys.stdout.write(f"image {made}  {name}, in Docker: not the measured image\n")
            return 0
        built = build_image(
            given.target, given.image_toml, out.absolute(), base=given.base, work=given.work.absolute(), name=name
        )
    except CannotMake as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    size = sum(layer.stat().st_size for layer in built.layers)
    sys.stdout.write(f"image {built.digest}  {size / 1e6:.1f} MB compressed  {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
