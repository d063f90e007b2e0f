"""The daemon on a Unix socket, as real processes: who may come in, the files left behind, and a host that signs by it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, import_keys, refused, run_command, running_host, write_config
from tests.doubles.known_keys import KEYS, attestation
from tests.doubles.processes import PATIENCE_S, ROOT, UnixEnclave, kept
from tests.doubles.wire import WireClient

ALICE = KEYS["alice"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket will be, in a folder that is not there yet."""
    return tmp_path / "run" / "enclave.sock"


def refusal(path: Path, sealing_key: Path) -> str:
    """Start a daemon that cannot; return why."""
    command = [sys.executable, "-m", "enclave_signer", "--listen", f"unix:{path}"]
    key = ["--sealing-key", str(sealing_key), "--make-sealing-key"]
    ended = subprocess.run([*command, *key], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    taken = "another process is listening" in ended.stderr
    assert ended.returncode == (1 if taken else 2), ended.stderr
    text = ended.stderr.splitlines()[-1]
    return text.removeprefix(f"enclave-signer: cannot listen on unix:{path}: ")


def signs(path: Path) -> bool:
    with WireClient(path) as client:
        made = client.call({"GenerateAndImport": "Ed25519"})
        signed = client.call({"Sign": {"handle": 0, "message": b"\x03", "version": 2}})
    return "Ok" in made and "Ok" in signed


def test_only_this_user_comes_in_and_a_stop_leaves_nothing_behind(path: Path) -> None:
    with kept(UnixEnclave(path, "--log", "debug")) as enclave:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
        assert signs(path)
        enclave.wait_for(f'source="?unix:uid={os.geteuid()},pid={os.getpid()}"?')
        assert enclave.stop() == 0
        assert "beyond this machine" not in enclave.log
    assert list(path.parent.iterdir()) == []


def test_after_a_kill_the_next_one_starts(path: Path) -> None:
    with kept(UnixEnclave(path)) as killed:
        killed.stop(signal.SIGKILL)
    assert path.is_socket()
    with kept(UnixEnclave(path)):
        assert signs(path)


def test_a_daemon_that_runs_keeps_its_socket(tmp_path: Path, path: Path) -> None:
    with kept(UnixEnclave(path)):
        assert refusal(path, tmp_path / "sealing.key") == "another process is listening in that folder"
        assert signs(path)


def test_a_daemon_that_cannot_listen_makes_no_key_file(tmp_path: Path, path: Path) -> None:
    key = tmp_path / "another.key"
    with kept(UnixEnclave(path)):
        refusal(path, key)
    assert not key.exists()


def test_a_daemon_that_has_no_sealer_leaves_no_socket(tmp_path: Path, path: Path) -> None:
    key = tmp_path / "sealing.key"
    key.write_bytes(b"short")
    key.chmod(0o600)
    assert refusal(path, key).startswith(f"enclave-signer: sealing key file {key} must have 32 bytes")
    assert list(path.parent.iterdir()) == []


def test_whoever_removes_its_socket_lets_no_second_daemon_in(tmp_path: Path, path: Path) -> None:
    """Hosts of both would be signed for by two guards, of which neither knows what the other one has seen."""
    with kept(UnixEnclave(path)) as enclave:
        path.unlink()
        assert refusal(path, tmp_path / "sealing.key") == "another process is listening in that folder"
        enclave.stop(signal.SIGKILL)
    with kept(UnixEnclave(path)):
        assert signs(path)


def test_another_program_s_socket_is_not_taken_away(tmp_path: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert refusal(path, tmp_path / "sealing.key") == "another process is listening there"


def test_a_socket_that_took_the_place_stays_at_a_stop(path: Path) -> None:
    with kept(UnixEnclave(path)) as enclave, socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))
        assert enclave.stop() == 0
        assert path.is_socket()


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, path: Path) -> None:
    for mode in (0o755, 0o710, 0o701):
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(mode)
        assert refusal(path, tmp_path / "sealing.key") == (
            f"the folder {path.parent} can be entered by others: name one that only this program uses, with mode 0700"
        )
    assert list(path.parent.iterdir()) == []


def test_what_is_no_socket_is_left_alone(tmp_path: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    assert refusal(path, tmp_path / "sealing.key") == "the file there is not a socket: name another path"
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "nowhere" / "run" / "s", tmp_path / "sealing.key") == "No such file or directory"
    assert refusal(tmp_path / "file" / "s", tmp_path / "sealing.key") == (
        f"the folder {tmp_path}/file is not a folder: name one that only this program uses, with mode 0700"
    )


def test_a_host_signs_by_it_and_is_back_after_a_kill(tmp_path: Path, path: Path) -> None:
    config = write_config(tmp_path, path, {ALICE.pkh: BAKER})
    with kept(UnixEnclave(path)) as enclave:
        import_keys(config, ALICE)
        doctor = run_command("doctor", "-c", config)
        assert f"unix:{path} answers, a socket of this machine, 1 key opened and compared" in doctor.stdout
        assert "in clear" not in doctor.stdout
        with running_host(config) as host:
            assert host.sign(ALICE.pkh, attestation(1)).signature
            enclave.stop(signal.SIGKILL)
            host.wait_for("connection to the enclave was lost|the enclave is away|retry")
            with kept(UnixEnclave(path)):
                assert host.sign(ALICE.pkh, attestation(2)).signature


def test_a_host_without_its_enclave_names_the_path(tmp_path: Path, path: Path) -> None:
    config = write_config(tmp_path, path, {ALICE.pkh: BAKER})
    text = refused(run_command("generate", "-c", config, "--vault", "enclave"), 1)
    assert text.startswith(f"the enclave at unix:{path} cannot be reached: No such file or directory")
