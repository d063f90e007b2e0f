"""A configuration whose keys are in the double of Cloud Storage, and its commands and host as real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.doubles.google.storage import BUCKET, StorageDouble
from tests.doubles.host_process import BAKER, BASE_NAME, FILE_WATERMARKS, VAULT, Host
from tests.doubles.processes import PATIENCE_S, Enclave
from tests.doubles.starting import run, start

MODULE = "tests.doubles.google.bucket_host"


@dataclass
class BucketSite:
    """A configuration, and the double that its host is led to; `key` is the key-encryption key of its vault."""

    double: StorageDouble
    folder: Path
    enclave: Enclave
    key: str | None = None

    @property
    def config(self) -> Path:
        return self.folder / "signatory.yaml"

    @property
    def keys(self) -> dict[str, bytes]:
        """The blobs of all objects that have the name of a key."""
        return self.double.below("enclave-host/keys/")

    def configure(self, *pkhs: str, more: str = "") -> None:
        self.folder.mkdir(exist_ok=True)
        where = f"host: 127.0.0.1, port: {self.enclave.port}"
        if self.key is not None:
            where += f", encryption_key_path: {self.key}"
        storage = f"storage: {{driver: gcs, config: {{bucket: {BUCKET}}}}}"
        lines = [
            f"base_dir: {self.folder / BASE_NAME}",
            "server: {address: '127.0.0.1:0', utility_address: '127.0.0.1:0'}",
            "vaults:",
            f"  {VAULT}: {{driver: confidentialspace, config: {{{where}, {storage}}}}}",
            "tezos:",
            *(f"  {pkh}: {BAKER}" for pkh in pkhs),
            f"watermark: {FILE_WATERMARKS}",
            more,
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self, *words: str, code: int = 0) -> str:
        """Run a command; return what it printed, or, if it must fail, what it said."""
        done = run(self._command(words), env=self._environment, timeout=PATIENCE_S)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def killed(self, changes: int, *words: str) -> bool:
        """Run a command, kill it after so many changes of the bucket; return whether it came to them."""
        pipe = subprocess.PIPE
        with start(self._command(words), stdout=pipe, stderr=pipe, env=self._environment) as running:
            seen = count(1)

            def on_done(_call: str) -> None:
                if next(seen) == changes:
                    running.kill()

            self.double.on_done = on_done
            running.communicate(timeout=PATIENCE_S)
            self.double.on_done = lambda _call: None
        return next(seen) > changes

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", MODULE, *words, "-c", str(self.config)]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "STORAGE_DOUBLE": self.double.address}

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Host]:
        environment = {"STORAGE_DOUBLE": self.double.address}
        host = Host(self.config, *arguments, module=MODULE, environment=environment)
        try:
            host.ready()
            yield host
        finally:
            host.discard()
