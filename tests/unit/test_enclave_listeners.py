"""Who comes in by a Unix socket of the daemon, and what its clients share."""

import errno
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from enclave_signer.addresses import UnixAddress
from enclave_signer.config import Limits
from enclave_signer.errors import ConfigError
from enclave_signer.serving import listeners
from enclave_signer.serving.listeners import Listener, listen, rest_if_exhausted
from enclave_signer.serving.peers import Peer
from enclave_signer.sparse_log import SparseLog
from tests.doubles.daemon_in_trio import INITIALIZE, World, frame, receive, run
from tests.doubles.known_keys import FOUR

IMPORT = frame({"Import": FOUR[0].clear_blob})
OTHER_UID = os.geteuid() + 4242


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(tmp_path / "run" / "s")


def opened(address: UnixAddress) -> Listener:
    return listen(address)


@pytest.mark.parametrize("uid", [0, os.geteuid(), OTHER_UID])
def test_clients_are_of_this_user_or_root(
    uid: int, address: UnixAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        stream = await world.connect_unix(address.path)
        if uid == OTHER_UID:
            assert await stream.receive_some(1) == b""
        else:
            await stream.send_all(INITIALIZE)
            assert await receive(stream) == {"Ok": None}

    monkeypatch.setattr(listeners, "unix_peer", lambda _: (Peer(f"unix:uid={uid},pid=7", "unix"), uid))
    with caplog.at_level(logging.WARNING):
        run(main, limits=Limits(), open_listener=partial(opened, address))
    warned = [(record.getMessage(), record.fields["source"]) for record in caplog.records]  # type: ignore[attr-defined]
    refused = ("connections of another user refused", f"unix:uid={OTHER_UID},pid=7")
    assert warned == ([refused] if uid == OTHER_UID else [])


def test_all_clients_of_a_unix_socket_share_the_places_of_one_address(address: UnixAddress) -> None:
    async def main(world: World) -> None:
        for _ in range(10):
            stream = await world.connect_unix(address.path)
            await stream.send_all(INITIALIZE + IMPORT)
            assert await receive(stream) == {"Ok": None}
            assert "Ok" in str(await receive(stream))
        one_more = await world.connect_unix(address.path)
        assert await one_more.receive_some(1) == b""

    run(main, limits=replace(Limits(), max_connections=20), open_listener=partial(opened, address))


def test_another_user_s_folder_is_refused(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    address.path.parent.mkdir(mode=0o700)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_UID)
    with pytest.raises(ConfigError, match=f"belongs to the user {own}, not to {OTHER_UID}, the user of this program"):
        listen(address)
    assert not address.path.exists()


def test_a_socket_that_is_gone_does_not_disturb_the_end(address: UnixAddress) -> None:
    with listen(address):
        address.path.unlink()
    assert list(address.path.parent.iterdir()) == []


@pytest.mark.parametrize(("code", "rest_s"), [(errno.EMFILE, 0.1), (errno.ECONNABORTED, 0)])
def test_without_file_descriptors_there_is_a_rest_and_a_warning(
    code: int, rest_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> float:
        began = trio.current_time()
        await rest_if_exhausted(OSError(code, "why"), SparseLog())
        return trio.current_time() - began

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(rest_s)
    warned = [record.getMessage() for record in caplog.records]
    assert warned == (["cannot accept connections: why"] if rest_s else [])
