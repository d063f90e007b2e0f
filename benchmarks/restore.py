"""Restores: how long a host waits for its keys when Cloud KMS opens each of them, and what that costs the enclave.

`python -m benchmarks.restore` starts the daemon beside doubles of Google's services, and a host with as many keys; neither
remembers any. What `benchmarks.turns` names is restored in turn; a peer is an enclave that runs on this machine, and whose
keys our host has made there. Ready is from the moment in which the daemon asks for an access token, the first thing it does
for a host, until all keys can sign; since start, from the start of the host's process. The double's processor time is not
ours, but takes from the same cores.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from operator import methodcaller
from pathlib import Path
from statistics import median

from benchmarks.host import configuration_text
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import (
    ERRORS,
    Side,
    add_side_options,
    column,
    environment_of,
    in_turn,
    print_ratios,
    processor_seconds,
    sides,
)
from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType
from enclave_signer.sealing.gcp_kms import GcpTimes
from enclave_signer.tezos import public_key_hash
from tests.doubles.google.blobs import sealed_secret, write_blobs
from tests.doubles.google.cloud import IMAGE, GoogleCloud, running_google_cloud
from tests.doubles.google.kms import KEY, Fault
from tests.doubles.host_process import BAKER, VAULT, Host, Outcome, key_file, run_command, stored_hashes, write_config
from tests.doubles.processes import Enclave, running_gcp_enclave

KEYS = (100, 1000)
EXCHANGES_S = (0.0, 2.0)


@dataclass(frozen=True, slots=True)
class Restore:
    """One restore. A figure that a peer does not show is not a number.

    Attributes:
        ready_s: Seconds from the request for an access token until all keys can sign.
        start_s: Seconds from the start of the host's process until then.
        used_s: Seconds of the processor by the daemon.
        double_s: Seconds of the processor by the doubles.
        calls: Calls of KMS.
    """

    ready_s: float
    start_s: float
    used_s: float
    double_s: float
    calls: float


class Site:
    """A side with a number of keys, and their host; with its restores."""

    def __init__(self, side: Side, folder: Path, cloud: GoogleCloud, image: Path, keys: int) -> None:
        self.name = side.name
        self.turns: list[Restore] = []
        self._side = side
        self._folder = folder
        self._cloud = cloud
        self._image = image
        folder.mkdir()
        if side.peer:
            self.config = write_config(folder, self._peer_port())
            _checked(run_command("generate", "-c", self.config, "-v", VAULT, "-n", str(keys)))
            self._pkhs = stored_hashes(self.config)[:4]
            return
        opened = [curve(KeyType.ED25519).generate() for _ in range(keys)]
        blobs = [
            (public_key_hash(curve(KeyType.ED25519).open(key).public_key), sealed_secret(cloud.kms, key, KEY))
            for key in opened
        ]
        self._pkhs = [pkh for pkh, _ in blobs[:4]]
        self.config = write_config(folder, 1)
        write_blobs(key_file(self.config), blobs)
        _checked(run_command("watermark", "init", "-c", self.config))

    def _peer_port(self) -> int:
        host, port = self._side.peer_address
        if host != "127.0.0.1":
            raise SystemExit("the peer has to be on 127.0.0.1")
        return port

    def restore(self, call_ms: float, exchange_s: float) -> None:
        """Take one turn."""
        kms, sts = self._cloud.kms, self._cloud.sts
        kms.break_with(Fault(delay_s=call_ms / 1e3))
        sts.delay_s = exchange_s
        sts.asked_at.clear()
        calls = len(kms.calls)
        with self._enclave() as enclave:
            port = enclave.port if enclave else self._peer_port()
            self._side.configure(write_config(self._folder, port, dict.fromkeys(self._pkhs, BAKER)))
            before, double_before = processor_seconds(enclave), time.process_time()
            # With it, the host gets an interpreter of its own.
            environment, begun = environment_of(self._side.checkout), time.perf_counter()
            host = Host(self.config, environment=environment)
            try:
                host.wait_for("the link to the enclave is ready")
                ready = time.perf_counter()
                used, by_double = processor_seconds(enclave) - before, time.process_time() - double_before
            finally:
                host.discard()
        since_start = ready - begun
        if enclave is None:
            self.turns.append(Restore(nan, since_start, nan, nan, nan))
        else:
            number = len(kms.calls) - calls
            self.turns.append(Restore(ready - sts.asked_at[0], since_start, used, by_double, number))

    @contextmanager
    def _enclave(self) -> Iterator[Enclave | None]:
        if self._side.peer:
            yield None
            return
        environment = {**self._cloud.environment(GcpTimes()), **environment_of(self._side.checkout)}
        arguments = ("--retain", "0", *self._side.enclave_arguments)
        with running_gcp_enclave(self._image, environment, *arguments) as enclave:
            yield enclave

    def line(self, keys: int, exchange_s: float) -> str:
        """Return a line of the table: medians, and the slowest restore."""
        ready, start = [one.ready_s for one in self.turns], [one.start_s for one in self.turns]
        times = " ".join(column(seconds * 1e3, 8, 0) for seconds in (median(ready), max(ready), median(start)))
        used, by_double = median(one.used_s for one in self.turns), median(one.double_s for one in self.turns)
        costs = (
            f"{column(used, 9, 2)} {column(by_double, 9, 2)} {column(median(one.calls for one in self.turns), 6, 0)}"
        )
        return f"{keys:>6} {exchange_s:>10g} {self.name:<5} {times} {costs}"


def _checked(made: Outcome) -> None:
    if made.code:
        raise SystemExit(made.stderr)


@contextmanager
def sites(compared: Sequence[Side], folder: Path, keys: int) -> Iterator[list[Site]]:
    """Give all sides with as many keys."""
    with running_google_cloud(folder) as cloud:
        image = folder / "image.toml"
        image.write_text(IMAGE)
        yield [Site(side, folder / side.name, cloud, image, keys) for side in compared]


def restores(folder: Path, keys: int, call_ms: float, turns: int) -> list[float]:
    """Return the seconds of some restores, with a token exchange that takes no time."""
    folder.mkdir()
    with sites([Side()], folder, keys) as (site,):
        in_turn([site], turns, methodcaller("restore", call_ms, 0.0))
    return [one.ready_s for one in site.turns]


def main() -> None:
    """Print one line per number of keys, time that the token exchange takes, and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure how long keys take to come back by way of Cloud KMS.")
    parser.add_argument("--keys", type=int, nargs="+", default=KEYS, help="how many (default: %(default)s)")
    parser.add_argument("--call-ms", type=float, default=50.0, help="that KMS takes for a key (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    add_folder_option(parser)
    add_side_options(parser, peer="an enclave on this machine, to compare with")
    options = parser.parse_args()
    compared = sides(options)
    print(machine_line(options.folder))
    print(f"{options.call_ms:g} ms a call")
    head = f"{'ready ms':>8} {'most ms':>8} {'start ms':>8} {'CPU s':>9} {'double s':>9} {'calls':>6}"
    print(f"{'keys':>6} {'exchange s':>10} {'':<5} {head}")
    for keys in options.keys:
        with tempfile.TemporaryDirectory(dir=options.folder) as name, sites(compared, Path(name), keys) as each:
            for exchange_s in EXCHANGES_S:
                for one in each:
                    one.turns.clear()
                in_turn(each, options.turns, methodcaller("restore", options.call_ms, exchange_s))
                print(*(one.line(keys, exchange_s) for one in each), sep="\n", flush=True)
                ready = [[turn.ready_s for turn in one.turns] for one in each]
                start = [[turn.start_s for turn in one.turns] for one in each]
                print_ratios([one.name for one in each], ready=ready, since_start=start)
            texts = [configuration_text(each[0].config), *(side.text for side in compared[1:])]
    print(ERRORS, *texts, sep="\n")


if __name__ == "__main__":
    main()
