"""What an image says of a key broker's double."""

from collections.abc import Mapping
from pathlib import Path

from enclave_signer.sealing.kbs_kek import commitment

RESOURCE = "signer/kek/2026"
OLD_RESOURCE = "signer/kek/2025"
KEK = bytes(range(32))
OLD_KEK = bytes(range(100, 132))


def name_of(resource: str = RESOURCE, kek: bytes = KEK) -> str:
    """Return the name in headers of blobs."""
    return f"kbs:{resource}#{commitment(kek)[:16]}"


def kbs_table(url: str, ca_file: Path | None, keys: Mapping[str, bytes] | None = None, tee: str = "sample") -> str:
    """Return the table of an image; `keys` are its KEKs by resource."""
    text = f'[kbs]\nurl = "{url}"\ntee = "{tee}"\n'
    text += f'ca_file = "{ca_file}"\n' if ca_file is not None else "insecure_http = true\n"
    for resource, kek in (keys or {RESOURCE: KEK}).items():
        text += f'[[kbs.keys]]\nresource = "{resource}"\ncommitment = "{commitment(kek)}"\n'
    return text


def kbs_image(
    url: str,
    ca_file: Path | None,
    keys: Mapping[str, bytes] | None = None,
    tee: str = "sample",
    development: bool = True,
) -> str:
    """Return the whole configuration of an image that seals by the broker."""
    first = "development = true\n" if development else ""
    return f'{first}sealers = ["kbs"]\n{kbs_table(url, ca_file, keys, tee)}'
