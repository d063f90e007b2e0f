"""The Unix socket of an enclave, if it is one of this user's processes that listens there."""

import os
import socket

from host_backend.addresses import UnixAddress
from host_backend.errors import EnclaveUnavailable
from host_backend.unix_peer import unix_peer

_ROOT_UID = 0


def connect_unix(address: UnixAddress) -> socket.socket:
    """Return a connected, non-blocking socket. A Unix socket connects at once or not at all.

    Raises:
        EnclaveUnavailable: Another user's process listens there; it is given nothing, as it might be given keys.
        OSError: No process listens there, or too many wait.
    """
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(0)
        connected.connect(str(address.path))
        _check_listener(address, connected)
    except BaseException:
        connected.close()
        raise
    return connected


def _check_listener(address: UnixAddress, connected: socket.socket) -> None:
    uid, own = unix_peer(connected).uid, os.geteuid()
    if uid not in {own, _ROOT_UID}:
        raise EnclaveUnavailable(
            f"a process of the user {uid} listens on {address}, and this program runs as {own}: run both as the same user"
        )
