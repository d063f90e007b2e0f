"""Rate and latency of the daemon on loopback: four curves, some depths of pipelining, some connections.

`python -m benchmarks.enclave` starts a daemon with the local sealer and loads it from this process; both share the machine.
Latency is from before the call is written to after its answer is read, in milliseconds. What `benchmarks.turns` names runs
beside it, and is loaded in turn; a peer gets `Initialize` without credentials. `--client` names a compiled client that
makes the load instead: `benchmarks.client` says how it is asked.
"""

import argparse
import selectors
import socket
import struct
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from operator import methodcaller
from pathlib import Path
from statistics import median

import cbor2

from benchmarks import client
from benchmarks.machine import machine_line
from benchmarks.turns import (
    ERRORS,
    LATENCY_HEAD,
    Side,
    add_side_options,
    column,
    environment_of,
    in_turn,
    latency_columns,
    print_ratios,
    processor_seconds,
    sealing_key_in,
    sides,
)
from tests.doubles.processes import Program, running

Shape = tuple[int, int]

#: Connections and calls in flight on each.
SHAPES: tuple[Shape, ...] = ((1, 1), (16, 1), (1, 64))
#: Of rising levels, in the form without a slot: what the guard allows, and has to look at.
ATTESTATION = b"\x13" + bytes(36) + b"\x29" + b"LEVL" + bytes(36)
CURVES = ("Ed25519", "Secp256k1", "NistP256", "Bls")


class Measured:
    """The daemon of one side, and, by curve and shape, rates, seconds of the processor a call, and all latencies."""

    def __init__(self, name: str, address: tuple[str, int], program: Program | None = None) -> None:
        self.name = name
        self.address = address
        self.program = program
        self.busy: dict[tuple[str, Shape], list[float]] = {}
        self.rates: dict[tuple[str, Shape], list[float]] = {}
        self.latencies: dict[tuple[str, Shape], list[float]] = {}

    def measure(self, curve: str, shape: Shape, seconds: float) -> None:
        """Take one turn."""
        busy, (host, port) = processor_seconds(self.program), self.address
        rate, latencies = measure(partial(connected, port, host), curve, shape, seconds)
        self.busy.setdefault((curve, shape), []).append((processor_seconds(self.program) - busy) / len(latencies))
        self.rates.setdefault((curve, shape), []).append(rate)
        self.latencies.setdefault((curve, shape), []).extend(latencies)

    def columns(self, curve: str, shape: Shape) -> str:
        """Return the columns of latencies."""
        return latency_columns(self.latencies[curve, shape])

    def line(self, curve: str, shape: Shape) -> str:
        """Return a line of the table."""
        rate, busy = median(self.rates[curve, shape]), median(self.busy[curve, shape]) * 1e6
        columns = f"{self.name:<5} {rate:>8.0f} {self.columns(curve, shape)} {column(busy, 7, 1)}"
        return f"{curve:<10} {shape[0]:>11} {shape[1]:>9} {columns}"


class MeasuredByClient(Measured):
    """The same, where a client of one's own makes the load."""

    def __init__(self, client_program: Path, one: Measured) -> None:
        super().__init__(one.name, one.address, one.program)
        self._client_program = client_program
        self._reports: dict[tuple[str, Shape], list[client.Report]] = {}

    def measure(self, curve: str, shape: Shape, seconds: float) -> None:
        """Take one turn."""
        busy = processor_seconds(self.program)
        (host, port), (connections, depth) = self.address, shape
        load = ("--conns", connections, "--depth", depth, "--seconds", seconds)
        report = client.run(self._client_program, "rpc", "--addr", f"{host}:{port}", "--curve", curve, *load)
        self.busy.setdefault((curve, shape), []).append((processor_seconds(self.program) - busy) / report.count)
        self.rates.setdefault((curve, shape), []).append(report.rate)
        self._reports.setdefault((curve, shape), []).append(report)

    def columns(self, curve: str, shape: Shape) -> str:
        """Return the columns of latencies."""
        return client.columns(self._reports[curve, shape])


@contextmanager
def daemon(side: Side) -> Iterator[Measured]:
    """Run the daemon of a side on a free port; a peer runs already."""
    if side.peer:
        yield Measured(side.name, side.peer_address)
        return
    with tempfile.TemporaryDirectory() as folder:
        key = sealing_key_in(Path(folder))
        command = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", "--sealing-key", str(key)]
        with running([*command, *side.enclave_arguments], environment_of(side.checkout)) as program:
            port = int(program.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
            yield Measured(side.name, ("127.0.0.1", port), program)


def frame(call: object) -> bytes:
    """Return a call as it is sent."""
    body = cbor2.dumps(call)
    return struct.pack(">I", len(body)) + body


class Client:
    """One connection that keeps a number of calls in flight.

    Args:
        connect: Opens it.
        opening: The calls by which it gets its key.
        message: What it signs, with another level each time in place of `LEVL`.
        depth: How many calls are in flight.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], opening: Sequence[object], message: bytes, depth: int
    ) -> None:
        self.stream = connect()
        self.depth = depth
        self.sent: deque[float] = deque()
        self.buffer = b""
        self.level = 0
        for call in opening:
            self.stream.sendall(frame(call))
            self.take(wait=True)
        sample = frame({"Sign": {"handle": 0, "message": message, "version": 2}})
        self.before, self.after = sample.split(b"LEVL")

    def take(self, *, wait: bool = False) -> list[bytes]:
        """Return the answers that have come."""
        answers: list[bytes] = []
        while True:
            self.buffer += self.stream.recv(1 << 18)
            start = 0
            while len(self.buffer) >= start + 4:
                (length,) = struct.unpack_from(">I", self.buffer, start)
                if len(self.buffer) < start + 4 + length:
                    break
                answers.append(self.buffer[start + 4 : start + 4 + length])
                start += 4 + length
            self.buffer = self.buffer[start:]
            if answers or not wait:
                return answers

    def fill(self) -> None:
        """Send as many calls as may be in flight, each of another message."""
        missing = self.depth - len(self.sent)
        if missing > 0:
            calls = []
            for _ in range(missing):
                self.level += 1
                calls.append(self.before + self.level.to_bytes(4, "big") + self.after)
            now = time.perf_counter()
            self.sent.extend([now] * missing)
            self.stream.sendall(b"".join(calls))

    def count(self, latencies: list[float]) -> None:
        """Take the answers that have come and note how long each took."""
        answers = self.take()
        now = time.perf_counter()
        for answer in answers:
            if not answer.startswith(b"\xa1\x62Ok"):
                raise SystemExit(f"the enclave refused: {cbor2.loads(answer)}")
            latencies.append(now - self.sent.popleft())


def connected(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Return a new connection."""
    stream = socket.create_connection((host, port))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def measure(
    connect: Callable[[], socket.socket], curve: str, shape: Shape, seconds: float
) -> tuple[float, list[float]]:
    """Return signatures per second, and the latencies in seconds."""
    connections, depth = shape
    opening: tuple[object, ...] = ({"Initialize": {}}, {"GenerateAndImport": curve})
    return measure_clients(partial(Client, connect, opening, ATTESTATION, depth), connections, seconds)


def measure_clients(open_client: Callable[[], Client], connections: int, seconds: float) -> tuple[float, list[float]]:
    """Do the same with clients that come to a key, or sign, otherwise."""
    latencies: list[float] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(connections):
            client = open_client()
            stack.callback(client.stream.close)
            selector.register(client.stream, selectors.EVENT_READ, client)
            client.fill()
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            for key, _ in selector.select(1):
                key.data.count(latencies)
                key.data.fill()
    return len(latencies) / (now - start), latencies


def main() -> None:
    """Print one line per curve, shape and side, and the ratios of rates."""
    parser = argparse.ArgumentParser(description="Measure the enclave daemon on loopback.")
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=CURVES, help="(default: all)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of each measurement (default: %(default)s)")
    add_side_options(parser, peer="a program that speaks the same wire, to compare with")
    client.add_option(parser)
    options = parser.parse_args()
    print(f"{machine_line()}, {client.load_text(options.client)}")
    print(f"{'curve':<10} {'connections':>11} {'in flight':>9} {'':<5} {'rate/s':>8} {LATENCY_HEAD} {'CPU us':>7}")
    with ExitStack() as stack:
        measured = [stack.enter_context(daemon(side)) for side in sides(options)]
        if options.client:
            measured = [MeasuredByClient(options.client, one) for one in measured]
        for curve, shape in product(options.curves, SHAPES):
            in_turn(measured, options.turns, methodcaller("measure", curve, shape, options.seconds))
            for one in measured:
                print(one.line(curve, shape), flush=True)
            rates, busy = [one.rates[curve, shape] for one in measured], [one.busy[curve, shape] for one in measured]
            print_ratios([one.name for one in measured], rate=rates, CPU=busy)
    print(ERRORS, "configuration: the local sealer, all else by default", sep="\n")
    for side in sides(options)[1:]:
        print(side.text)


if __name__ == "__main__":
    main()
