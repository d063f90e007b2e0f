"""Where the daemon listens: a port, or a Unix socket."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from enclave_signer.errors import ConfigError

#: Source: tee-signer.
DEFAULT_PORT = 2000
#: Bytes of a Unix socket's path. Source: unix(7), sun_path of 108 with its final zero.
MAX_UNIX_PATH_BYTES = 107
_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        """Return it as `unix:/path`."""
        return f"{_UNIX}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; it does."""
        return True


def parse_listen(text: str) -> Address | UnixAddress:
    """Return what `--listen` names: `HOST:PORT`, or `unix:PATH`, a path from the current folder if it is relative.

    Raises:
        ConfigError: It is neither.
    """
    if text.startswith(_UNIX):
        return _parse_unix(text)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ConfigError(f"--listen {text}: must be HOST:PORT, for example 127.0.0.1:{DEFAULT_PORT}, or unix:PATH")
    return Address(host.removeprefix("[").removesuffix("]"), parse_port(port, "--listen"))


def _parse_unix(text: str) -> UnixAddress:
    path = Path(text.removeprefix(_UNIX)).absolute()
    if text == _UNIX or len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise ConfigError(f"--listen {text}: the path of a Unix socket must have 1 to {MAX_UNIX_PATH_BYTES} bytes")
    return UnixAddress(path)


def parse_port(text: str, where: str) -> int:
    """Return a port, 0 to 65535.

    Raises:
        ConfigError: It is none; the text names where it stands.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        raise ConfigError(f"{where}: {text[:40]!r} is not a port: it must be a number from 0 to 65535")
    return int(text)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name counts when every address it has does."""
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback(ipaddress.ip_address(address.partition("%")[0])) for address in addresses)


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
