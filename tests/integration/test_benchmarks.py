"""Benchmarks that start both programs get as far as their last line."""

import subprocess
import sys

from tests.doubles.processes import PATIENCE_S, ROOT


def test_octez_sockets_are_measured_beside_http() -> None:
    command = [sys.executable, "-m", "benchmarks.octez", "--turns", "1", "--seconds", "0.01"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    measured = [line.split()[:2] for line in done.stdout.splitlines()[2:]]
    assert measured == [[clients, way] for clients in ("1", "16") for way in ("HTTP", "tcp:", "unix:")]
