"""Where a connection comes from."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from host_backend.ip_addresses import network_of, parse_ip
from host_backend.unix_peer import unix_peer

#: Characters of a certificate's subject that stand in the log; an authority of yours wrote it.
MAX_SUBJECT_CHARS = 200
#: The names of RFC 4514.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        source: What the log calls it: address and port; of a Unix socket the user and the process that connected.
        address: Its address; empty for a Unix socket.
        port: Likewise; 0.
        is_proxy: Whether it is believed when it names others as clients.
    """

    source: str
    address: str = ""
    port: int = 0
    is_proxy: bool = False

    @property
    def network(self) -> str | None:
        """What counts as one client's address; None if many clients come from there."""
        return None if self.is_proxy or not self.address else network_of(self.address)


def address_of(name: object) -> tuple[str, int] | None:
    """Return address and port of what a socket says of its other end; None for a Unix socket."""
    return (str(parse_ip(name[0])), name[1]) if isinstance(name, tuple) else None


def source_of(client: tuple[str, int] | None) -> str:
    """Return what the log calls a client: its address and port; the address alone for port 0, which a proxy did not name."""
    address, port = client or ("", 0)
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def user_of(client: socket.socket) -> str:
    """Return which user and process connected to a Unix socket."""
    try:
        peer = unix_peer(client)
    except OSError:
        return "unix"
    return f"unix:uid={peer.uid},pid={peer.pid}"


def subject_of(certificate: Mapping[str, Any]) -> str:
    """Return the subject of a certificate in one line; empty if it has none. Source: RFC 4514, its order and names."""
    parts = [
        f"{_SHORT_NAMES.get(name, name)}={value}" for part in certificate.get("subject", ()) for name, value in part
    ]
    return ",".join(reversed(parts))[:MAX_SUBJECT_CHARS]
