"""The keyprovider as a program with a folder of its own: its configuration, its sealing key, its keys."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from enclave_signer.sealing.kbs_kek import commitment
from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import run, start

MODULE = "enclave_signer.keyprovider"


def wrapping(kek: bytes) -> str:
    """The fields of a key that wraps."""
    return f'commitment = "{commitment(kek)}"\nwrap = true\n'


class Keyprovider:
    """The configuration.

    Args:
        folder: Its own.
        keks: The ids, and the key of each that wraps.
    """

    def __init__(self, folder: Path, keks: Mapping[str, bytes | None]) -> None:
        self.folder = folder
        self.socket = folder / "run" / "keyprovider.sock"
        self.port: tuple[str, int] = ("127.0.0.1", 0)
        image = folder / "image.toml"
        image.write_text(
            f'development = true\nsealers = ["local"]\n[local]\nsealing_key = "{folder}/sealing.key"\nmake_sealing_key = true\n'
        )
        tables = "".join(
            f'[[keks]]\nid = "{key_id}"\nfile = "{folder}/{place}.kek"\n' + ("" if kek is None else wrapping(kek))
            for place, (key_id, kek) in enumerate(keks.items())
        )
        self.image = image
        self.config = folder / "keyprovider.toml"
        self.config.write_text(f'image = "{image}"\nlisteners = ["unix:{self.socket}", "127.0.0.1:0"]\n{tables}')

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", MODULE, *words, "--config", str(self.config)]

    def store(self, key_id: str, *more: str) -> "subprocess.CompletedProcess[str]":
        return run(self.command("store-kek", key_id, *more), timeout=PATIENCE_S)

    def answer(self, request: bytes) -> tuple[int, bytes, str]:
        """Return exit code, standard output and standard error of the command."""
        pipe = subprocess.PIPE
        with start(self.command("answer"), stdin=pipe, stdout=pipe, stderr=pipe) as process:
            out, error = process.communicate(request, timeout=PATIENCE_S)
        return process.returncode, out, error.decode()
