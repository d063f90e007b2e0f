"""Real programs as real processes: started, waited for by what they say, stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.doubles import starting

#: Seconds for a program to say that it is ready, and to end: far more than either takes.
PATIENCE_S = 60.0

ROOT = starting.ROOT

SomeEnclave = TypeVar("SomeEnclave", bound="Enclave")


class Program:
    """A running process whose standard error is kept."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.process = starting.start(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def log(self) -> str:
        """Everything said on standard error so far."""
        with self._news:
            return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match of a pattern in what the program says; fail when it ends before."""

        def match() -> re.Match[str] | None:
            return re.search(pattern, "".join(self._lines))

        with self._news:
            self._news.wait_for(lambda: match() is not None or self._ended, PATIENCE_S)
            found = match()
            assert found is not None, f"no {pattern!r} in what the program said:\n{''.join(self._lines)}"
            return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; everything said is in `log` then."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def resident_bytes(self) -> int:
        """Return the memory that the process has in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def own_bytes(self) -> int:
        """Return the same without pages of files, which come and go as the system likes; 0 when it has died."""
        found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) << 10 if found else 0


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run a program; kill it at the end if it still runs."""
    program = Program(command, environment)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.stop()
        assert program.process.stderr is not None
        program.process.stderr.close()


class Enclave(Program):
    """A running daemon and its address."""

    host = "127.0.0.1"

    def ready(self) -> None:
        self.port = int(self.wait_for(r"listening on (?:127\.0\.0\.1|0\.0\.0\.0):(\d+)")[1])

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@contextmanager
def running_enclave(*arguments: str, module: str = "tests.doubles.passthrough_enclave") -> Iterator[Enclave]:
    """Run a daemon on a free port; by default the one that seals nothing."""
    with kept(Enclave([sys.executable, "-m", module, "--listen", "127.0.0.1:0", *arguments])) as enclave:
        yield enclave


class UnixEnclave(Enclave):
    """A running daemon on a Unix socket with the local sealer, which it keeps beside the socket's folder."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.path = path
        key = path.parent.parent / "sealing.key"
        command = [sys.executable, "-m", "enclave_signer", "--listen", f"unix:{path}", "--sealing-key", str(key)]
        super().__init__([*command, "--make-sealing-key", *arguments])

    def ready(self) -> None:
        self.wait_for(re.escape(f"listening on unix:{self.path}"))


@contextmanager
def kept(enclave: SomeEnclave) -> Iterator[SomeEnclave]:
    """Give a daemon when it is ready; kill it at the end if it still runs."""
    try:
        enclave.ready()
        yield enclave
    finally:
        if enclave.process.poll() is None:
            enclave.process.kill()
        enclave.stop()
        assert enclave.process.stderr is not None
        enclave.process.stderr.close()


@contextmanager
def running_slow_enclave(delay_ms: int, *arguments: str) -> Iterator[Enclave]:
    """Run a daemon whose sealer takes this long for every blob that is new to it."""
    command = [sys.executable, "-m", "tests.doubles.slow_enclave", "--listen", "127.0.0.1:0", *arguments]
    with kept(Enclave(command, {"SLOW_SEALER_MS": str(delay_ms)})) as enclave:
        yield enclave


class Cloud:
    """How the sealer of `running_cloud_enclave` is at the moment."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.set("ok")

    def set(self, mode: str, *, call_ms: int = 0, initialize_ms: int = 0) -> None:
        """Change it, at once and whole."""
        new = self.state.with_suffix(".new")
        new.write_text(json.dumps({"mode": mode, "call_ms": call_ms, "initialize_ms": initialize_ms}))
        new.replace(self.state)


@contextmanager
def running_cloud_enclave(cloud: Cloud, *arguments: str) -> Iterator[Enclave]:
    """Run a daemon whose sealer is as `cloud` says, and remembers no key."""
    listen = ("--listen", "127.0.0.1:0", "--retain", "0")
    command = [sys.executable, "-m", "tests.doubles.cloud_enclave", *listen, *arguments]
    with kept(Enclave(command, {"CLOUD_SEALER_STATE": str(cloud.state)})) as enclave:
        yield enclave


@contextmanager
def running_gcp_enclave(image: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Enclave]:
    """Run a daemon that seals by Cloud KMS; `environment` says where the doubles of Google's services are."""
    command = [sys.executable, "-m", "tests.doubles.gcp_enclave", "--listen", "127.0.0.1:0", "--image", str(image)]
    with kept(Enclave([*command, *arguments], environment)) as enclave:
        yield enclave


@contextmanager
def unguarded_enclave(key_file: Path) -> Iterator[Enclave]:
    """Run the daemon with the local sealer and without its guard: what the host's marks let through is signed."""
    with running_local_enclave(key_file, "--no-guard") as enclave:
        yield enclave


@contextmanager
def running_local_enclave(key_file: Path, *arguments: str) -> Iterator[Enclave]:
    """Run the daemon with the local sealer."""
    with running_enclave(
        "--sealing-key", str(key_file), "--make-sealing-key", *arguments, module="enclave_signer"
    ) as enclave:
        yield enclave


@contextmanager
def running_leaky_enclave(key_file: Path, leak: str) -> Iterator[Enclave]:
    """Run the daemon with the local sealer and a leak."""
    key = ("--sealing-key", str(key_file), "--make-sealing-key")
    command = [sys.executable, "-m", "tests.doubles.leaky_enclave", "--listen", "127.0.0.1:0", *key]
    with kept(Enclave(command, {"LEAK": leak})) as enclave:
        yield enclave
