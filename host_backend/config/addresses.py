"""Hosts, ports and paths as the configuration writes them."""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path

from host_backend.addresses import UNIX, Address, UnixAddress
from host_backend.ip_addresses import IpNetwork
from host_backend.yaml_document import Value

#: A variable; without a group where a `$` begins none.
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})?", re.ASCII)
#: What a name or an address is made of; the resolver itself fails with a bug's error on some other texts.
_HOST = re.compile(r"(?=.{1,253}\Z)[\w%:-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
#: Bytes of a Unix socket's path. Source: unix(7), sun_path of 108 with its final zero.
_MAX_UNIX_PATH_BYTES = 107


def parse_listener(value: Value | None, default: Address) -> Address | UnixAddress:
    """Return where to listen: `host:port`, `[IPv6]:port`, `:port`, or `unix:/path`; the default when it is absent.

    Raises:
        ConfigError: It is none of these.
    """
    if value is None:
        return default
    text = value.text()
    return parse_unix(value, text) or _parse_address(value, text)


def parse_unix(value: Value, text: str) -> UnixAddress | None:
    """Return the Unix socket that `unix:/path` names; None for what does not begin so.

    Raises:
        ConfigError: The path cannot be that of a socket.
    """
    if not text.startswith(UNIX):
        return None
    path = Path(text.removeprefix(UNIX))
    if not path.is_absolute() or len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        value.fail(f"must be {UNIX} and an absolute path of at most {_MAX_UNIX_PATH_BYTES} bytes")
    return UnixAddress(path)


def _parse_address(value: Value, text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        value.fail("must be host:port, or [IPv6]:port, for example 127.0.0.1:6732")
    host = host.removeprefix("[").removesuffix("]")
    return Address(parse_host(value, host) if host else "", parse_port(value, port))


def parse_host(value: Value, text: str) -> str:
    """Return a name or an address.

    Raises:
        ConfigError: It is neither.
    """
    if not _HOST.fullmatch(text):
        value.fail(f"{text[:40]!r} is not a host: it must be a name or an address")
    return text


def parse_port(value: Value, text: str) -> int:
    """Return a port, 0 to 65535; 0 takes a free one, which tests and the quick start need. Signatory refuses it.

    Raises:
        ConfigError: It is no port.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        value.fail("the port must be a number from 0 to 65535")
    return int(text)


def parse_network(value: Value) -> IpNetwork:
    """Return an address or a network, `10.0.0.0/8`.

    Raises:
        ConfigError: It is neither.
    """
    text = value.text()
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        value.fail(f"{text[:50]!r} is neither an address nor a network, for example 10.0.0.1 or 10.0.0.0/8")
    if str(network.network_address) != str(ip_address(text.partition("/")[0])):
        value.fail(f"{text[:50]!r} is an address within a network: write {network} for the network")
    if not network.prefixlen:
        value.fail(f"{text[:50]!r} is every address: name the proxies")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        value.fail(f"{text[:50]!r} is IPv4 written as IPv6: write it as IPv4")
    return network


def parse_certificate_and_key(value: Value, fields: Mapping[str, Value]) -> tuple[Path, Path]:
    """Return the files of a certificate and of its key.

    Args:
        value: What the fields are below.
        fields: Those that are there.

    Raises:
        ConfigError: One is not named, or its path has a variable that is not set.
    """
    for name in ("certificate", "key"):
        if name not in fields:
            value.fail(f"must name the file of the {name}, in PEM form")
    return Path(expanded(fields["certificate"])), Path(expanded(fields["key"]))


def expanded(value: Value) -> str:
    """Return a text with `$NAME` and `${NAME}` replaced from the environment.

    Raises:
        ConfigError: A variable is not set, which Signatory takes for an empty text; or a `$` begins no name.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            value.fail("$ must begin a variable, $NAME or ${NAME}; nothing else can stand in the braces")
        if name not in os.environ:
            value.fail(f"the environment variable {name} is not set")
        return os.environ[name]

    return _VARIABLE.sub(replace, value.text())
