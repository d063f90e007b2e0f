"""The table `vault_transit` of an image: the keys of Vault or OpenBao, and how the image logs in.

- A key is named `vault_transit:SERVER/MOUNT/KEY`, here and in the headers of blobs. SERVER is the image's name for the
  server: keys of the same name on two servers have different names. A namespace precedes the mount: `team/transit`.
- Requests go to one address, and only to a server with a certificate of the authority in `ca_file`.
- Secrets are in files, never in this table.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.allow_list import AllowList
from enclave_signer.toml_table import TomlTable

VAULT_TRANSIT = "vault_transit"
LOGIN_METHODS = ("jwt", "approle", "token")
KEY_FORM = f"{VAULT_TRANSIT}:SERVER/MOUNT/KEY"
#: One name within a path; neither `.` nor `..` is one.
_SEGMENT = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?"
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,7}}")
_SERVER = r"[A-Za-z0-9.:\[\]-]{1,255}"
_KEY = re.compile(rf"{VAULT_TRANSIT}:({_SERVER})/({_PATH.pattern})/({_SEGMENT})")
_PREFIX = re.compile(rf"{VAULT_TRANSIT}:{_SERVER}/(?:{_PATH.pattern}/)?")


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token of the server that another program keeps valid.

    Attributes:
        file: Its file, read for each call.
    """

    file: Path


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """A login by a role's id and a secret.

    Attributes:
        path: The path of the method, such as `auth/approle`.
        role_id: The id of the role; not a secret.
        secret_id_file: The file of the secret, read for each login.
    """

    path: str
    role_id: str
    secret_id_file: Path


@dataclass(frozen=True, slots=True)
class JwtLogin:
    """A login by a signed token, of Confidential Space's launcher or from a file.

    Attributes:
        path: The path of the method, such as `auth/jwt`.
        role: The role; None for the default of the method.
        audience: The audience of the launcher's token; None for a token from a file.
        file: The file of the token, read for each login; None for the launcher's token.
    """

    path: str
    role: str | None
    audience: str | None
    file: Path | None


@dataclass(frozen=True, slots=True)
class TransitKey:
    """The place of a key on the server.

    Attributes:
        name: Its name in the headers of blobs.
        mount: The path of the secrets engine, with its namespace.
        key: Its name in the engine.
    """

    name: str
    mount: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """How keys are sealed by Vault or OpenBao.

    Attributes:
        address: `https://HOST:PORT`.
        ca_file: The only certificate authority for the server; None for plain HTTP on this machine.
        server: The name of the server in the names of keys.
        login: The way to a token of the server.
        allow_list: Keys.
    """

    address: str
    ca_file: Path | None
    server: str
    login: TokenFile | AppRoleLogin | JwtLogin
    allow_list: AllowList

    @property
    def seal_keys(self) -> tuple[str, ...]:
        """Names of the keys that seal."""
        return self.allow_list.seal_keys

    @property
    def audience(self) -> str | None:
        """The audience of the launcher's token that logs in; None for another login."""
        return self.login.audience if isinstance(self.login, JwtLogin) else None

    def is_source(self, name: str) -> bool:
        """Whether blobs may name such a key, or keys that begin so up to a `/`."""
        return _KEY.fullmatch(name) is not None or _PREFIX.fullmatch(name) is not None

    def opens(self, name: str) -> bool:
        """Whether the image lets it open blobs under this key, or under one that begins so, up to a `/`."""
        return self.allow_list.opens(name)


def transit_key(name: str) -> TransitKey | None:
    """Return the place of a key by its whole name; None if that is not a valid name."""
    match = _KEY.fullmatch(name)
    return None if match is None else TransitKey(name, match[2], match[3])


def read_vault_transit(table: TomlTable, *, development: bool) -> VaultConfig:
    """Return what the table says.

    Args:
        table: The table.
        development: Whether plain HTTP is allowed on this machine.

    Raises:
        ConfigError: Something in it is wrong.
    """
    address, host, encrypted = _address(table, development=development)
    if not encrypted and table.has("ca_file"):
        raise table.refused("ca_file", "the address is plain http: leave it out")
    ca_file = Path(table.text("ca_file")) if encrypted else None
    server = table.text("server") if table.has("server") else host
    if not re.fullmatch(_SERVER, server):
        raise table.refused("server", f"{server!r} must be letters, digits and any of . : - [ ]")
    begin = f"{VAULT_TRANSIT}:{server}/"
    seal_keys = table.texts("seal_keys", required=True)
    for name in seal_keys:
        if not name.startswith(begin) or not _KEY.fullmatch(name):
            raise table.refused("seal_keys", f"{name!r} must have the form {begin}MOUNT/KEY")
    open_keys = table.texts("open_keys")
    for name in open_keys:
        if not name.startswith(begin) or not (_KEY.fullmatch(name) or _PREFIX.fullmatch(name)):
            raise table.refused(
                "open_keys", f"{name!r} must have the form {begin}MOUNT/KEY, or begin so and end at a /"
            )
    login = _login(table.table("login"))
    table.end()
    allow_list = AllowList(identity_providers=(), seal_keys=seal_keys, open_keys=open_keys)
    return VaultConfig(address=address, ca_file=ca_file, server=server, login=login, allow_list=allow_list)


def _address(table: TomlTable, *, development: bool) -> tuple[str, str, bool]:
    """Return the address, its host and port, and whether it is encrypted."""
    address = table.text("address")
    try:
        parts = urlsplit(address)
        named = parts.hostname, parts.port
    except ValueError:
        named = None, None
    if named[0] is None or parts.netloc.rpartition("@")[1] or address != f"{parts.scheme}://{parts.netloc}":
        raise table.refused("address", f"{address!r} must have the form https://HOST:PORT, without a path")
    if parts.scheme == "https":
        return address, parts.netloc, True
    if parts.scheme != "http" or not (development and _is_loopback(named[0])):
        raise table.refused("address", "must begin with https; http is for 127.0.0.1 where development is true")
    return address, parts.netloc, False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _login(table: TomlTable) -> TokenFile | AppRoleLogin | JwtLogin:
    method = table.text("method")
    if method not in LOGIN_METHODS:
        raise table.refused("method", f"{method!r} is not known, known are {', '.join(LOGIN_METHODS)}")
    login: TokenFile | AppRoleLogin | JwtLogin
    if method == "token":
        login = TokenFile(Path(table.text("token_file")))
    else:
        path = table.text("path") if table.has("path") else f"auth/{method}"
        if not _PATH.fullmatch(path):
            raise table.refused("path", f"{path!r} must be a path such as auth/{method}")
        if method == "approle":
            login = AppRoleLogin(path, table.text("role_id"), Path(table.text("secret_id_file")))
        else:
            login = _jwt_login(table, path)
    table.end()
    return login


def _jwt_login(table: TomlTable, path: str) -> JwtLogin:
    role = table.text("role") if table.has("role") else None
    if table.has("audience") == table.has("token_file"):
        raise table.refused("audience", "name one of the two: audience for the launcher's token, or token_file")
    if table.has("token_file"):
        return JwtLogin(path, role, None, Path(table.text("token_file")))
    audience = table.text("audience")
    if gcp_names.is_exchanged(audience):
        raise table.refused("audience", "is one that Google takes for this image's identity: name one of your own")
    return JwtLogin(path, role, audience, None)
