"""The host at the Unix socket of an enclave: who listens there is looked at before anything is sent."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from host_backend.addresses import UnixAddress
from host_backend.enclave import unix_socket
from host_backend.enclave.connection import connect
from host_backend.errors import EnclaveUnavailable


def test_another_user_s_process_at_the_socket_is_given_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = UnixAddress(tmp_path / "s")
    own, other = os.geteuid(), os.geteuid() + 4242
    monkeypatch.setattr(unix_socket, "_ROOT_UID", other + 1)
    with socket.create_server(str(address.path), family=socket.AF_UNIX) as listener:
        asyncio.run(connect_and_close(address))
        assert all_received(listener) == b""
        monkeypatch.setattr(os, "geteuid", lambda: other)
        text = (
            f"^a process of the user {own} listens on {address}, and this program runs as {other}: run both as the same"
        )
        with pytest.raises(EnclaveUnavailable, match=text):
            asyncio.run(connect_and_close(address))
        assert all_received(listener) == b""


def all_received(listener: socket.socket) -> bytes:
    with listener.accept()[0] as stream:
        return stream.recv(1)


async def connect_and_close(address: UnixAddress) -> None:
    (await connect(address)).close()


def test_a_socket_at_which_nobody_listens(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "s")
    with pytest.raises(EnclaveUnavailable, match=f"^the enclave at {address} cannot be reached: No such file"):
        asyncio.run(connect(address))
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(address.path))
        with pytest.raises(
            EnclaveUnavailable, match=f"^the enclave at {address} cannot be reached: Connection refused"
        ):
            asyncio.run(connect(address))
