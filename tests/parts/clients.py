"""Clients that others wrote, run as `docs/clients.md` shows them, against a running host and the double of a node."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from enclave_signer.protocol.messages import Signature
from enclave_signer.tezos import encode_signature
from tests.contract.markdown import DOCS, blocks
from tests.doubles.host_process import VAULT, Host, import_keys, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR, KnownKey
from tests.doubles.oracles import verify
from tests.doubles.processes import PATIENCE_S, running_local_enclave
from tests.doubles.tezos_node import OPERATION_HASH, running_node

PAGE = DOCS / "clients.md"
_POLICY = "{allow: {generic: [transaction, increase_paid_storage]}}"
_TZ5 = "experimental: {tz5: true}"
#: Who may ask a host, by its name: every client; a key that none of these clients has; a user with a token.
_ASKING = {
    "open": "",
    "signed": "authorized_keys: [edpkud8ipzduPFnCWCK1xVpDGCQgreUzMu21WLsHN1icgdK9RG3fhb], ",
    "tokens": "jwt: {users: {alice: {password: 'a Password 1 of some length', "
    "secret: 'a Secret 1 of more than thirty-two characters'}}}, ",
}
_NODE, _SIGNER, _PKH = "http://127.0.0.1:8732", "http://127.0.0.1:6732", "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf"
#: Where a snippet ends in sending something, for tests that send something else.
TRANSFER = 'transfer({ to: "tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb", amount: 1 })'


def paid_storage(amount: int) -> str:
    """Return what a program in JavaScript sends in place of `TRANSFER`."""
    return f'increasePaidStorage({{ amount: {amount}, destination: "KT1PWx2mnDueood7fEmfbBDKx1D9BAnnXitn" }})'


#: What these clients write for 100 and for 128: numbers with a sign, as Octez reads them.
_AS_MINUS_36, _AS_64 = b"\x64", b"\x80\x01"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a client's run.

    Attributes:
        code: Its exit code.
        said: All that it printed.
        operation: What it injected, without its signature; empty if nothing.
        signature: The bytes after that.
    """

    code: int
    said: str
    operation: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Site:
    """Hosts with a key of every kind.

    Attributes:
        hosts: By name: `open`, `signed` and `tokens`, by what they want of requests.
        tz5: The hash of the tz5 key.
    """

    hosts: Mapping[str, Host]
    tz5: str

    def token(self) -> str:
        """Return a token of the user `alice`."""
        connection = HTTPConnection("127.0.0.1", self.hosts["tokens"].port, timeout=PATIENCE_S)
        with closing(connection):
            headers = {"username": "alice", "password": "a Password 1 of some length"}
            connection.request("POST", "/login", headers=headers)
            return connection.getresponse().read().decode()

    def send(self, command: list[str], program: Path, text: str, pkh: str, host: str = "open") -> Sent:
        """Run a snippet with a host, a key and a node of its own.

        Args:
            command: What runs a program.
            program: Where the snippet is written to.
            text: The snippet.
            pkh: The hash of the key.
            host: The name of the host.
        """
        public_key = json.loads(self.hosts["open"].ask("GET", f"/keys/{pkh}").body)["public_key"]
        with running_node(public_key) as node:
            signer = f"http://127.0.0.1:{self.hosts[host].port}"
            for old, new in ((_NODE, node.address), (_SIGNER, signer), (_PKH, pkh)):
                assert old in text
                text = text.replace(old, new)
            program.write_text(text)
            done = subprocess.run(
                [*command, str(program)],
                cwd=program.parent,
                check=False,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            (data,) = node.injected or [b""]
        if data:
            assert done.stdout.strip() == OPERATION_HASH
        size = 96 if pkh.startswith("tz4") else 64
        return Sent(done.returncode, done.stdout + done.stderr, data[:-size], data[-size:])


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """Run an enclave, and the hosts on it."""
    with running_local_enclave(folder / "sealing.key") as enclave, ExitStack() as stack:
        config = write_config(folder, enclave.port, more=[_TZ5])
        made = run_command("generate", "-c", config, "-v", VAULT, "-t", "tz5", "--json")
        tz5 = str(json.loads(made.stdout)["keys"][0]["public_key_hash"])
        hosts: dict[str, Host] = {}
        for name, asking in _ASKING.items():
            pkhs = [*(key.pkh for key in FOUR), *([tz5] if name == "open" else ())]
            own = folder if name == "open" else folder / name
            own.mkdir(exist_ok=True)
            config = write_config(own, enclave.port, dict.fromkeys(pkhs, _POLICY), more=[_TZ5])
            config.write_text(config.read_text().replace("server: {", f"server: {{{asking}", 1))
            import_keys(config, *FOUR)
            hosts[name] = stack.enter_context(running_host(config))
        yield Site(hosts, tz5)


def snippet(language: str, place: int = 0) -> str:
    """Return one of the page's programs."""
    return blocks(PAGE, language)[place]


def check_sent(sent: Sent, key: KnownKey) -> None:
    """Pass when the client injected an operation that the key signed, by a verifier of our own."""
    assert sent.code == 0, sent.said
    text = encode_signature(Signature(key.key_type, sent.signature))
    verify(key, text, b"\x03" + sent.operation)


def npm(folder: Path) -> Path:
    """Install the packages of `npm_clients` in a folder, by the hashes of the lock file, and return it."""
    for file in Path(__file__).with_name("npm_clients").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, timeout=PATIENCE_S)
    return folder


def check_paid_storage(send: Callable[[str], Sent], key: KnownKey, refusal: str) -> None:
    """See what a client in JavaScript makes of amounts of paid storage: right below 64, wrong from there on.

    Args:
        send: Runs the client with what it does in place of `TRANSFER`.
        key: Signs.
        refusal: What the client says when the host refuses what it wrote.
    """
    check_sent(send(paid_storage(63)), key)
    refused = send(paid_storage(64))
    assert (refused.code, refused.operation) == (1, b"")
    assert refusal in refused.said
    for amount, written in ((100, _AS_MINUS_36), (128, _AS_64)):
        wrong = send(paid_storage(amount))
        check_sent(wrong, key)
        assert written + b"\x01" in wrong.operation
