"""A configuration whose keys and marks are in the double of Firestore, and its commands and host as real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.doubles.enclave_proxy import EnclaveProxy
from tests.doubles.fault_proxy import FaultProxy
from tests.doubles.google.firestore import FirestoreDouble
from tests.doubles.host_process import BAKER, BASE_NAME, VAULT, Host
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S, Enclave
from tests.doubles.starting import run, start

MODULE = "tests.doubles.google.host"
ALICE, BOB, *_ = FOUR
IN_FIRESTORE = "{driver: gcp, config: {project: p}}"


@dataclass
class Site:
    """A configuration, and the double that its host is led to; `key` is the key-encryption key of its vault."""

    double: FirestoreDouble
    folder: Path
    enclave: Enclave | EnclaveProxy | FaultProxy
    key: str | None = None

    @property
    def config(self) -> Path:
        return self.folder / "signatory.yaml"

    @property
    def base(self) -> Path:
        return self.folder / BASE_NAME

    def configure(self, watermark: str = IN_FIRESTORE, *keys: str) -> None:
        self.folder.mkdir(exist_ok=True)
        storage = "storage: {driver: firestore, config: {project: p}}"
        where = f"host: 127.0.0.1, port: {self.enclave.port}"
        if self.key is not None:
            where += f", encryption_key_path: {self.key}"
        lines = [
            f"base_dir: {self.base}",
            "server: {address: '127.0.0.1:0', utility_address: '127.0.0.1:0'}",
            "vaults:",
            f"  {VAULT}: {{driver: confidentialspace, config: {{{where}, {storage}}}}}",
            "tezos:",
            *(f"  {pkh}: {BAKER}" for pkh in keys or (ALICE.pkh, BOB.pkh)),
            f"watermark: {watermark}",
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *words: str, code: int = 0) -> str:
        """Run a command; return what it printed, or, if it must fail, what it said."""
        command = [sys.executable, "-m", MODULE, *words, "-c", str(self.config)]
        done = run(command, env={**os.environ, "FIRESTORE_DOUBLE": self.double.address}, timeout=PATIENCE_S)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def killed(self, calls: int, *words: str) -> bool:
        """Run a command, kill it after so many calls of the service were done; return whether it came to them."""
        command = [sys.executable, "-m", MODULE, *words, "-c", str(self.config)]
        environment = {**os.environ, "FIRESTORE_DOUBLE": self.double.address}
        pipe = subprocess.PIPE
        with start(command, stdout=pipe, stderr=pipe, env=environment) as running:
            seen = count(1)

            def on_done(_method: str) -> None:
                if next(seen) == calls:
                    running.kill()

            self.double.on_done = on_done
            running.communicate(timeout=PATIENCE_S)
            self.double.on_done = lambda _method: None
        return next(seen) > calls

    def marks(self) -> list[tuple[str, int]]:
        """The right and level of every mark that is shown."""
        return [
            (each["right"], each["level"]) for each in json.loads(self.command("watermark", "show", "--json"))["marks"]
        ]

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Host]:
        host = Host(self.config, *arguments, module=MODULE, environment={"FIRESTORE_DOUBLE": self.double.address})
        try:
            host.ready()
            yield host
        finally:
            host.discard()
