"""What watchers cost a baker: pages of metrics, of health and of known keys, and SIGHUP, with thousands of keys.

`python -m benchmarks.watchers [--keys N]` starts `enclave-signer` and `enclave-host serve` with as many keys, has some of
them sign, and asks for everything while one client has attestations signed. For each it prints the size, the time until
all of it came, the processor's time of the longest step (of several pages the median), how long the event loop was held
at most (on a busy machine by others, too), and the times of the client's signatures.
"""

import argparse
import http.client
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.capacity import keys_in
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import quantile
from benchmarks.watched_host import TOLD
from enclave_signer.protocol.messages import KeyType
from tests.doubles.host_process import BAKER, Host, run_command, write_config
from tests.doubles.known_keys import attestation, block, preattestation
from tests.doubles.processes import running_local_enclave

#: Keys of which the first pages tell.
FEW = 100
#: Connections by which all keys are made to sign.
SIGNERS = 8
_MESSAGES = (attestation, preattestation, block)
_ONLY_CONSENSUS = "{allow: {block: , preattestation: , attestation: }}"


class WatchedHost(Host):
    """A host that says how long it was held."""

    def __init__(self, config: Path) -> None:
        self._told = config.with_name("told")
        self._told.touch()
        os.environ[TOLD] = str(self._told)
        super().__init__(config, "--no-list", module="benchmarks.watched_host")

    def told_after(self, number: signal.Signals) -> str:
        """Send a signal, and return the line that the host writes down then."""
        before = self._told.stat().st_size
        self.process.send_signal(number)
        while not (told := self._told.read_text()[before:]).endswith("\n"):
            if self.process.poll() is not None:
                raise SystemExit(self.log)
            time.sleep(0.01)
        return told

    def longest(self) -> list[str]:
        """Return the milliseconds of the longest step, for which the loop was held at most, and the lines dropped."""
        return self.told_after(signal.SIGUSR2).split()


class Client:
    """Asks on a connection that stays, one thing after the other."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str, headers: Mapping[str, str]) -> int:
        """Return how many bytes an answer has."""
        self._connection.request("GET", path, headers=headers)
        return len(self._connection.getresponse().read())

    def sign(self, pkh: str, message: bytes) -> float:
        """Return the seconds that a signature took."""
        began = time.perf_counter()
        self._connection.request("POST", f"/keys/{pkh}", json.dumps(message.hex()))
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"not signed: {body.decode()}")
        return time.perf_counter() - began


def have_signed(port: int, pkhs: Sequence[str], kinds: int) -> None:
    """Have every key sign one message of each kind."""

    def some(pkhs: Sequence[str]) -> None:
        client = Client(port)
        for pkh in pkhs:
            for message in _MESSAGES[:kinds]:
                client.sign(pkh, message(1))

    with ThreadPoolExecutor(SIGNERS) as threads:
        list(threads.map(some, (pkhs[place::SIGNERS] for place in range(SIGNERS))))


class Baker:
    """Has one attestation after the other signed while something else goes on."""

    def __init__(self, host: WatchedHost, pkh: str) -> None:
        self._host = host
        self._pkh = pkh
        self._levels = count(2)

    def meanwhile(self, what: str, watch: Callable[[], str]) -> None:
        """Print a line of the table; `watch` returns what it says of size and time."""
        told = ""

        def run() -> None:
            nonlocal told
            told = watch()

        client, took = Client(self._host.port), []
        client.sign(self._pkh, attestation(next(self._levels)))
        self._host.longest()
        watching = threading.Thread(target=run)
        watching.start()
        while watching.is_alive():
            took.append(client.sign(self._pkh, attestation(next(self._levels))))
        step, held, dropped = self._host.longest()
        times = " ".join(f"{quantile(took, part) * 1e3:7.1f}" for part in (0.5, 0.99, 0.9999))
        print(f"{what:<44} {told:>16} {step:>8} {held:>8} {times} {dropped:>8}", flush=True)


def pages(port: int, path: str, *, number: int = 5, gzip: bool = False) -> Callable[[], str]:
    """Return what asks for a page, each time after the last one is forgotten."""
    headers = {"Accept-Encoding": "gzip"} if gzip else {}

    def ask() -> str:
        client, took, size = Client(port), [], 0
        for _ in range(number):
            began = time.perf_counter()
            size = client.get(path, headers)
            took.append(time.perf_counter() - began)
            time.sleep(1.1)
        return f"{size / 1e6:7.3f} {quantile(took, 0.5) * 1e3:8.1f}"

    return ask


@contextmanager
def watched_host(config: Path) -> Iterator[WatchedHost]:
    """Run the host until all keys are open."""
    host = WatchedHost(config)
    try:
        host.ready()
        while host.health()[0] != 200:
            time.sleep(0.2)
        yield host
    finally:
        host.discard()


def main() -> None:
    """Print one line for everything that watchers ask for."""
    parser = argparse.ArgumentParser(description="Measure what watchers cost a baker.")
    parser.add_argument("--keys", type=int, default=10_000, help="in the vault (default: %(default)s)")
    parser.add_argument("--kinds", type=int, default=3, choices=(1, 2, 3), help="each signs (default: %(default)s)")
    add_folder_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with running_local_enclave(folder / "sealing.key") as enclave:
            config = write_config(folder, enclave.port)
            pkhs = keys_in(folder, config, KeyType.ED25519, options.keys)

            def write(policy: str) -> None:
                write_config(folder, enclave.port, dict.fromkeys(pkhs, policy), watermark="{driver: file}")

            write(BAKER)
            made = run_command("watermark", "init", "-c", config)
            if made.code:
                raise SystemExit(made.stderr)
            with watched_host(config) as host:
                measure(host, pkhs, options.kinds, write)


def measure(host: WatchedHost, pkhs: Sequence[str], kinds: int, write: Callable[[str], object]) -> None:
    """Print the table."""
    baker = Baker(host, pkhs[0])
    head = f"{'MB':>7} {'ms':>8} {'step ms':>8} {'held ms':>8} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'dropped':>8}"
    print(f"{'':<44} {head}")

    def nothing() -> str:
        time.sleep(3)
        return ""

    def hang_up() -> str:
        began = time.perf_counter()
        host.told_after(signal.SIGHUP)
        return f"{'':7} {(time.perf_counter() - began) * 1e3:8.0f}"

    baker.meanwhile("nothing else", nothing)
    few = min(FEW, len(pkhs))
    have_signed(host.port, pkhs[1:few], kinds)
    baker.meanwhile(f"/metrics, {few} of {len(pkhs)} keys have signed", pages(host.utility_port, "/metrics"))
    baker.meanwhile("/healthz", pages(host.utility_port, "/healthz"))
    baker.meanwhile("/known_keys", pages(host.port, "/known_keys"))
    baker.meanwhile("SIGHUP, nothing has changed", hang_up)
    write(_ONLY_CONSENSUS)
    baker.meanwhile("SIGHUP, all policies have changed", hang_up)
    have_signed(host.port, pkhs[few:], kinds)
    for gzip in (False, True):
        what = f"/metrics, all have signed {kinds} kinds{', in gzip' if gzip else ''}"
        baker.meanwhile(what, pages(host.utility_port, "/metrics", gzip=gzip))


if __name__ == "__main__":
    main()
