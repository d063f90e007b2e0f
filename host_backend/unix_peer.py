"""Whose process is at the other end of a Unix socket, as the kernel says."""

import socket
import struct
from typing import NamedTuple

#: What `SO_PEERCRED` gives: process, user, group. Source: unix(7), `struct ucred`.
_CREDENTIALS = struct.Struct("=iII")


class UnixPeer(NamedTuple):
    """A process, and its user, at the moment of the connection."""

    pid: int
    uid: int


def unix_peer(connected: socket.socket) -> UnixPeer:
    """Return the process at the other end: the one that connected, or that listens.

    Raises:
        OSError: The system does not say.
    """
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return UnixPeer(pid, uid)
