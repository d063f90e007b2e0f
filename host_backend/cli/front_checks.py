"""What `doctor` looks at where clients come in: whether the addresses can be had, and the files of TLS.

An address is bound for a moment and never listened on, so no client ever reaches the doctor.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from host_backend.addresses import Address, UnixAddress
from host_backend.cli.findings import FAILED, OK, WARNING, Check
from host_backend.config import TlsConfig
from host_backend.config.server import ServerConfig
from host_backend.errors import ConfigError, reason_of

#: The state of a listening socket in `/proc/net/tcp`. Source: Linux `tcp_states.h`.
_LISTENING = "0A"


def examine_front(server: ServerConfig, host: int | None) -> Iterator[Check]:
    """Look at all addresses and at TLS.

    Args:
        server: The section of the configuration.
        host: The process that serves this configuration's folder, if one does: the addresses are its own.
    """
    taken: dict[Address | UnixAddress, str] = {}
    for name, address in server.listeners.items():
        if address in taken:
            yield Check(name, FAILED, f"{address} is that of {taken[address]}, too: give each its own")
        elif isinstance(address, UnixAddress):
            yield from _unix(name, address, host)
        else:
            yield from _tcp(name, address, host)
        if isinstance(address, UnixAddress) or address.port != 0:
            taken.setdefault(address, name)
    if server.tls is not None:
        yield from _tls(server.tls)


def _tcp(name: str, address: Address, host: int | None) -> Iterator[Check]:
    try:
        _bind_for_a_moment(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            yield Check(name, FAILED, f"{address} cannot be had: {reason_of(error)}: name another one")
            return
        listener = _listener_on(address.port)
        if host is not None and listener in {None, host}:
            return
        who = "another program" if listener is None else f"process {listener}"
        yield Check(name, FAILED, f"{who} listens on {address} already: stop it, or name another port")


def _bind_for_a_moment(address: Address) -> None:
    dual = not address.host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        probe.bind((address.host, address.port))


def _listener_on(port: int) -> int | None:
    """Return the process that listens on a port; None where that cannot be seen. Source: proc(5)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for words in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
                if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(str(entry.readlink()) in inodes for entry in folder.iterdir()):
                return int(folder.parent.name)
    return None


def _unix(name: str, address: UnixAddress, host: int | None) -> Iterator[Check]:
    try:
        yield from _socket(name, address, host)
    except OSError as error:
        yield Check(name, FAILED, f"{address} cannot be had: {reason_of(error)}: name another one")


def _socket(name: str, address: UnixAddress, host: int | None) -> Iterator[Check]:
    folder = address.path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Check(name, FAILED, f"{folder} is not a folder that this user may write to: make it, or correct {name}")
    elif address.path.exists() and not address.path.is_socket():
        yield Check(name, FAILED, f"{address.path} exists and is not a socket: name another path")
    elif host is None and _is_listened_on(address.path):
        yield Check(name, FAILED, f"another program listens on {address} already: stop it, or name another path")


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        return probe.connect_ex(str(path)) in {0, errno.EAGAIN}


def _tls(tls: TlsConfig) -> Iterator[Check]:
    from host_backend.api.listeners import tls_context

    name = "server.tls"
    try:
        tls_context(tls)
    except ConfigError as error:
        yield Check(name, FAILED, str(error).removeprefix(f"{name}: "))
        return
    if tls.key.stat().st_mode & 0o077:
        yield Check(name, WARNING, f"{tls.key} can be read by others: chmod go-rwx {tls.key}")
    yield _period(name, tls.certificate)


def _period(name: str, file: Path) -> Check:
    from cryptography.x509 import InvalidVersion, load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(file.read_bytes())
    except (ValueError, InvalidVersion) as error:
        # OpenSSL, which serves it, is not as strict as clients are.
        return Check(name, WARNING, f"{file} cannot be read as clients may read it: {error}")
    now, begins, ends = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        return Check(
            name, WARNING, f"{file} is good from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, not now: clients refuse it"
        )
    return Check(name, OK, f"{file} fits its key and is good until {ends:%Y-%m-%d}")
