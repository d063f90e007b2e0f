"""Benchmarks that start both programs get as far as their last line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave, running_local_enclave

KEY = FOUR[0]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Enclave, Host]]:
    """Both programs with one key, as any peer: on the same wire, and over HTTP."""
    folder = tmp_path_factory.mktemp("peer")
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {KEY.pkh: BAKER})
        import_keys(config, KEY)
        with running_host(config) as host:
            yield enclave, host


def printed(module: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_octez_sockets_are_measured_beside_http() -> None:
    lines = printed("octez", "--turns", "1", "--seconds", "0.01")[3:]
    measured = [line.split()[:2] for line in lines]
    assert measured == [[clients, way] for clients in ("1", "16") for way in ("HTTP", "tcp:", "unix:")]


def test_bursts_of_a_configuration_and_of_a_peer_are_measured_beside_ours(
    peer: tuple[Enclave, Host], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY.pkh}\n")
    one = ("--turns", "1", "--delegates", "1", "--types", "tz1")
    beside = ("--peer", f"127.0.0.1:{peer[1].port}", "--peer-keys", str(keys), "--peer-level", "7")
    lines = printed("burst", *one, *beside, "--host-line", "watermark: {driver: mem}")
    assert lines[1].endswith(", load: Python")
    assert "10 signatures" in lines[2]
    assert [line.split()[:2] for line in lines[4:7]] == [["tz1", name] for name in ("this", "other", "peer")]
    assert [line.split(",")[0].strip() for line in lines[7:9]] == ["this : other", "this : peer"]
    assert lines[9].startswith("errors: 0 ")
    assert [lines.count(f"  watermark: {{driver: {driver}}}") for driver in ("file", "mem")] == [1, 1]


def test_the_wire_of_another_configuration_and_of_a_peer_is_measured_beside_ours(peer: tuple[Enclave, Host]) -> None:
    short = ("--turns", "1", "--seconds", "0.02", "--curves", "Ed25519", "--enclave-argument=--no-guard")
    lines = printed("enclave", *short, "--peer", f"127.0.0.1:{peer[0].port}")
    assert [line.split()[3] for line in lines if line.startswith("Ed25519 ")] == ["this", "other", "peer"] * 3
    # The processor's time of a peer is not known.
    assert [line.split()[-1] for line in lines if " peer " in line and line.startswith("Ed25519 ")] == ["-"] * 3
    assert ["CPU" in line for line in lines if " : " in line] == [True, False] * 3


def test_stages_of_a_request_are_measured() -> None:
    lines = printed("stages", "--seconds", "0.1", "--types", "tz1", "--old", str(ROOT))
    stages = ["check", "hook", "ready", "watermark", "sign", "HTTP,"]
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in stages] == stages * 2
    assert [line.split() for line in lines].count(["module,", "CPU", "µs", "this", "other"]) == 2
