"""Restores: how long a host waits for its keys when Cloud KMS opens each of them, and what that costs the enclave.

`python -m benchmarks.restore` starts the daemon beside doubles of Google's services, and a host with as many keys; neither
remembers any. The time is from the moment in which the daemon asks for an access token, the first thing it does for a
host, until all keys can sign. The double's processor time is not ours, but takes from the same cores.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import machine_line
from benchmarks.turns import processor_seconds
from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType
from enclave_signer.sealing.gcp_kms import GcpTimes
from enclave_signer.tezos import public_key_hash
from tests.doubles.google.blobs import sealed_secret, write_blobs
from tests.doubles.google.cloud import IMAGE, GoogleCloud, running_google_cloud
from tests.doubles.google.kms import KEY, Fault
from tests.doubles.host_process import BAKER, Host, key_file, run_command, write_config
from tests.doubles.processes import running_gcp_enclave

KEYS = (100, 1000)
EXCHANGES_S = (0.0, 2.0)


class Site:
    """A number of keys, and their host; with what each restore took."""

    def __init__(self, folder: Path, cloud: GoogleCloud, image: Path, keys: int) -> None:
        self.keys = keys
        self._folder = folder
        self._cloud = cloud
        self._image = image
        folder.mkdir()
        opened = [curve(KeyType.ED25519).generate() for _ in range(keys)]
        blobs = [
            (public_key_hash(curve(KeyType.ED25519).open(key).public_key), sealed_secret(cloud.kms, key, KEY))
            for key in opened
        ]
        self._pkhs = [pkh for pkh, _ in blobs[:4]]
        config = write_config(folder, 1)
        write_blobs(key_file(config), blobs)
        made = run_command("watermark", "init", "-c", config)
        if made.code:
            raise SystemExit(made.stderr)

    def restored(self, call_ms: float, exchange_s: float) -> tuple[float, float, float, int]:
        """Return seconds until the host is ready, processor seconds of the daemon and of the double, and calls of KMS."""
        kms, sts = self._cloud.kms, self._cloud.sts
        kms.break_with(Fault(delay_s=call_ms / 1e3))
        sts.delay_s = exchange_s
        sts.asked_at.clear()
        calls = len(kms.calls)
        with running_gcp_enclave(self._image, self._cloud.environment(GcpTimes()), "--retain", "0") as enclave:
            config = write_config(self._folder, enclave.port, dict.fromkeys(self._pkhs, BAKER))
            before, double_before = processor_seconds(enclave), time.process_time()
            host = Host(config)
            try:
                host.wait_for("the link to the enclave is ready")
                ready = time.perf_counter()
                used, by_double = processor_seconds(enclave) - before, time.process_time() - double_before
            finally:
                host.discard()
        return ready - sts.asked_at[0], used, by_double, len(kms.calls) - calls


def restores(folder: Path, keys: int, call_ms: float, turns: int) -> list[float]:
    """Return the seconds of some restores, with a token exchange that takes no time."""
    folder.mkdir()
    with running_google_cloud(folder) as cloud:
        image = folder / "image.toml"
        image.write_text(IMAGE)
        site = Site(folder / str(keys), cloud, image, keys)
        return [site.restored(call_ms, 0.0)[0] for _ in range(turns)]


def line(keys: int, exchange_s: float, turns: Sequence[tuple[float, float, float, int]]) -> str:
    """Return a line of the table: medians, and the slowest restore."""
    ready, used, by_double, calls = zip(*turns, strict=True)
    times = f"{median(ready) * 1e3:>8.0f} {max(ready) * 1e3:>8.0f}"
    return f"{keys:>6} {exchange_s:>10g} {times} {median(used):>9.2f} {median(by_double):>9.2f} {median(calls):>6.0f}"


def main() -> None:
    """Print one line per number of keys, and time that the token exchange takes."""
    parser = argparse.ArgumentParser(description="Measure how long keys take to come back by way of Cloud KMS.")
    parser.add_argument("--keys", type=int, nargs="+", default=KEYS, help="how many (default: %(default)s)")
    parser.add_argument("--call-ms", type=float, default=50.0, help="that KMS takes for a key (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line())
    print(f"{options.call_ms:g} ms a call")
    print(f"{'keys':>6} {'exchange s':>10} {'ready ms':>8} {'most ms':>8} {'CPU s':>9} {'double s':>9} {'calls':>6}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name, running_google_cloud(Path(name)) as cloud:
        image = Path(name) / "image.toml"
        image.write_text(IMAGE)
        for keys in options.keys:
            site = Site(Path(name) / str(keys), cloud, image, keys)
            for exchange_s in EXCHANGES_S:
                turns = [site.restored(options.call_ms, exchange_s) for _ in range(options.turns)]
                print(line(keys, exchange_s, turns), flush=True)


if __name__ == "__main__":
    main()
