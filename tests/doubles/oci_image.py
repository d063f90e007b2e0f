"""A small image as a folder (OCI layout), and its files: no registry is needed."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
#: Compressed, as skopeo would compress it otherwise, to other bytes.
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PACKET = "org.opencontainers.image.enc.keys.provider."


def make_image(folder: Path, files: dict[str, bytes]) -> None:
    """Make an image with the tag `v1` and one layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    layer = archive.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    (folder / "blobs" / "sha256").mkdir(parents=True)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(folder, "application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [_blob(folder, LAYER, gzip.compress(layer, mtime=0))],
    }
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    _point_to(folder, manifest)


def _blob(folder: Path, media_type: str, data: bytes) -> dict[str, Any]:
    name = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


def _point_to(folder: Path, manifest: dict[str, Any]) -> None:
    entry = _blob(folder, MANIFEST, json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def manifest_of(folder: Path) -> dict[str, Any]:
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    manifest: dict[str, Any] = json.loads(
        (folder / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_text()
    )
    return manifest


def layers_of(folder: Path) -> list[tuple[str, str]]:
    """Return media type and digest of each layer."""
    return [(layer["mediaType"], layer["digest"]) for layer in manifest_of(folder)["layers"]]


def packet_of(folder: Path, provider: str) -> str:
    """Return the packet of the one layer, in base64 as it stands there."""
    packet: str = manifest_of(folder)["layers"][0]["annotations"][PACKET + provider]
    return packet


def set_packet(folder: Path, provider: str, packet: str) -> None:
    manifest = manifest_of(folder)
    manifest["layers"][0]["annotations"][PACKET + provider] = packet
    _point_to(folder, manifest)
