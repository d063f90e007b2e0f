"""What a chaotic run is about: two enclaves and three hosts as real processes, and everything around them as doubles.

- `enclave` seals by Cloud KMS. The hosts `file` and `firestore`, by where their marks are, reach it through a proxy each.
- `attested enclave` also proves itself over TLS, to the host `attested`, whose marks are in a file.
- Every host has keys of its own, of all four curves where there are enough.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.doubles.attested_world import AttestedWorld, attested_world
from tests.doubles.chaotic import STATE_VARIABLE, State
from tests.doubles.fault_proxy import FaultProxy, fault_proxy
from tests.doubles.google.cloud import IMAGE, GoogleCloud, running_google_cloud
from tests.doubles.google.firestore import FirestoreDouble, running_firestore
from tests.doubles.google.site import IN_FIRESTORE, Site
from tests.doubles.google.tokens import AUDIENCE
from tests.doubles.host_process import BAKER, BASE_NAME, VAULT, Host, import_keys, run_command, write_config
from tests.doubles.known_keys import FOUR, KEYS, KnownKey
from tests.doubles.processes import Enclave, Program

#: The keys of each host.
KEYS_OF: dict[str, tuple[KnownKey, ...]] = {
    "file": FOUR,
    "firestore": tuple(
        KEYS[name] for name in ("alice", "docs_secp256k1_unencrypted", "docs_p256_unencrypted", "tz4pop")
    ),
    "attested": (KEYS["bob"], KEYS["unit_test_bls"]),
}
HOSTS = tuple(KEYS_OF)
ENCLAVES = ("enclave", "attested enclave")
PROGRAMS = (*HOSTS, *ENCLAVES)
#: Seconds that an enclave remembers opened keys: every new connection asks Cloud KMS again.
_RETAIN_S = "0"
#: Bytes of the file system in memory that holds the marks of `file`, where it may be mounted.
_SMALL_BYTES = 16 << 20


class Unit:
    """A program that is killed, stopped and started again."""

    def __init__(self, start: Callable[[], Program]) -> None:
        self._start = start
        self.program: Program | None = None
        #: How often it was started.
        self.lives = 0
        #: Whatever earlier lives said.
        self.said = ""

    @property
    def runs(self) -> bool:
        return self.program is not None and self.program.process.poll() is None

    def start(self) -> None:
        """Start it, and return when it is ready.

        Raises:
            AssertionError: It ended before.
        """
        if self.runs:
            return
        self.discard()
        self.lives += 1
        self.program = self._start()
        self.program.ready()  # type: ignore[attr-defined]

    def send(self, number: signal.Signals) -> None:
        if self.program is not None and self.program.process.poll() is None:
            self.program.process.send_signal(number)

    def discard(self) -> None:
        """Kill it, if it runs, and keep what it said."""
        if self.program is None:
            return
        self.send(signal.SIGKILL)
        self.program.stop(signal.SIGKILL)
        self.said += self.program.log
        assert self.program.process.stderr is not None
        self.program.process.stderr.close()
        self.program = None

    def resident(self) -> tuple[int, int] | None:
        """Return the number of its life and what it has in RAM of its own; None while it does not run."""
        program = self.program
        if program is None or program.process.poll() is not None:
            return None
        with suppress(OSError):
            # One that has just died has none.
            if size := program.own_bytes():
                return self.lives, size
        return None


class ChaoticSite:
    """Everything; use `chaotic_site`."""

    def __init__(
        self,
        folder: Path,
        cloud: GoogleCloud,
        firestore: FirestoreDouble,
        attested: AttestedWorld,
        proxies: dict[str, FaultProxy],
    ) -> None:
        self.folder = folder
        self.cloud = cloud
        self.firestore = firestore
        self.attested = attested
        self.proxies = proxies
        self.states = {name: State(folder / f"{name.replace(' ', '-')}.state") for name in PROGRAMS}
        for state in self.states.values():
            state.save()
        #: Where the disk of `file` may really be filled; None: nowhere.
        self.small: Path | None = None
        self.units = {
            **{name: Unit(lambda name=name: self._open_host(name)) for name in HOSTS},  # type: ignore[misc]
            "enclave": Unit(self._open_enclave),
            "attested enclave": Unit(self._open_attested),
        }
        self.configs: dict[str, Path] = {}
        self._attested_port = 0

    def port(self, name: str) -> int:
        """Return where a program's clients come to; 0 while that is nowhere."""
        program = self.units[name].program
        return program.port if isinstance(program, Host | Enclave) and "port" in vars(program) else 0

    def _environment(self, name: str) -> dict[str, str]:
        more = {"FIRESTORE_DOUBLE": self.firestore.address} if name == "firestore" else {}
        return {STATE_VARIABLE: str(self.states[name].path), **more}

    def _open_host(self, name: str) -> Host:
        return Host(self.configs[name], module="tests.doubles.chaotic_host", environment=self._environment(name))

    def _enclave(self, name: str, *arguments: str) -> Enclave:
        command = [sys.executable, "-m", "tests.doubles.chaotic_enclave", "--retain", _RETAIN_S, *arguments]
        launcher = {"LAUNCHER": str(self.attested.socket)}
        return Enclave(command, {**self._environment(name), **self.cloud.environment(), **launcher})

    def _open_enclave(self) -> Enclave:
        image = self.folder / "image.toml"
        image.write_text(IMAGE)
        enclave = self._enclave("enclave", "--image", str(image), "--listen", "127.0.0.1:0")
        enclave.ready()
        for proxy in self.proxies.values():
            proxy.point_to(enclave.address)
        return enclave

    def _open_attested(self) -> Enclave:
        listeners, rest = f'listeners = ["127.0.0.1:{self._attested_port}"]\n', self.attested.client.digest
        self.attested.image.write_text(
            f'{listeners}{IMAGE}[tls]\nclients = ["{rest}"]\n'
            f'[attestation]\nprovider = "confidential_space"\naudience = "{AUDIENCE}"\ntoken_type = "PKI"\n'
        )
        enclave = self._enclave("attested enclave", "--image", str(self.attested.image))
        enclave.ready()
        # The host is configured with this port.
        self._attested_port = enclave.port
        return enclave

    def configure(self) -> None:
        """Start the enclaves, and write the hosts' configurations, with keys."""
        for name in ENCLAVES:
            self.units[name].start()
        policies = {name: {key.pkh: BAKER for key in keys} for name, keys in KEYS_OF.items()}
        self.configs["file"] = write_config(self.folder / "file", self.proxies["file"].port, policies["file"])
        self.configs["attested"] = self.attested.host_config(self._attested_port, policies["attested"])
        site = Site(self.firestore, self.folder / "firestore", self.proxies["firestore"])
        site.configure(IN_FIRESTORE, *policies["firestore"])
        self.configs["firestore"] = site.config
        site.command("import", "--vault", VAULT, *(key.secret for key in KEYS_OF["firestore"]))
        for name in ("file", "attested"):
            import_keys(self.configs[name], *KEYS_OF[name])

    def start(self) -> None:
        """Start every program that does not run."""
        for name in (*ENCLAVES, *HOSTS):
            self.units[name].start()

    def marks(self, name: str) -> str:
        """Return what `watermark show --json` says of a host that was stopped."""
        if name == "firestore":
            return Site(self.firestore, self.folder / name, self.proxies[name]).command("watermark", "show", "--json")
        return run_command("watermark", "show", "--json", "-c", self.configs[name]).stdout


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small file system in memory at a folder; give None where that is not allowed."""
    folder.mkdir(parents=True)
    options = f"size={_SMALL_BYTES},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def chaotic_site(folder: Path, seed: int, *, mount: bool) -> Iterator[ChaoticSite]:
    """Run everything in a folder; everything has ended afterwards.

    Args:
        folder: Must be empty.
        seed: Of the proxies.
        mount: Whether to put the marks of `file` on a disk that can be filled, where that is allowed.
    """
    for name in ("file", "firestore", "attested", "google"):
        (folder / name).mkdir()
    nowhere = ("127.0.0.1", 1)
    with ExitStack() as stack:
        small = stack.enter_context(_small_disk(folder / "file" / BASE_NAME)) if mount else None
        cloud = stack.enter_context(running_google_cloud(folder / "google"))
        firestore = stack.enter_context(running_firestore())
        # The service lets go of what a dead host has locked after a minute.
        firestore.documents.idle_s = 2.0
        attested = stack.enter_context(attested_world(folder / "attested"))
        proxies = {
            name: stack.enter_context(fault_proxy(nowhere, seed + number, one_in=4))
            for number, name in enumerate(("file", "firestore"))
        }
        site = ChaoticSite(folder, cloud, firestore, attested, proxies)
        site.small = small
        try:
            site.configure()
            yield site
        finally:
            for unit in site.units.values():
                unit.discard()
