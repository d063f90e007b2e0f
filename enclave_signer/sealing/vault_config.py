"""What an image says of keys that Vault or OpenBao seals: the table `vault_transit`.

- A key is named `vault_transit:SERVER/MOUNT/KEY`, in headers of blobs as here. SERVER is what this image calls the server,
  so that two servers' keys of the same name have different names. A namespace stands before the mount: `team/transit`.
- What is sent goes to one address, and only to a server that the authority in `ca_file` certifies.
- Secrets stand in files, never in this table.
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
    """A token of the server that something else looks after.

    Attributes:
        file: Where it is; read for each call.
    """

    file: Path


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """A login by a role's id and a secret.

    Attributes:
        path: Of the method, such as `auth/approle`.
        role_id: Which role; no secret.
        secret_id_file: Where the secret is; read for each login.
    """

    path: str
    role_id: str
    secret_id_file: Path


@dataclass(frozen=True, slots=True)
class JwtLogin:
    """A login by a signed token: of Confidential Space's launcher, or in a file.

    Attributes:
        path: Of the method, such as `auth/jwt`.
        role: Which role; None for the method's default.
        audience: Whom the launcher makes the token out to; None where it is in a file.
        file: Where the token is, read for each login; None where the launcher makes it.
    """

    path: str
    role: str | None
    audience: str | None
    file: Path | None


@dataclass(frozen=True, slots=True)
class TransitKey:
    """Where a key is on the server.

    Attributes:
        name: As blobs name it.
        mount: The path of the secrets engine, with its namespace.
        key: Its name there.
    """

    name: str
    mount: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """How keys are sealed by Vault or OpenBao.

    Attributes:
        address: `https://HOST:PORT`.
        ca_file: The only authority that may certify the server; None for plain HTTP on this machine.
        server: What names of keys call the server.
        login: How tokens are had.
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
        """Whom the launcher's tokens are made out to that log in; None where it makes none."""
        return self.login.audience if isinstance(self.login, JwtLogin) else None

    def is_source(self, name: str) -> bool:
        """Whether blobs may name such a key, or keys that begin so up to a `/`."""
        return _KEY.fullmatch(name) is not None or _PREFIX.fullmatch(name) is not None


def transit_key(name: str) -> TransitKey | None:
    """Return where a key is, by its whole name; None for what is no such name."""
    match = _KEY.fullmatch(name)
    return None if match is None else TransitKey(name, match[2], match[3])


def read_vault_transit(table: TomlTable, *, development: bool) -> VaultConfig:
    """Return what the table says.

    Args:
        table: Of the image.
        development: Whether plain HTTP may be used on this machine.

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
