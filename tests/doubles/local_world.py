"""A daemon with rules for the clients of its Unix socket, as a process, and images that have such rules."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from enclave_signer.tezos import parse_secret_key
from tests.doubles.known_keys import FOUR, KnownKey
from tests.doubles.processes import Enclave, kept
from tests.doubles.wire import WireClient


class LocalEnclave(Enclave):
    """A running daemon on the Unix socket that its image names."""

    def __init__(self, path: Path, image: Path) -> None:
        self.path = path
        super().__init__([sys.executable, "-m", "enclave_signer", "--image", str(image)])

    def ready(self) -> None:
        self.wait_for("listening on unix:")


def rule(peer: Sequence[str], calls: Sequence[str], keys: Sequence[str]) -> str:
    """Return the text of a rule."""
    return f"[[rights]]\npeer = {json.dumps([*peer])}\ncalls = {json.dumps([*calls])}\nkeys = {json.dumps([*keys])}\n"


def write_image(path: Path, rules: str, *, folder_mode: str = "0700", mode: str = "0600", more: str = "") -> Path:
    """Write an image that listens at a path, and return its file, which lies above the path's folder."""
    image = path.parent.parent / "image.toml"
    image.write_text(
        f'development = true\nsealers = ["local"]\nlisteners = ["unix:{path}"]\n'
        f'[local]\nsealing_key = "{path.parent.parent / "sealing.key"}"\nmake_sealing_key = true\n'
        f'[unix_socket]\nfolder_mode = "{folder_mode}"\nmode = "{mode}"\n{more}{rules}'
    )
    return image


@contextmanager
def running_local(path: Path, rules: str, **modes: str) -> Iterator[LocalEnclave]:
    """Run a daemon with these rules."""
    with kept(LocalEnclave(path, write_image(path, rules, **modes))) as enclave:
        yield enclave


@contextmanager
def holding(path: Path, keys: Sequence[KnownKey] = FOUR) -> Iterator[WireClient]:
    """Hold known keys open on a connection, as a host does."""
    with WireClient(path) as host:
        for key in keys:
            answer = host.call({"ImportUnencrypted": {key.key_type.value: parse_secret_key(key.secret).data}})
            assert "Ok" in answer, answer
        yield host
