"""The units, as systemd itself reads them, and what the programs ask of the kernel inside them."""

import functools
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.kit import INSTALLED, UNITS, unit_lines
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import PATIENCE_S, Enclave, kept

#: Tenths of systemd's exposure level: 2.0.
MOST_EXPOSED = 20
CALL = re.compile(r"^\d+ +([a-z_0-9]+)\(", re.MULTILINE)


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_nothing_is_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(Path(sys.executable).parent)))
    said = analyze("verify", *tmp_path.iterdir())
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_are_hardly_exposed(unit: Path) -> None:
    said = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
    assert said.returncode == 0, said.stdout


@functools.cache
def calls_of(group: str) -> frozenset[str]:
    """Return the calls of one of systemd's groups."""
    if not group.startswith("@"):
        return frozenset({group})
    lines = [line.strip() for line in analyze("syscall-filter", group).stdout.splitlines()[1:]]
    return frozenset().union(*(calls_of(line) for line in lines if line and not line.startswith("#")))


def allowed(unit: str) -> set[str]:
    """Return the calls that a unit allows."""
    calls: set[str] = set()
    (path,) = (path for path in UNITS if path.stem == unit)
    for name, value in unit_lines(path):
        if name == "SystemCallFilter":
            groups = calls.union(*(calls_of(group) for group in value.removeprefix("~").split()))
            named = set().union(*(calls_of(group) for group in value.removeprefix("~").split()))
            calls = calls - named if value.startswith("~") else groups
    return calls


def test_the_programs_call_what_the_units_allow(tmp_path: Path) -> None:
    traces = {program: tmp_path / program for program in ("enclave-signer", "enclave-host")}
    tracer = {program: ("strace", "-D", "-f", "-qq", "-o", str(trace)) for program, trace in traces.items()}
    key = ("--sealing-key", str(tmp_path / "sealing.key"))
    (tmp_path / "sealing.key").write_bytes(bytes(range(32)))
    (tmp_path / "sealing.key").chmod(0o600)
    command = (sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", *key)
    with kept(Enclave([*tracer["enclave-signer"], *command])) as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config, prefix=tracer["enclave-host"]) as host:
            for known in FOUR:
                assert host.sign(known.pkh, attestation(5)).status == 200
            config.write_text(config.read_text().replace("[transaction]", "[reveal]"))
            host.process.send_signal(signal.SIGHUP)
            host.wait_for("policy changed")
            assert host.stop() == 0
        assert enclave.stop() == 0
    for program, trace in traces.items():
        called = set(CALL.findall(trace.read_text()))
        assert {"read", "futex"} <= called
        assert not called - allowed(program), program
