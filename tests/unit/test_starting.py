"""Programs that the fork server starts are as those that `subprocess.Popen` starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import interpreters_of_their_own, run, start

#: Says in which surroundings it is, until its standard input ends; then ends as its last argument says.
SURROUNDINGS = [sys.executable, "-m", "tests.doubles.surroundings"]


def test_they_have_what_they_are_given(tmp_path: Path) -> None:
    said = []
    for start_new_session in (False, True):
        pipe = subprocess.PIPE
        with start(
            [*SURROUNDINGS, "one", "two", "3"],
            cwd=tmp_path,
            env={**os.environ, "GIVEN": "value"},
            start_new_session=start_new_session,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
        ) as process:
            out, _ = process.communicate(b"input", PATIENCE_S)
        pid, session, *others = out.decode().splitlines()
        assert (int(pid), process.returncode) == (process.pid, 3)
        said.append((int(session) == process.pid, others))
    others = ["one two 3", "value", str(tmp_path), "input"]
    assert said == [(False, others), (True, others)]


@pytest.mark.parametrize(
    ("ends", "code", "text"),
    [("0", 0, ""), ("7", 7, ""), ("a text", 1, "a text\n"), ("ValueError", 1, "ValueError: x")],
)
def test_they_end_alike(ends: str, code: int, text: str) -> None:
    forked = run([*SURROUNDINGS, ends], timeout=PATIENCE_S)
    with interpreters_of_their_own():
        executed = run([*SURROUNDINGS, ends], timeout=PATIENCE_S)
    assert (forked.returncode, executed.returncode) == (code, code)
    assert forked.stdout.splitlines()[2:] == executed.stdout.splitlines()[2:]
    for done in (forked, executed):
        assert text in done.stderr
        assert ("Traceback" in done.stderr) == (ends == "ValueError")


def test_a_signal_ends_them() -> None:
    with start([*SURROUNDINGS, "0"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL


def test_what_an_interpreter_reads_at_its_start_is_heeded() -> None:
    done = run([*SURROUNDINGS, "0"], env={**os.environ, "PYTHONIOENCODING": "utf-16"}, timeout=PATIENCE_S)
    assert "\0" in done.stdout
