"""Images in the layout of OCI: a folder of blobs by their hashes, and an index that names the manifest.

Source: https://github.com/opencontainers/image-spec, image-layout.md, manifest.md and config.md.
"""

import gzip
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of a configuration, what the Dockerfile says. All else a builder writes in its own way, and differently with each version.
_SAID = ("User", "ExposedPorts", "Env", "Entrypoint", "Labels")
_CREATED = "1970-01-01T00:00:00Z"
_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Built:
    """An image.

    Attributes:
        digest: Of its manifest, as a registry and an attestation name it.
        layers: The files of its layers, the lowest first.
    """

    digest: str
    layers: tuple[Path, ...]


def read_layout(layout: Path) -> Built:
    """Return the image that lies in a folder."""
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return Built(digest, tuple(_blob(layout, layer["digest"]) for layer in _read(layout, digest)["layers"]))


def with_layer(layout: Path, layer: Path) -> None:
    """Replace the layers of an image by this one, and keep of its configuration only what the Dockerfile says.

    Args:
        layout: The folder of the image.
        layer: An archive, compressed by gzip.
    """
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    built = _read(layout, _read(layout, digest)["config"]["digest"])
    data = layer.read_bytes()
    config = {
        "created": _CREATED,
        "architecture": built["architecture"],
        "os": built["os"],
        "config": {name: built["config"][name] for name in _SAID if name in built["config"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(data))]},
        "history": [{"created": _CREATED, "created_by": "image/layer.py"}],
    }
    shutil.rmtree(layout / "blobs")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _put(layout, _json(config), "config.v1+json"),
        "layers": [_put(layout, data, "layer.v1.tar+gzip")],
    }
    named = _put(layout, _json(manifest), "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))


def _put(layout: Path, data: bytes, kind: str) -> dict[str, Any]:
    """Add a blob, and return what names it."""
    digest = _digest(data)
    file = _blob(layout, digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": digest, "size": len(data)}


def _read(layout: Path, digest: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_blob(layout, digest).read_bytes())
    return read


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
