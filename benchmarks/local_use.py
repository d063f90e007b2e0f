"""Rate and latency of applications at the Unix socket of an enclave that has rules for them, beside TCP without rules.

`python -m benchmarks.local_use` starts one daemon of each kind, and one with a Unix socket without rules, and loads them in
turn from this process. All clients sign with one key, which is Ed25519; what they send is no consensus message.
"""

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.enclave import Client, Shape, connected, measure_clients
from benchmarks.machine import machine_line
from benchmarks.turns import in_turn, processor_seconds, quantile, sealing_key_in
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import holding, rule, write_image
from tests.doubles.processes import Program, running

#: Connections, and calls in flight on each.
SHAPES: tuple[Shape, ...] = ((1, 1), (16, 1), (64, 1), (1, 64))
KEY = FOUR[0]
MESSAGE = b"\x05LEVL" + bytes(75)


class Measured:
    """A daemon, how its clients come to their key, and what was measured."""

    def __init__(
        self, name: str, program: Program, connect: Callable[[], socket.socket], opening: tuple[object, ...]
    ) -> None:
        self.name = name
        self._program = program
        self._connect = connect
        self._opening = opening
        self.busy: dict[Shape, list[float]] = {}
        self.rates: dict[Shape, list[float]] = {}
        self.latencies: dict[Shape, list[float]] = {}

    def measure(self, shape: Shape, seconds: float) -> None:
        """Take one turn."""
        connections, depth = shape
        busy = processor_seconds(self._program)
        opened = partial(Client, self._connect, self._opening, MESSAGE, depth)
        rate, latencies = measure_clients(opened, connections, seconds)
        self.busy.setdefault(shape, []).append((processor_seconds(self._program) - busy) / len(latencies))
        self.rates.setdefault(shape, []).append(rate)
        self.latencies.setdefault(shape, []).extend(latencies)

    def line(self, shape: Shape) -> str:
        """Return a line of the table."""
        p50, p99 = (quantile(self.latencies[shape], part) * 1e3 for part in (0.5, 0.99))
        return (
            f"{shape[0]:>11} {shape[1]:>9} {self.name:<16} {median(self.rates[shape]):>8.0f} {p50:>8.3f} {p99:>8.3f} "
            f"{median(self.busy[shape]) * 1e6:>7.1f}"
        )


def connected_at(path: Path) -> socket.socket:
    """Return a new connection to a Unix socket."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(path))
    return stream


def daemons(stack: ExitStack) -> list[Measured]:
    """Start all of them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    key = str(sealing_key_in(folder))
    command = [sys.executable, "-m", "enclave_signer"]
    clear = {"ImportUnencrypted": {KEY.key_type.value: KEY.secret_bytes}}
    opening: tuple[object, ...] = ({"Initialize": {}}, clear)

    tcp = stack.enter_context(running([*command, "--listen", "127.0.0.1:0", "--sealing-key", key]))
    port = int(tcp.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])

    plain = folder / "plain" / "s"
    unix = stack.enter_context(running([*command, "--listen", f"unix:{plain}", "--sealing-key", key]))
    unix.wait_for("listening on unix:")

    path = folder / "rules" / "s"
    mine = [f"uid:{os.geteuid()}"]
    host = rule(mine, ["Initialize", "ImportUnencrypted"], ["*"])
    image = write_image(path, host + rule(mine, ["UseKey", "PublicKey", "Sign"], [KEY.pkh]))
    ruled = stack.enter_context(running([*command, "--image", str(image)]))
    ruled.wait_for("listening on unix:")
    stack.enter_context(holding(path, [KEY]))
    return [
        Measured("TCP", tcp, partial(connected, port), opening),
        Measured("Unix", unix, partial(connected_at, plain), opening),
        Measured("Unix with rules", ruled, partial(connected_at, path), ({"UseKey": KEY.pkh},)),
    ]


def main() -> None:
    """Print one line for each shape and each daemon."""
    parser = argparse.ArgumentParser(description="Measure what rules for local clients cost.")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of each measurement (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line())
    print(f"{'connections':>11} {'in flight':>9} {'':<16} {'rate/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7}")
    with ExitStack() as stack:
        measured = daemons(stack)
        for shape in SHAPES:
            in_turn(measured, options.turns, partial(Measured.measure, shape=shape, seconds=options.seconds))
            for one in measured:
                print(one.line(shape), flush=True)


if __name__ == "__main__":
    main()
