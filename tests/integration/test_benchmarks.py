"""Benchmarks that start both programs get as far as their last line."""

import subprocess
import sys

from tests.doubles.processes import PATIENCE_S, ROOT


def printed(module: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_octez_sockets_are_measured_beside_http() -> None:
    lines = printed("octez", "--turns", "1", "--seconds", "0.01")[3:]
    measured = [line.split()[:2] for line in lines]
    assert measured == [[clients, way] for clients in ("1", "16") for way in ("HTTP", "tcp:", "unix:")]


def test_bursts_are_measured_and_the_configuration_is_printed() -> None:
    lines = printed("burst", "--turns", "1", "--delegates", "3", "--types", "tz4")
    assert "30 signatures" in lines[2]
    assert lines[4].split()[:2] == ["tz4", "this"]
    assert lines[5].startswith("errors: 0 ")
    assert "  watermark: {driver: file}" in lines


def test_stages_of_a_request_are_measured() -> None:
    lines = printed("stages", "--seconds", "0.1", "--types", "tz1")
    stages = ["check", "hook", "ready", "watermark", "sign", "HTTP,"]
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in stages] == stages * 2
    assert [line.split() for line in lines].count(["module", "CPU", "µs"]) == 2
