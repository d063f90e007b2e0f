"""Secret keys on their way in: not on the screen, not in a core dump, not in another process, not from an open file."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.host_process import UNPRIVILEGED, VAULT, run_command, stored_hashes, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave
from tests.doubles.terminal import drained
from tests.integration.test_inspection import read

TZ1 = FOUR[0]
PROMPT = re.compile(rb"Enter the secret key.*: ")


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    return write_config(tmp_path, local.port)


def allow_core_dumps() -> None:
    """Undo what this machine may forbid, and what a shell makes of programs in the background."""
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


@dataclass
class Asking:
    """A command that asks for a secret key on a terminal."""

    process: subprocess.Popen[bytes]
    master: int


@contextmanager
def asking(*words: str | Path) -> Iterator[Asking]:
    """Run a command until it asks for a secret key."""
    master, slave = os.openpty()
    command = [*UNPRIVILEGED, sys.executable, "-m", "host_backend", *map(str, words)]
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=allow_core_dumps,  # noqa: PLW1509 -- it takes no lock
    ) as process:
        os.close(slave)
        shown = b""
        while not PROMPT.search(shown):
            shown += os.read(master, 4096)
        try:
            yield Asking(process, master)
        finally:
            process.kill()


def commands(config: Path) -> dict[str, list[str | Path]]:
    load: list[str | Path] = ["import", "-c", config, "--vault", VAULT]
    sign: list[str | Path] = ["authenticate", TZ1.pkh, "03ab"]
    return {
        "import": [*load],
        "import -": [*load, "-"],
        "import --from -": [*load, "--from", "-"],
        "authenticate": [*sign],
        "authenticate --from -": [*sign, "--from", "-"],
    }


@pytest.mark.parametrize("words", commands(Path()))
def test_what_is_typed_is_not_shown(config: Path, words: str) -> None:
    with asking(*commands(config)[words]) as command:
        # The end of the file is typed, too, where a key may have several lines.
        os.write(command.master, f"{TZ1.secret}\n".encode() + b"\x04" * words.endswith("-"))
        shown = drained(command.master)
        assert command.process.wait(PATIENCE_S) == 0, shown
    assert TZ1.secret.encode() not in shown
    if words.startswith("import"):
        assert stored_hashes(config) == [TZ1.pkh]


def test_bytes_that_the_terminal_s_encoding_does_not_have_are_refused(config: Path) -> None:
    with asking(*commands(config)["import"]) as command:
        os.write(command.master, b"ed\xffsk\n")
        shown = drained(command.master)
        assert command.process.wait(PATIENCE_S) == 2, shown
    assert b"Error: what was typed is not in the terminal's encoding: use --from FILE, or - for standard input" in shown
    assert b"0xff" not in shown


@pytest.mark.parametrize("words", ["import -", "authenticate"])
def test_no_other_process_reads_its_memory(config: Path, words: str) -> None:
    with asking(*commands(config)[words]) as command:
        for name in ("mem", "environ", "maps"):
            assert read(command.process.pid, name) == "forbidden"


@pytest.mark.parametrize("words", ["import -", "authenticate"])
def test_it_leaves_no_core_dump(config: Path, words: str) -> None:
    with asking(*commands(config)[words]) as command:
        command.process.send_signal(signal.SIGQUIT)
        _, status = os.waitpid(command.process.pid, 0)
        # `waitpid` has taken the end that `wait` would look for.
        command.process.returncode = -os.WTERMSIG(status)
        os.close(command.master)
    assert os.WTERMSIG(status) == signal.SIGQUIT
    assert not os.WCOREDUMP(status)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_read_gets_a_warning(config: Path, tmp_path: Path, mode: int, warned: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_text(TZ1.secret)
    secret.chmod(mode)
    outcome = run_command("import", "-c", config, "--vault", VAULT, "--from", secret)
    assert outcome.code == 0
    assert (f"{secret} can be read by others: chmod 600 {secret}" in outcome.stderr) == warned


@pytest.mark.parametrize(
    "words",
    [
        ("host_backend", TZ1.secret),
        ("host_backend", f"--{TZ1.secret}"),
        ("host_backend", "watermark", "raise", "main", "tz1", TZ1.secret, "3"),
        ("host_backend", "generate", "-t", TZ1.secret),
        ("host_backend", "generate", "-n", TZ1.secret),
        ("host_backend", "list", "--json", TZ1.secret),
        ("enclave_signer", TZ1.secret),
        ("enclave_signer", "--log", TZ1.secret),
        ("enclave_signer.keyprovider", TZ1.secret),
        ("enclave_signer.keyprovider", "serve", f"--{TZ1.secret}"),
    ],
    ids=" ".join,
)
def test_a_key_given_as_a_word_of_the_command_is_not_repeated(words: tuple[str, ...]) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False, input="", cwd=ROOT
    )
    assert outcome.returncode == 2
    assert TZ1.secret[4:] not in outcome.stdout + outcome.stderr
    # What argparse stops at may be a missing option, not the key.
    assert f"{TZ1.secret[:4]}***" in outcome.stderr or "required" in outcome.stderr
