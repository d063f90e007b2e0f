"""Stages: where the time of a request goes.

`python -m benchmarks.stages` loads a host with one client, then with sixteen. For each it prints how long a request was in
each stage, as the host's own metrics count it, and what is left to HTTP, the kernel and the client; and the processor's
time by module of ours, from samples. Sampling slows the host: compare parts of one run, not rates with other benchmarks.
"""

import argparse
import http.client
import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import get_args

from benchmarks.host import CLIENTS, HEAD, KEYS, TYPES, Measured, configuration_text, port_of, serving
from benchmarks.machine import machine_line
from benchmarks.sampled_host import SAMPLES
from benchmarks.turns import ERRORS, ROOT
from host_backend.record import Stage
from tests.doubles.host_process import CONFIG_NAME

#: Modules that are shown.
SHOWN = 14
_STAGE = re.compile(r'^signing_stage_duration_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)
_PAUSE_S = 0.02


def stage_seconds(port: int) -> dict[str, float]:
    """Return the seconds that all requests so far were in each stage, by the host's metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/metrics")
        found = dict(_STAGE.findall(connection.getresponse().read().decode()))
    finally:
        connection.close()
    return {stage: float(found.get(stage, 0)) for stage in get_args(Stage)}


def samples(site: Measured, path: Path) -> Counter[str]:
    """Return the samples since this was last asked, by module."""
    path.unlink(missing_ok=True)
    site.host.process.send_signal(signal.SIGUSR2)
    while not path.exists():
        if site.host.process.poll() is not None:
            raise SystemExit(site.host.log)
        time.sleep(_PAUSE_S)
    return Counter(json.loads(path.read_text()))


def measure(site: Measured, path: Path, count: int, seconds: float) -> None:
    """Print where the time goes with a number of clients."""
    utility = port_of(site.host, '"Utility HTTP server is listening for connections')
    one = Measured("this", site.host, site.clients, [count])
    # Metrics are rendered once a second.
    time.sleep(1.1)
    before = stage_seconds(utility)
    samples(site, path)
    one.measure(seconds)
    modules = samples(site, path)
    time.sleep(1.1)
    after = stage_seconds(utility)
    (took,), (busy,) = one.turns[count], one.busy[count]
    print(HEAD, one.line(count), sep="\n")
    mean = {stage: (after[stage] - before[stage]) / len(took) * 1e6 for stage in after}
    mean["HTTP, kernel, client"] = fmean(took) * 1e6 - sum(mean.values())
    print(f"{'stage':<44} {'mean µs':>8}")
    for stage, stage_us in mean.items():
        print(f"{stage:<44} {stage_us:>8.0f}")
    print(f"{'module':<44} {'CPU µs':>8}")
    for module, number in modules.most_common(SHOWN):
        print(f"{module:<44} {number / modules.total() * busy * 1e6:>8.1f}")


def main() -> None:
    """Print tables for each type of keys and number of clients."""
    parser = argparse.ArgumentParser(description="Measure where the time of a request goes.")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["tz1", "tz4"], help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line(options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "samples"
        os.environ[SAMPLES] = str(path)
        for key_type in options.types:
            with serving("this", ROOT, Path(name) / key_type, key_type, KEYS, "benchmarks.sampled_host") as site:
                for count in CLIENTS:
                    print(f"\n{key_type}, clients: {count}")
                    measure(site, path, count, options.seconds)
        print(ERRORS, configuration_text(Path(name) / options.types[0] / CONFIG_NAME), sep="\n")


if __name__ == "__main__":
    main()
