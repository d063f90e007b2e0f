"""Who is on the other side of a connection: for the log, and for what one address may take."""

import socket
import struct
from dataclasses import dataclass

from enclave_signer.serving.admission import network_of

#: `struct ucred`: process, user, group. Source: unix(7).
CREDENTIALS = struct.Struct("=iII")
#: What counts as the one address of all clients of a Unix socket.
_UNIX_NETWORK = "unix"


@dataclass(frozen=True, slots=True)
class Peer:
    """One client.

    Attributes:
        source: How the log calls it.
        network: What counts as its address: clients with the same share places and keys.
    """

    source: str
    network: str


def tcp_peer(host: str, port: int) -> Peer:
    """Return who connects from an address."""
    return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", network_of(host))


def unix_peer(stream: socket.socket) -> tuple[Peer, int]:
    """Return who has connected to a Unix socket, and of which user it was then.

    Raises:
        OSError: The kernel does not say.
    """
    pid, uid, _ = CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return Peer(f"unix:uid={uid},pid={pid}", _UNIX_NETWORK), uid
