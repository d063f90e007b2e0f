"""Whose process is at the other end of a connection on this machine: real sockets, and tables that show other users."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_backend.enclave import loopback_peer
from host_backend.enclave.loopback_peer import check_peer, end_of, peer_uid
from host_backend.errors import EnclaveUnavailable

OWN, PEER = ("127.0.0.1", 40000), ("127.0.0.1", 2000)
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ENCLAVE = "   0: 0100007F:07D0 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  4711        0 12345 1 0\n"
UNTAKEN = ENCLAVE.replace("4711", "   0").replace("12345", "0")
OTHER_PORT = ENCLAVE.replace(":9C40", ":9C41").replace("4711", "4712")
LISTENING = ENCLAVE.replace("0100007F:9C40 01", "00000000:0000 0A").replace("4711", "4712")
MAPPED = ENCLAVE.replace("0100007F:", "0000000000000000FFFF00000100007F:")


@contextmanager
def connected(listener: socket.socket) -> Iterator[socket.socket]:
    with listener, socket.create_connection(listener.getsockname()[:2]) as own:
        yield own


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_end_of_an_own_process_is_found_once_it_is_taken_in(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    with connected(listener) as own:
        ends = end_of(own.getsockname()), end_of(own.getpeername())
        # What no one has taken in yet is shown as root's.
        assert peer_uid(*ends) is None
        with listener.accept()[0]:
            assert peer_uid(*ends) == os.geteuid()


def test_a_socket_of_both_families_is_found() -> None:
    listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as own, listener.accept()[0]:
        assert peer_uid(end_of(own.getsockname()), end_of(own.getpeername())) == os.geteuid()


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    files = [tmp_path / "tcp", tmp_path / "tcp6"]
    monkeypatch.setattr(loopback_peer, "_TABLES", tuple(map(str, files)))
    monkeypatch.setattr("sys.byteorder", "little")
    return files


@pytest.mark.parametrize("line", [ENCLAVE, MAPPED], ids=["tcp", "mapped"])
def test_another_user_is_given_nothing(tables: list[Path], line: str) -> None:
    tables[0].write_text(HEAD + LISTENING + OTHER_PORT + line)
    with pytest.raises(
        EnclaveUnavailable, match=r"a process of the user 4711 answers at 127.0.0.1:2000, .* enclave_uid: 4711"
    ):
        check_peer(OWN, PEER, None)
    with pytest.raises(EnclaveUnavailable):
        check_peer(OWN, PEER, 4712)


@pytest.mark.parametrize("uid", [4711, 0, os.geteuid()])
def test_the_named_user_root_and_this_one_may_have_it(
    tables: list[Path], uid: int, caplog: pytest.LogCaptureFixture
) -> None:
    tables[0].write_text(HEAD + ENCLAVE.replace("4711", str(uid)))
    check_peer(OWN, PEER, 4711)
    assert not caplog.records


@pytest.mark.parametrize(
    "table", ["", HEAD + UNTAKEN, HEAD + LISTENING, HEAD + ENCLAVE + MAPPED.replace("4711", "4712")]
)
def test_what_cannot_be_seen_is_said(tables: list[Path], table: str, caplog: pytest.LogCaptureFixture) -> None:
    tables[1].write_text(table)
    with caplog.at_level(logging.WARNING):
        check_peer(OWN, PEER, None)
    (record,) = caplog.records
    assert "the owner of that process cannot be determined" in record.message


def test_another_machine_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_peer(("192.0.2.1", 40000), ("192.0.2.2", 2000), None)
    assert "cannot be determined" in caplog.text
