"""What an image says of keys that a key broker (KBS) releases: the table `kbs`."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from enclave_signer.sealing.reseal_rules import covers
from enclave_signer.toml_table import TomlTable

KBS = "kbs"
#: The machine that is none: its evidence is not signed, so anyone can make it.
SAMPLE = "sample"
#: Kinds of confidential machines whose evidence the attestation agent makes. Source: Trustee 0.21.
TEES = ("snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "sgx", "cca", "csv", SAMPLE)
#: Keys of one image: the one that seals, and those of earlier years.
MAX_KEYS = 8
#: Characters of a resource's path, so that a name stays far below what a blob's header takes.
MAX_RESOURCE_CHARS = 200
#: Hexadecimal digits of the commitment in a key's name: enough to tell keys of one path apart.
ID_DIGITS = 16
#: How a resource of the broker that is configured is named elsewhere. Source: Trustee, resource URIs.
_URI = "kbs:///"
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_RESOURCE = re.compile(rf"{_SEGMENT}/{_SEGMENT}/{_SEGMENT}")
_NAME = re.compile(rf"kbs:{_RESOURCE.pattern}#[0-9a-f]{{{ID_DIGITS}}}")
_PREFIX = re.compile(rf"kbs:({_SEGMENT}/){{1,2}}")
_COMMITMENT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KbsKey:
    """A key-encryption key (KEK) that the broker keeps.

    Attributes:
        resource: Where, as `REPOSITORY/TYPE/TAG`.
        commitment: What the key must be: SHA-256 in hexadecimal, as `kbs_kek.commitment` computes it.
    """

    resource: str
    commitment: str

    @property
    def name(self) -> str:
        """The name in headers of blobs."""
        return f"{KBS}:{self.resource}#{self.commitment[:ID_DIGITS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KbsConfig:
    """How keys are sealed under keys of a key broker.

    Attributes:
        url: Of the broker: scheme, host and port.
        ca_file: The only authorities that may certify it; None where the connection is not encrypted.
        tee: Of `TEES`.
        keys: The first one seals, all of them open.
    """

    url: str
    ca_file: Path | None
    tee: str
    keys: tuple[KbsKey, ...]

    @property
    def seal_keys(self) -> tuple[str, ...]:
        """Names of the keys that seal: one."""
        return (self.keys[0].name,)

    def is_source(self, name: str) -> bool:
        """Whether blobs may name such a key, or keys that begin so up to a `/`."""
        return _NAME.fullmatch(name) is not None or _PREFIX.fullmatch(name) is not None

    def opens(self, name: str) -> bool:
        """Whether the image has this key, or one that begins so, up to a `/`."""
        return any(covers(name, key.name) for key in self.keys)

    def key_named(self, name: str) -> KbsKey | None:
        """Return the key of that name; None if the image has none."""
        return next((key for key in self.keys if key.name == name), None)


def key_of_uri(uri: str, commitment: str) -> KbsKey | None:
    """Return the key of a resource named `kbs:///REPOSITORY/TYPE/TAG`, with its commitment; None if either is none."""
    resource = uri.removeprefix(_URI)
    if not uri.startswith(_URI) or not _is_resource(resource) or not is_commitment(commitment):
        return None
    return KbsKey(resource, commitment)


def is_commitment(text: str) -> bool:
    """Return whether a text has the form of a commitment to a key."""
    return _COMMITMENT.fullmatch(text) is not None


def _is_resource(text: str) -> bool:
    return _RESOURCE.fullmatch(text) is not None and len(text) <= MAX_RESOURCE_CHARS


def read_kbs(table: TomlTable, *, development: bool) -> KbsConfig:
    """Return what the table says.

    Args:
        table: The table `kbs`.
        development: Whether the image is for development.

    Raises:
        ConfigError: Something in it is wrong.
    """
    url, ca_file = _broker(table, development=development)
    tee = table.text("tee")
    if tee not in TEES:
        raise table.refused("tee", f"{tee!r} is not known, known are {', '.join(TEES)}")
    if tee == SAMPLE and not development:
        raise table.refused("tee", "sample proves nothing, anyone can say it: only where development is true")
    keys = tuple(_key(each) for each in table.tables("keys"))
    if not 0 < len(keys) <= MAX_KEYS:
        raise table.refused("keys", f"must have 1 to {MAX_KEYS} tables")
    if len({key.name for key in keys}) != len(keys):
        raise table.refused("keys", "names a key twice")
    table.end()
    return KbsConfig(url=url, ca_file=ca_file, tee=tee, keys=keys)


def _broker(table: TomlTable, *, development: bool) -> tuple[str, Path | None]:
    url = table.text("url")
    ca_file = Path(table.text("ca_file")) if table.has("ca_file") else None
    insecure = table.flag("insecure_http", default=False)
    if not _is_base(url):
        raise table.refused("url", f"{url!r} must have the form https://HOST or https://HOST:PORT")
    if insecure and not development:
        raise table.refused("insecure_http", "is only allowed where development is true")
    if url.startswith("http:") and not insecure:
        raise table.refused("url", "must begin with https://: without TLS others could answer in place of the broker")
    if url.startswith("https:") == (ca_file is None):
        raise table.refused("ca_file", "is missing" if ca_file is None else "means nothing for a url without TLS")
    return url.rstrip("/"), ca_file


def _is_base(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.username or parts.password or parts.query or parts.fragment) and "@" not in url
    return bare and parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0 and parts.path in {"", "/"}


def _key(table: TomlTable) -> KbsKey:
    resource, commitment = table.text("resource"), table.text("commitment")
    if not _is_resource(resource):
        raise table.refused("resource", f"{resource!r} must have the form REPOSITORY/TYPE/TAG")
    if not is_commitment(commitment):
        raise table.refused("commitment", f"{commitment!r} must have 64 digits of 0-9 and a-f")
    table.end()
    return KbsKey(resource, commitment)
