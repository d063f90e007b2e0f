"""Images built by buildah, each once for the same sources; unpacked, to be run in whatever way."""

import gzip
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from image.build import SOURCES, build_image
from image.layout import Built, read_layout
from tests.doubles.google.cloud import IMAGE
from tests.doubles.processes import ROOT

WORK = ROOT / "build"
#: Where images are kept from one part to the next.
KEPT = WORK / "parts"


def image(target: str, text: str | None = IMAGE) -> Path:
    """Return the folder with an image: `oci`, `image.tar`, `sbom.json`."""
    sources = _hash(text or "")
    out = KEPT / target
    stamp = KEPT / f"{target}.sources"
    if not stamp.exists() or stamp.read_text() != sources:
        build(target, text, out)
        stamp.write_text(sources)
    return out


def build(target: str, text: str | None, out: Path) -> Built:
    KEPT.mkdir(parents=True, exist_ok=True)
    toml = None
    if text is not None:
        toml = KEPT / f"{target}.toml"
        toml.write_text(text)
    return build_image(target, toml, out, base=os.environ.get("IMAGE_BASE"), work=WORK, name=f"{target}-of-parts")


def _hash(text: str) -> str:
    hashed = hashlib.sha256(text.encode())
    for name in SOURCES:
        files = sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]
        for path in files:
            hashed.update(str(path).encode() + path.read_bytes())
    return hashed.hexdigest()


def unpacked(target: str, folder: Path, text: str | None = IMAGE) -> Path:
    """Return the root of an image, unpacked into a folder that is made."""
    shutil.rmtree(folder, ignore_errors=True)
    for layer in read_layout(image(target, text) / "oci").layers:
        with tarfile.open(layer) as tar:
            # The first releases of Python 3.11 have no filters.
            tar.extraction_filter = getattr(tarfile, "tar_filter", None)
            tar.extractall(folder)
    return folder


def layer_digest(layer: Path) -> str:
    """Return the hash of a layer before it was compressed, its `diff_id`."""
    with gzip.open(layer) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
