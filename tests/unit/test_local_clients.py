"""Clients of a Unix socket with rules: who they are, who writes for them, and who can reach the socket at all."""

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from enclave_signer.addresses import UnixAddress
from enclave_signer.config import Limits
from enclave_signer.errors import ConfigError
from enclave_signer.image import parse_image
from enclave_signer.rights import Client, Rules
from enclave_signer.rights_config import UnixSocketConfig
from enclave_signer.serving import listeners, local_clients
from enclave_signer.serving.listeners import Listener, listen
from enclave_signer.serving.local_clients import UnknownClient, local_client, require_cgroups
from enclave_signer.serving.peers import CREDENTIALS
from tests.doubles.daemon_in_trio import INITIALIZE, World, call, frame, receive, run
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import rule

ME = f"uid:{os.geteuid()}"
NO_RULES = Rules([], lambda _: None)
#: Connects, and ends at the end of its input.
CONNECTS = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(); sys.stdin.read()"


@pytest.fixture
def address(tmp_path: Path) -> UnixAddress:
    return UnixAddress(tmp_path / "run" / "s")


def opened(address: UnixAddress, *rights: str, access: UnixSocketConfig | None = None) -> Listener:
    text = f'development = true\nsealers = ["local"]\n{"".join(rights)}[local]\nsealing_key = "key"\n'
    rules = Rules(parse_image(text, "image.toml").rights or (), logging.getLogger("test").warning)
    return listen(address, access=access or UnixSocketConfig(), rules=rules)


def refused(address: UnixAddress, match: str, access: UnixSocketConfig | None = None) -> None:
    with pytest.raises(ConfigError, match=match):
        listen(address, access=access or UnixSocketConfig(), rules=NO_RULES)
    assert not address.path.is_socket()


def test_who_reaches_it_is_what_is_configured(address: UnixAddress) -> None:
    with listen(address, access=UnixSocketConfig(0o711, 0o666), rules=NO_RULES):
        assert address.path.parent.stat().st_mode & 0o777 == 0o711
        assert address.path.stat().st_mode & 0o777 == 0o666
    # A folder that is closer than it may be stays so.
    address.path.parent.chmod(0o700)
    with listen(address, access=UnixSocketConfig(0o711, 0o666), rules=NO_RULES):
        assert address.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_too_open_stops_the_start(address: UnixAddress) -> None:
    address.path.parent.mkdir()
    for mode in (0o755, 0o770, 0o1777):
        address.path.parent.chmod(mode)
        refused(
            address, f"{address.path.parent} has the mode {mode & 0o777:04o}, looser than 0711", UnixSocketConfig(0o711)
        )


def test_a_folder_of_another_group_stops_the_start(address: UnixAddress) -> None:
    address.path.parent.mkdir()
    address.path.parent.chmod(0o750)
    other = UnixSocketConfig(0o750, 0o660, os.getegid() + 1)
    refused(address, f"is open to the group {os.getegid()}, and not to {os.getegid() + 1}", other)


def test_a_folder_above_it_in_which_others_write_stops_the_start(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    address = UnixAddress(above / "run" / "s")
    above.chmod(0o777)
    refused(address, f"others can write to {above}, and put another folder in its place")
    above.chmod(0o1777)
    with listen(address, access=UnixSocketConfig(), rules=NO_RULES):
        pass


def test_a_symbolic_link_in_the_path_stops_the_start(tmp_path: Path, address: UnixAddress) -> None:
    real = tmp_path / "real"
    (real / "run").mkdir(parents=True, mode=0o700)
    above = tmp_path / "link"
    above.symlink_to(real)
    refused(UnixAddress(above / "run" / "s"), f"{above} is a symbolic link: name the path that it leads to")
    address.path.parent.symlink_to(real / "run")
    refused(address, f"{address.path.parent} is a symbolic link")
    address.path.parent.unlink()
    address.path.parent.mkdir(mode=0o700)
    address.path.symlink_to(real / "run" / "s")
    refused(address, f"{address.path} is a symbolic link")


def test_an_access_control_list_stops_the_start(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda _: ["user.a", "system.posix_acl_default"])
    refused(address, "has an access control list, which opens it to others")


def test_a_socket_that_got_looser_than_it_should_be_stops_the_start(
    address: UnixAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems give every file one mode."""
    chmod = Path.chmod
    monkeypatch.setattr(Path, "chmod", lambda self, _: chmod(self, 0o777 if self == address.path else 0o700))
    with pytest.raises(ConfigError, match=f"{address.path} has the mode 0777, looser than 0600"):
        listen(address, access=UnixSocketConfig(), rules=NO_RULES)
    assert list(address.path.parent.iterdir()) == []


def accepted(path: Path, look: Callable[[socket.socket, "subprocess.Popen[bytes]"], None]) -> None:
    """Have another process connect, and look at its connection."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        command = [sys.executable, "-c", CONNECTS, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            with listening.accept()[0] as connected:
                look(connected, program)
            program.communicate()


def test_who_has_connected(tmp_path: Path) -> None:
    def look(connected: socket.socket, program: "subprocess.Popen[bytes]") -> None:
        source, client, _ = local_client(connected, with_cgroup=False)
        uid, gid = os.geteuid(), os.getegid()
        assert client == Client(uid=uid, gid=gid, groups=frozenset(os.getgroups()))
        assert source == f"unix:uid={uid},gid={gid},pid={program.pid}"
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        assert local_client(connected, with_cgroup=True)[1].cgroup == own.removeprefix("0::")
        program.communicate()
        # Its number may be another's from now on.
        assert local_client(connected, with_cgroup=True)[1].cgroup is None

    require_cgroups()
    accepted(tmp_path / "s", look)


def test_a_process_that_ends_while_its_control_group_is_read_is_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(connected: socket.socket, program: "subprocess.Popen[bytes]") -> None:
        def ended(pid: int) -> str:
            assert pid == program.pid
            program.communicate()
            return "/shop.slice"

        monkeypatch.setattr(local_clients, "_cgroup_of", ended)
        assert local_client(connected, with_cgroup=True)[1].cgroup is None

    accepted(tmp_path / "s", look)


def test_the_name_of_a_control_group_ends_at_a_line_feed_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = tmp_path / "cgroup"
    written.write_bytes(b"1:name=systemd:/user.slice/x\x0c0::/system.slice/shop.service\n0::/user.slice/y\x1ez\n")
    monkeypatch.setattr(local_clients, "Path", lambda _: written)
    assert local_clients._cgroup_of(1) == "/user.slice/y\x1ez"


def test_an_older_linux_stops_the_start_of_rules_on_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: socket.socket) -> int:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    monkeypatch.setattr(local_clients, "_pidfd", unknown)
    with pytest.raises(ConfigError, match=r"cgroup: needs Linux 6\.5 or later: Protocol not available"):
        require_cgroups()
    monkeypatch.undo()
    monkeypatch.setattr(local_clients, "_cgroup_of", lambda _: None)
    with pytest.raises(ConfigError, match="needs control groups of version 2"):
        require_cgroups()


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        ((0, 1001, 1001), "its process is in another PID namespace"),
        ((7, 65534, 1001), "not mapped into the user namespace"),
        ((7, 1001, 65534), "not mapped into the user namespace"),
    ],
)
def test_clients_whom_the_kernel_does_not_name(credentials: tuple[int, int, int], why: str) -> None:
    class Connected:
        @staticmethod
        def getsockopt(*_: int) -> bytes:
            return CREDENTIALS.pack(*credentials)

    with pytest.raises(UnknownClient, match=why) as raised:
        local_client(Connected(), with_cgroup=False)  # type: ignore[arg-type]
    assert raised.value.source == f"unix:uid={credentials[1]},gid={credentials[2]},pid={credentials[0]}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [(record.getMessage(), record.fields["why"]) for record in caplog.records]  # type: ignore[attr-defined]


def test_a_client_that_no_rule_names_is_turned_away(address: UnixAddress, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        stream = await world.connect_unix(address.path)
        assert await stream.receive_some(1) == b""

    with caplog.at_level(logging.WARNING):
        other = rule([f"uid:{os.geteuid() + 1}"], ["*"], ["*"]), rule([ME, "cgroup:/not/this/one"], ["*"], ["*"])
        run(main, limits=Limits(), open_listener=partial(opened, address, *other))
    assert warnings(caplog) == [("connections refused", "no rule of the image names this client")]


def test_who_sends_descriptors_is_turned_away(address: UnixAddress, caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        stream = await world.connect_unix(address.path)
        assert await call(stream, {"Initialize": {}}) == {"Ok": None}
        raw = socket.socket(fileno=os.dup(stream.socket.fileno()))
        with raw:
            socket.send_fds(raw, [frame({"Generate": "Ed25519"})], [0])
        assert await stream.receive_some(1) == b""

    with caplog.at_level(logging.WARNING):
        run(main, limits=Limits(), open_listener=partial(opened, address, rule([ME], ["*"], ["*"])))
    assert warnings(caplog) == [("connections ended", "the client sends file descriptors")]


def test_the_clients_of_each_rule_have_places_apart(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, two of three users could take the places of all local clients."""
    uids = iter([1] * 3 + [2] * 3 + [3])

    def as_others(connected: socket.socket, *, with_cgroup: bool) -> tuple[str, Client, bytes]:
        uid = next(uids)
        _, _, credentials = local_client(connected, with_cgroup=with_cgroup)
        return f"unix:uid={uid}", Client(uid=uid), credentials

    async def main(world: World) -> None:
        imports = INITIALIZE + frame({"Import": FOUR[0].clear_blob})
        for place in range(6):
            stream = await world.connect_unix(address.path)
            if place % 3 == 2:
                assert await stream.receive_some(1) == b""
                continue
            await stream.send_all(imports)
            assert await receive(stream) == {"Ok": None}
            assert "Ok" in str(await receive(stream))
        other = await world.connect_unix(address.path)
        assert await call(other, {"Initialize": {}}) == {"Ok": None}

    monkeypatch.setattr(listeners, "local_client", as_others)
    rights = [rule([f"uid:{uid}"], ["*"], ["*"]) for uid in (1, 2, 3)]
    run(main, limits=Limits(max_connections=6), open_listener=partial(opened, address, *rights))
