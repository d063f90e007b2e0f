"""A host and its commands as real processes, led to a double of a service of Google by their environment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from tests.doubles.google.firestore import FirestoreDouble
from tests.doubles.google.storage import StorageDouble
from tests.doubles.host_process import Host
from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import run, start

D = TypeVar("D", FirestoreDouble, StorageDouble)


@dataclass
class LedSite(Generic[D]):
    """A folder with a configuration, and the double that its programs are led to."""

    #: The host's program, which takes the double's address from a variable of its environment.
    MODULE: ClassVar[str]
    VARIABLE: ClassVar[str]

    double: D
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "signatory.yaml"

    def command(self, *words: str, code: int = 0) -> str:
        """Run a command; return what it printed, or, if it must fail, what it said."""
        done = run(self._command(words), env={**os.environ, **self._leading}, timeout=PATIENCE_S)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def killed(self, number: int, *words: str) -> bool:
        """Run a command, kill it after the double has done so many things; return whether it came to them."""
        pipe = subprocess.PIPE
        with start(self._command(words), stdout=pipe, stderr=pipe, env={**os.environ, **self._leading}) as running:
            seen = count(1)

            def on_done(_what: str) -> None:
                if next(seen) == number:
                    running.kill()

            self.double.on_done = on_done
            running.communicate(timeout=PATIENCE_S)
            self.double.on_done = lambda _what: None
        return next(seen) > number

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Host]:
        host = Host(self.config, *arguments, module=self.MODULE, environment=self._leading)
        try:
            host.ready()
            yield host
        finally:
            host.discard()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", self.MODULE, *words, "-c", str(self.config)]

    @property
    def _leading(self) -> dict[str, str]:
        return {self.VARIABLE: self.double.address}
