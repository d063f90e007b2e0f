"""The host as real processes: `serve`, and commands that end, each on a configuration made for it."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.known_keys import KnownKey
from tests.doubles.processes import PATIENCE_S, Program
from tests.doubles.starting import is_forked, start

VAULT = "enclave"
#: Prefixes of a command: without privileges; and, with a number of bytes, with files that grow no further.
UNPRIVILEGED = (sys.executable, "-m", "tests.doubles.unprivileged")
LIMITED = (sys.executable, "-m", "tests.doubles.limited")
_LOG_LINE = re.compile(r'time="[^"]+" level=(info|warning|error) msg="')
#: What `write_config` calls a configuration, and where the host keeps its files, both in the folder it is given.
CONFIG_NAME = "signatory.yaml"
BASE_NAME = "host"
#: Marks on disk; temporary folders may be in memory.
FILE_WATERMARKS = "{driver: file, config: {allow_memory_file_system: true}}"
#: A policy that allows every kind of consensus message, and transactions.
BAKER = "{allow: {block: , preattestation: , attestation: , attestation_with_dal: , generic: [transaction]}}"


def write_config(
    folder: Path,
    enclave: int | Path,
    tezos: Mapping[str, str] | None = None,
    *,
    key: str | None = None,
    watermark: str = FILE_WATERMARKS,
    more: Sequence[str] = (),
) -> Path:
    """Write a configuration with free ports, one vault, and policies by public-key hash; return its path.

    `enclave` is the port of the daemon, or its Unix socket; `key`, the key-encryption key that it is to use.
    """
    where = f"host: 'unix:{enclave}'" if isinstance(enclave, Path) else f"host: 127.0.0.1, port: {enclave}"
    if key is not None:
        where += f", encryption_key_path: {key}"
    lines = [
        f"base_dir: {folder / BASE_NAME}",
        "server: {address: '127.0.0.1:0', utility_address: '127.0.0.1:0'}",
        "vaults:",
        f"  {VAULT}: {{driver: confidentialspace, config: {{{where}}}}}",
        "tezos:",
        *(f"  {pkh}: {policy}" for pkh, policy in (tezos or {}).items()),
        f"watermark: {watermark}",
        *more,
    ]
    path = folder / CONFIG_NAME
    path.write_text("\n".join(lines) + "\n")
    return path


def base(config: Path) -> Path:
    return config.parent / BASE_NAME


def key_file(config: Path) -> Path:
    return base(config) / "confidential_space_keys.json"


def store_file(config: Path) -> Path:
    return base(config) / "watermark.marks"


def in_use_file(config: Path) -> Path:
    return base(config) / "watermark_v2" / "in-use-by-enclave-host.json"


def stored_hashes(config: Path) -> list[str]:
    """Return the hashes in the key file, in order; none when there is no file."""
    path = key_file(config)
    return [entry["public_key_hash"] for entry in json.loads(path.read_text())] if path.exists() else []


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did.

    `cmdline` and `environ` are what others could see of it while it ran, if it had an interpreter of its own.
    """

    code: int
    stdout: str
    stderr: str
    cmdline: bytes
    environ: bytes

    @property
    def error(self) -> str:
        """The text of the one line that begins `Error: `."""
        (line,) = (line for line in self.stderr.splitlines() if line.startswith("Error: "))
        return line.removeprefix("Error: ")


def _seen_from_outside(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    proc = Path(f"/proc/{process.pid}")
    # Empty until the kernel has set the new program up.
    while not (cmdline := (proc / "cmdline").read_bytes()):
        assert process.poll() is None
    return cmdline, (proc / "environ").read_bytes()


def run_command(
    *arguments: str | Path, given: str | bytes = b"", prefix: Sequence[str] = (), module: str = "host_backend"
) -> Outcome:
    """Run `enclave-host` with arguments and standard input until it ends.

    `prefix` is a command that runs it; `module`, the module that is run.
    """
    command = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
    pipe = subprocess.PIPE
    # Without a terminal of its own, wherever the tests run.
    running = start(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    with running as process:
        try:
            cmdline, environ = (b"", b"") if is_forked(process) else _seen_from_outside(process)
            stdout, stderr = process.communicate(given.encode() if isinstance(given, str) else given, PATIENCE_S)
        except BaseException:
            # Such as a host that should have been refused, and runs.
            process.kill()
            raise
    return Outcome(process.returncode, stdout.decode(), stderr.decode(), cmdline, environ)


def refused(outcome: Outcome, code: int) -> str:
    """Return the text of a refusal: one line on standard error, beside lines of the log, and JSON if that was asked for."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == "" or json.loads(outcome.stdout)["exit"] == code
    assert "Traceback" not in outcome.stderr
    others = [line for line in outcome.stderr.splitlines() if not line.startswith("Error: ")]
    assert all(_LOG_LINE.match(line) for line in others), outcome.stderr
    return outcome.error


def import_keys(config: Path, *keys: KnownKey) -> None:
    """Import keys by one command."""
    outcome = run_command("import", "-c", config, "--vault", VAULT, *(key.secret for key in keys))
    assert outcome.code == 0, outcome.stderr


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        """The text of a refusal, which has exactly Signatory's form."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.body.endswith(b"\n")
        (refusal,) = json.loads(self.body)
        assert list(refusal) == ["id", "kind", "msg"]
        assert (refusal["id"], refusal["kind"]) == ("failure", "temporary")
        return str(refusal["msg"])

    @property
    def signature(self) -> str:
        """The signature of a response that has exactly Signatory's form."""
        assert self.status == 200, self.body
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.body.startswith(b'{"signature":"')
        assert self.body.endswith(b'"}\n')
        return str(json.loads(self.body)["signature"])


def ask(port: int, method: str, path: str, body: str | bytes | None = None) -> Answer:
    """Make one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


class Host(Program):
    """A running `enclave-host serve`; `prefix` is a command that runs it, such as a tracer, `module` the module that is run."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        prefix: Sequence[str] = (),
        module: str = "host_backend",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        super().__init__([*prefix, sys.executable, "-m", module, "serve", "-c", str(config), *arguments], environment)

    #: The port that clients come to; 0 where they come to a Unix socket.
    port = 0

    def ready(self) -> None:
        address = r"is listening for connections on (?:127\.0\.0\.1:(\d+)|unix:([^\"]+))\""
        found = self.wait_for(f'"HTTP server {address}')
        if found[1]:
            self.port = int(found[1])
        else:
            self.socket = Path(found[2])
        self.utility_port = int(self.wait_for(f"Utility HTTP server {address}")[1])

    @property
    def address(self) -> int | Path:
        """Where clients come to: a port, or a Unix socket."""
        return self.port or self.socket

    def discard(self) -> None:
        """Kill it if it still runs, as with `kill -9`, and forget it."""
        if self.process.poll() is None:
            self.process.kill()
        self.stop()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def ask(self, method: str, path: str, body: str | bytes | None = None) -> Answer:
        return ask(self.port, method, path, body)

    def sign(self, pkh: str, message: bytes, query: str = "") -> Answer:
        return self.ask("POST", f"/keys/{pkh}{query}", json.dumps(message.hex()))

    def health(self) -> tuple[int, dict[str, object]]:
        answer = ask(self.utility_port, "GET", "/healthz")
        body = json.loads(answer.body)
        assert isinstance(body, dict)
        return answer.status, body


@contextmanager
def running_host(config: Path, *arguments: str, prefix: Sequence[str] = ()) -> Iterator[Host]:
    """Run the host; kill it at the end if it still runs."""
    host = Host(config, *arguments, prefix=prefix)
    try:
        host.ready()
        yield host
    finally:
        host.discard()
