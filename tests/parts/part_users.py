"""Other users where the enclave should be: at its Unix socket, whose folder somebody opened, or at its port; by root."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, refused, run_command, write_config
from tests.doubles.known_keys import KEYS
from tests.doubles.processes import PATIENCE_S, ROOT, Program, UnixEnclave, kept, running
from tests.doubles.wire import WireClient

ALICE = KEYS["alice"]
#: A user that is no one's, and no root.
STRANGER = 65534
#: Connects, calls, and says what came back.
CLIENT = """
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(60)
stream.connect(sys.argv[1])
try:
    stream.sendall(bytes.fromhex("0000000da16a496e697469616c697a65a0"))
    print(stream.recv(100).hex())
except ConnectionError:
    print()
"""
#: Listens where the enclave should be, and says what it was sent.
THIEF = """
os.umask(0)
listening = socket.create_server(sys.argv[1], family=socket.AF_UNIX)
print("listening", file=sys.stderr, flush=True)
stream, _ = listening.accept()
print("sent", stream.recv(1000), file=sys.stderr, flush=True)
"""

#: Listens at the enclave's port, says yes to `Initialize`, and shows what it is sent then.
THIEF_AT_A_PORT = """
listening = socket.create_server(("127.0.0.1", 0))
print("listening on", listening.getsockname()[1], file=sys.stderr, flush=True)
while True:
    stream, _ = listening.accept()
    stream.recv(1000)
    stream.sendall(bytes.fromhex("00000005a1624f6bf6"))
    print("sent", stream.recv(1000), file=sys.stderr, flush=True)
    stream.close()
"""


def as_stranger(script: str, path: Path) -> list[str]:
    """Return the command that runs a script as another user."""
    # The interpreter's files may be out of a stranger's reach: first the imports.
    drop = f"import os, socket, sys; os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})\n"
    return [sys.executable, "-c", drop + script, str(path)]


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket's path that every user can reach as far as its folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / "run" / "enclave.sock"


def open_to_all(path: Path) -> None:
    path.parent.chmod(0o777)
    path.chmod(0o666)


def answer_to_stranger(path: Path) -> str:
    command = as_stranger(CLIENT, path)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def test_another_user_is_turned_away_and_root_is_served(path: Path) -> None:
    with kept(UnixEnclave(path)) as enclave:
        open_to_all(path)
        assert answer_to_stranger(path) == "\n"
        enclave.wait_for(f'connections of another user refused" source="?unix:uid={STRANGER},pid=')
        with WireClient(path):
            pass


@contextmanager
def thief(path: Path) -> Iterator[Program]:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with running(as_stranger(THIEF, path)) as program:
        program.wait_for("listening")
        yield program


def test_nothing_is_given_to_another_user_who_has_the_socket(path: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, path, {ALICE.pkh: BAKER})
    with thief(path) as program:
        text = refused(run_command("import", "-c", config, "--vault", "enclave", ALICE.secret), 1)
        assert text == (
            f"a process of the user {STRANGER} listens on unix:{path}, and this program runs as {os.geteuid()}: "
            "run both as the same user"
        )
        program.wait_for("sent b''")


def test_no_secret_key_is_given_to_another_user_who_has_the_port(tmp_path: Path) -> None:
    with running(as_stranger(THIEF_AT_A_PORT, tmp_path)) as program:
        port = int(program.wait_for(r"listening on (\d+)")[1])
        config = write_config(tmp_path, port, {ALICE.pkh: BAKER})
        words = ("import", "-c", config, "--vault", "enclave", "--from", "-")
        text = refused(run_command(*words, given=ALICE.secret), 1)
        assert f"no secret key is sent: a process of the user {STRANGER} answers at 127.0.0.1:{port}" in text
        program.wait_for("sent b''")
        # Who says that this user is the enclave's has it sent.
        config.write_text(config.read_text().replace("port:", f"enclave_uid: {STRANGER}, port:"))
        assert run_command(*words, given=ALICE.secret).code == 1
        program.wait_for("sent b'.*ImportUnencrypted")
