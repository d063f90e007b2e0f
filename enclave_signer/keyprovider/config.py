"""The keyprovider's configuration: a TOML file of its own. Nothing in the signing daemon's configuration turns it on."""

from dataclasses import dataclass
from pathlib import Path

from enclave_signer.addresses import Address, UnixAddress, parse_listen
from enclave_signer.errors import ConfigError
from enclave_signer.keyprovider.packets import MAX_KEY_ID_CHARS
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.kbs_config import KbsKey, is_commitment, key_of_uri
from enclave_signer.toml_file import parse_toml, read_toml
from enclave_signer.toml_table import TomlTable

#: The name that Confidential Containers has clients use.
DEFAULT_PROVIDER = "attestation-agent"


@dataclass(frozen=True, slots=True)
class KekConfig:
    """A key that may be used.

    Attributes:
        key_id: As packets and parameters name it.
        path: The sealed file; None: the key is not in one.
        resource: The resource of the image's key broker; None: the key is none.
        commitment: What the key must be; None: any key that the file has.
        wrap: Whether layers may be wrapped under it.
        make: Whether a new key is made at the start when there is no file.
    """

    key_id: str
    path: Path | None
    resource: KbsKey | None
    commitment: str | None
    wrap: bool
    make: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyproviderConfig:
    """All of it.

    Attributes:
        image: The image's configuration, whose sealers open the keys.
        credentials: Of the choices that the image leaves, the ones made here.
        listeners: Unix sockets, and ports that only this machine reaches.
        provider: The name under which clients have this provider in their configuration.
        keks: The allow-list.
    """

    image: Path
    credentials: Credentials
    listeners: tuple[Address | UnixAddress, ...]
    provider: str
    keks: tuple[KekConfig, ...]


def read_config(path: Path) -> KeyproviderConfig:
    """Return what a file says.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong; the text names file and dotted path.
    """
    return parse_config(read_toml(path), str(path))


def parse_config(text: str, file: str) -> KeyproviderConfig:
    """Return what the text of a configuration says.

    Raises:
        ConfigError: Something in it is wrong; the text names the file, as given, and the dotted path.
    """
    top = parse_toml(text, file)
    config = KeyproviderConfig(
        image=Path(top.text("image")),
        credentials=Credentials(_optional(top, "wip_provider_path"), _optional(top, "encryption_key_path")),
        listeners=tuple(_listener(top, name) for name in top.texts("listeners")),
        provider=_optional(top, "provider") or DEFAULT_PROVIDER,
        keks=_keks(top),
    )
    top.end()
    return config


def _optional(top: TomlTable, name: str) -> str | None:
    return top.text(name) if top.has(name) else None


def _listener(top: TomlTable, name: str) -> Address | UnixAddress:
    try:
        address = parse_listen(name)
    except ConfigError:
        raise top.refused("listeners", f"{name!r} must be unix:PATH or 127.0.0.1:PORT") from None
    if not address.is_loopback:
        raise top.refused("listeners", f"{name!r} can be reached by other machines, and nothing is encrypted there")
    return address


def _keks(top: TomlTable) -> tuple[KekConfig, ...]:
    keks = tuple(_kek(table) for table in top.tables("keks"))
    if not keks:
        raise top.refused("keks", "must name at least one key")
    for what, values in (
        ("id", [kek.key_id for kek in keks]),
        ("file", [kek.path for kek in keks if kek.path is not None]),
    ):
        if len({*values}) != len(values):
            raise top.refused("keks", f"two have one {what}")
    return keks


def _kek(table: TomlTable) -> KekConfig:
    key_id = table.text("id")
    if len(key_id) > MAX_KEY_ID_CHARS:
        raise table.refused("id", f"must have at most {MAX_KEY_ID_CHARS} characters")
    path = Path(table.text("file")) if table.has("file") else None
    commitment = _optional(table, "commitment")
    resource = key_of_uri(key_id, commitment) if path is None and commitment is not None else None
    if path is None and resource is None:
        raise table.refused(
            "id",
            "needs file, or commitment for a resource of the image's key broker: that has 64 digits of 0-9 and a-f, and the id "
            "the form kbs:///REPOSITORY/TYPE/TAG",
        )
    wrap, make = table.flag("wrap", default=False), table.flag("make", default=False)
    if make and path is None:
        raise table.refused("make", "the key broker makes its keys")
    if commitment is not None and not is_commitment(commitment):
        raise table.refused("commitment", f"{commitment!r} must have 64 digits of 0-9 and a-f")
    if make and commitment is not None:
        raise table.refused("make", "a commitment names a key that is stored already")
    if wrap and commitment is None:
        raise table.refused(
            "wrap",
            "needs the commitment that store-kek printed: another program with the same sealer could have put a key of its own "
            "into the file",
        )
    table.end()
    return KekConfig(key_id, path, resource, commitment, wrap, make)
