"""The first look: `make run` and `make demo`, and the text for a newcomer without python3-venv."""

import asyncio
import http.client
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import SigningVersion
from enclave_signer.tezos import parse_public_key, parse_signature
from host_backend.config import load_config
from host_backend.config.mark_storage import MarksInFile
from quickstart.folder import LOCK
from quickstart.local_signer import LocalSigner, free_port
from quickstart.messages import attestation
from quickstart.stopping import until_signal
from tests.doubles.host_process import ask as ask_any
from tests.doubles.host_process import in_use_file, stored_hashes
from tests.doubles.processes import PATIENCE_S, ROOT
from tests.doubles.quickstart_process import Quickstart, running_quickstart
from tests.doubles.secret_search import descendants


def ask(url: str, body: str | None = None) -> tuple[int, dict[str, object]]:
    """GET, or POST the given body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_S)
    try:
        connection.request("GET" if body is None else "POST", parts.path, body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert isinstance(answer, dict)
        return response.status, answer
    finally:
        connection.close()


def paste(quickstart: Quickstart) -> str:
    """Do what the printed line does; return the hash of the key that has signed."""
    (line,) = (line for line in quickstart.said.splitlines() if line.strip().startswith("curl "))
    command, option, body, url = shlex.split(line)
    assert (command, option) == ("curl", "-d")
    status, answer = ask(url, body)
    assert status == 200
    _, key = ask(url)
    public_key = parse_public_key(str(key["public_key"]))
    verifying_key = curve(public_key.key_type).parse_public_key(public_key.data)
    verifying_key.verify(parse_signature(str(answer["signature"])), bytes.fromhex(json.loads(body)), SigningVersion.V2)
    return url.rpartition("/")[2]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_first_run_makes_a_key_and_the_second_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with running_quickstart(folder) as first:
        assert "(generated inside the enclave just now)" in first.said
        pkh = paste(first)
        assert pkh.startswith("tz4")
        assert ask(first.find(r"health: (\S+)")[1]) == (200, {"ready": True})
        programs = descendants(first.pid)
        assert len(programs) == 2
        assert first.stop(whole_session=True) == 0
    assert alive(programs) == []
    assert f"Stopped. Keys and marks stay in {folder}/ for the next run." in first.said
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "run").stat().st_mode & 0o777 == 0o700
    assert "listening on unix:" in (folder / "enclave_signer.log").read_text()

    with running_quickstart(folder) as second:
        assert "(kept from an earlier run)" in second.said
        assert paste(second) == pkh
        # The same message again: idempotent.
        assert paste(second) == pkh
        assert second.stop(signal.SIGTERM) == 0
    assert stored_hashes(folder / "signatory.yaml") == [pkh]
    for log in ("enclave_signer.log", "host_backend.log"):
        assert (folder / log).read_text().count("stopped") == 2


def sign(quickstart: Quickstart, pkh: str, level: int) -> int:
    url = quickstart.find(r"host +(\S+)")[1]
    return ask_any(urlsplit(url).port or 80, "POST", f"/keys/{pkh}", json.dumps(attestation(level).hex())).status


def test_the_line_signs_above_what_was_signed(tmp_path: Path) -> None:
    with running_quickstart(tmp_path / "state") as first:
        pkh = paste(first)
        assert sign(first, pkh, 70) == 200
        assert first.stop() == 0
    with running_quickstart(tmp_path / "state") as second:
        assert paste(second) == pkh
        assert (sign(second, pkh, 70), sign(second, pkh, 71)) == (409, 200)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_terminal_that_closes_and_a_kill_leave_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    with running_quickstart(tmp_path / "state") as first:
        pkh = paste(first)
        programs = [os.pidfd_open(pid) for pid in descendants(first.pid)]
        first.process.send_signal(number)
        assert first.process.wait(PATIENCE_S) == (0 if number == signal.SIGHUP else -signal.SIGKILL)
        assert "Traceback" not in first.process.communicate()[0]
        for program in programs:
            assert select.select([program], [], [], PATIENCE_S)[0], "still running"
            os.close(program)
    # They have ended in order.
    assert not in_use_file(tmp_path / "state" / "signatory.yaml").exists()
    with running_quickstart(tmp_path / "state") as second:
        assert paste(second) == pkh


def test_a_run_after_a_kill_waits_for_the_programs_of_the_other(tmp_path: Path) -> None:
    with running_quickstart(tmp_path / "state") as first:
        first.process.kill()
        first.process.wait(PATIENCE_S)
        with running_quickstart(tmp_path / "state") as second:
            paste(second)


def test_a_terminal_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """As a window that is closed: the session gets SIGHUP, and there is nothing to print to any more."""
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "quickstart", str(tmp_path / "state"), "--allow-memory-file-system"]
    # As the leader of a session, whose terminal this becomes.
    taking = "import fcntl, os, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    with (
        (tmp_path / "errors").open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", taking, *command],
            cwd=ROOT,
            stdin=terminal,
            stdout=terminal,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        os.close(terminal)
        said = b""
        while b"Ctrl-C stops" not in said:
            said += os.read(master, 4096)
        programs = [os.pidfd_open(pid) for pid in descendants(process.pid)]
        os.close(master)
        assert process.wait(PATIENCE_S) == 0
        for program in programs:
            assert select.select([program], [], [], PATIENCE_S)[0], "still running"
            os.close(program)
    assert (tmp_path / "errors").read_text() == ""


def refusal(folder: Path) -> str:
    """Run on a folder that cannot be used, and return the text."""
    command = [sys.executable, "-m", "quickstart", str(folder), "--allow-memory-file-system"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    (line,) = outcome.stderr.splitlines()
    return line


def test_a_second_one_names_the_first(tmp_path: Path) -> None:
    with running_quickstart(tmp_path / "state") as first:
        assert f"it runs already, as process {first.pid}, with {tmp_path}/state: " in refusal(tmp_path / "state")
        paste(first)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal(tmp_path / "file" / "state")
    assert said == (
        f"make run: {tmp_path}/file/state cannot be written to: Not a directory; name another folder: make run STATE=FOLDER"
    )


def test_a_folder_that_was_moved_goes_on_and_a_copy_does_not(tmp_path: Path) -> None:
    with running_quickstart(tmp_path / "old") as first:
        pkh = paste(first)
        assert first.stop() == 0
    (tmp_path / "old").rename(tmp_path / "new")
    with running_quickstart(tmp_path / "new") as second:
        assert paste(second) == pkh
        assert second.stop() == 0
    assert not (tmp_path / "old").exists()
    shutil.copytree(tmp_path / "new", tmp_path / "copy")
    assert "this is a copy, and two copies of a key must never sign" in refusal(tmp_path / "copy")


def test_a_signal_ends_work_once_it_has_cleared_up() -> None:
    cleared: list[str] = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.Event().wait()
        finally:
            # Another one meanwhile changes nothing.
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.to_thread(cleared.append, "all")
        return 1

    assert asyncio.run(until_signal(work())) is None
    assert cleared == ["all"]


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("enclave_signer", "argparse"),
        ("host_backend", "click"),
        ("quickstart", "yaml"),
        ("quickstart.demo", "yaml"),
    ],
)
def test_ctrl_c_before_a_program_has_begun_leaves_no_traceback(tmp_path: Path, module: str, library: str) -> None:
    """It comes while a library is imported."""
    interrupting = tmp_path / f"{library}.py"
    interrupting.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\n")
    outcome = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert outcome.returncode == -signal.SIGINT
    assert "Traceback" not in outcome.stderr


def test_two_at_once_take_different_ports(tmp_path: Path) -> None:
    with running_quickstart(tmp_path / "one") as one, running_quickstart(tmp_path / "two") as two:
        assert one.find(r"host +(\S+)")[1] != two.find(r"host +(\S+)")[1]
        assert paste(one) != paste(two)
        assert one.stop() == two.stop() == 0


def test_a_program_that_ends_by_itself_stops_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with running_quickstart(folder) as quickstart:
        programs = descendants(quickstart.pid)
        os.kill(programs[0], signal.SIGKILL)
        assert quickstart.wait() == 1
        assert re.search(
            rf"^enclave-signer was killed by signal 9 \(its log: {folder}/enclave_signer\.log\), so both are stopped\. "
            r"To go on, run the same command again\.$",
            quickstart.said,
            re.MULTILINE,
        )
    assert alive(programs) == []


def test_a_first_run_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with running_quickstart(folder) as quickstart:
        quickstart.stop()
    config = folder / "signatory.yaml"
    # The state before the first key was made.
    lines = config.read_text().splitlines()
    config.write_text("\n".join(lines[: lines.index("tezos:") + 1]) + "\n")
    with running_quickstart(folder) as again:
        assert "(generated inside the enclave just now)" in again.said
        paste(again)


def test_marks_may_be_kept_in_memory_only_where_that_was_asked_for(tmp_path: Path) -> None:
    for signer, allowed in ((LocalSigner(tmp_path), False), (LocalSigner(tmp_path, in_memory_allowed=True), True)):
        signer.write_config((), (1, 2))
        assert load_config(signer.config_file).watermark.storage == MarksInFile(allow_memory_file_system=allowed)


def test_a_folder_that_cannot_be_used_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "signatory.yaml").write_text("basedir: /x\n")
    command = [sys.executable, "-m", "quickstart", str(tmp_path)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr == f"make run: {tmp_path}/signatory.yaml:1: basedir: unknown field, did you mean base_dir?\n"


def test_a_folder_with_too_long_a_path_is_told_in_words(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    command = [sys.executable, "-m", "quickstart", str(folder)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr.endswith("bytes too long for a Unix socket: use a folder with a shorter path\n")
    assert [path.name for path in folder.iterdir()] == [LOCK]


@pytest.mark.parametrize("name", ["a #b", "a$HOME", "a'b", "a: b", "a\nb"])
def test_a_folder_that_a_configuration_cannot_name_is_refused(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "quickstart", str(tmp_path / name)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(f"make run: {tmp_path / name}: a configuration does not take ")
    assert [path.name for path in (tmp_path / name).iterdir()] == [LOCK]


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its configuration names a port, and an enclave on it is what the next run starts."""
    with running_quickstart(tmp_path) as first:
        pkh = paste(first)
        first.stop()
    config = tmp_path / "signatory.yaml"
    place = f"host: 'unix:{tmp_path}/run/enclave.sock'"
    assert place in config.read_text()
    config.write_text(config.read_text().replace(place, f"host: 127.0.0.1, port: {free_port(0)}"))
    with running_quickstart(tmp_path) as second:
        assert paste(second) == pkh


def test_the_demo_ends_by_itself_and_shows_a_refusal() -> None:
    command = [sys.executable, "-m", "quickstart.demo"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.count("signed and verified") == 4
    (refusal,) = (line for line in outcome.stdout.splitlines() if "  409  " in line)
    assert "watermark validation failed: attestation of tz4" in refusal


def environment(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/environment` with a Python of the test's own, and no other one on the path."""
    fake = folder / "python3"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    return subprocess.run(
        [ROOT / "scripts" / "environment", str(folder / "venv"), "requirements.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={"PATH": f"{folder}:/usr/bin:/bin", "PYTHON": "python3"},
    )


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (
            # A Debian without python3-venv: the interpreter is there, `ensurepip` is not.
            'case "$2" in *ensurepip*) exit 1;; esac',
            (
                "This Python cannot make virtual environments: the package python3-venv is missing.",
                "On Debian and Ubuntu: sudo apt install python3-venv",
            ),
        ),
        (
            'case "$2" in *version_info*) exit 1;; esac',
            (
                "Python 3.11, 3.12 or 3.13 is needed, and python3 is none of them.",
                "Install one, or name it: make PYTHON=/path/to/python3.12 ...",
            ),
        ),
    ],
    ids=["no venv", "too old"],
)
def test_a_python_that_will_not_do_is_told_in_words(tmp_path: Path, python: str, said: tuple[str, ...]) -> None:
    outcome = environment(tmp_path, python)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert tuple(outcome.stderr.splitlines()) == said
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    "head",
    ["#!{}", "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''"],
    ids=["short path", "long path, or blanks"],
)
def test_an_environment_that_was_moved_is_made_again(tmp_path: Path, head: str) -> None:
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    here = binaries / "python"
    here.symlink_to(sys.executable)
    stamp = "cat requirements-build.txt requirements.txt pyproject.toml scripts/environment | cksum"
    wanted = subprocess.run(["sh", "-c", stamp], cwd=ROOT, capture_output=True, check=True).stdout
    (tmp_path / "venv" / "installed-requirements.txt").write_bytes(wanted)
    # A Python that makes nothing, and is asked only where something is to be made.
    nothing = 'case "$2" in *ensurepip*) exit 1;; esac'
    (binaries / "pip").write_text(head.format(here) + "\n")
    outcome = environment(tmp_path, nothing)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
    (binaries / "pip").write_text(head.format(tmp_path / "elsewhere" / "venv" / "bin" / "python") + "\n")
    outcome = environment(tmp_path, nothing)
    assert outcome.returncode == 1
    assert "cannot make virtual environments" in outcome.stderr
