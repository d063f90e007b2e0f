"""Whose process is at the other end of a TCP connection on this machine.

The system's table has the user of each end. Until a connection is taken in, its far end belongs to no process yet, and is
shown as root's: such a line tells nothing. The table is that of connections, so a process that listens on the same port
for another address is not mistaken for the one that answers.

Source: proc_net_tcp(5); the kernel's `get_tcp4_sock`, which shows user 0 and inode 0 for what has no process.
"""

import logging
import os
import sys
from ipaddress import ip_address
from pathlib import Path

from host_backend.errors import EnclaveUnavailable
from host_backend.ip_addresses import IpAddress, parse_ip, unmapped
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: A connection that begins as one of IPv4 may end at a socket of IPv6.
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_NO_INODE = "0"
_ROOT_UID = 0

#: An address and a port.
End = tuple[IpAddress, int]


def check_peer(own_name: tuple[str, int], peer_name: tuple[str, int], enclave_uid: int | None) -> None:
    """Pass unless another user's process is at the far end; warn where that cannot be seen.

    Args:
        own_name: What the socket calls this end of a connection, which the other side has taken in.
        peer_name: And the far end.
        enclave_uid: Whose process it may be, besides this user's and root's.

    Raises:
        EnclaveUnavailable: It is another user's, and may be given no secret.
    """
    own, peer = end_of(own_name), end_of(peer_name)
    uid = peer_uid(own, peer) if peer[0].is_loopback else None
    if uid is None:
        logger.warning(
            "a secret key is sent to an enclave although the owner of that process cannot be determined",
            extra=fields(address=f"{peer[0]}:{peer[1]}"),
        )
    elif uid not in {os.geteuid(), _ROOT_UID, enclave_uid}:
        raise EnclaveUnavailable(
            f"no secret key is sent: a process of the user {uid} answers at {peer[0]}:{peer[1]}, and this program runs as "
            f"{os.geteuid()}: stop that process; or, if it is the enclave, set enclave_uid: {uid} in the vault's config"
        )


def end_of(name: tuple[str, int]) -> End:
    """Return one end of a connection; `name` is what the socket calls it."""
    host, port = name[:2]
    return parse_ip(host), port


def peer_uid(own: End, peer: End) -> int | None:
    """Return the user of the process at the far end; None where the system does not tell.

    Args:
        own: This process's end.
        peer: The far end, on this machine.
    """
    uids = {uid for table in _TABLES for uid in _uids(table, own, peer)}
    return uids.pop() if len(uids) == 1 else None


def _uids(table: str, own: End, peer: End) -> list[int]:
    try:
        lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    # 0: 0100007F:07D0 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000  0 12345 …
    return [
        int(words[7])
        for words in map(str.split, lines)
        if _parsed(words[1]) == peer and _parsed(words[2]) == own and words[9] != _NO_INODE
    ]


def _parsed(text: str) -> End:
    """Return an end as the system writes it: words of 32 bits in the machine's order, and a port."""
    address, _, port = text.partition(":")
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    return unmapped(ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))), int(port, 16)
