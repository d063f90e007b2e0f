"""Rate and latency of the daemon on loopback: four curves, some depths of pipelining, some connections.

`python -m benchmarks.enclave [--seconds S]` starts a daemon with the local sealer and loads it from this process; both
share the machine. Latency is from before the call is written to after its answer is read, in milliseconds.
"""

import argparse
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cbor2

from benchmarks.machine import machine_line

#: Connections and calls in flight on each.
SHAPES = ((1, 1), (16, 1), (1, 64))
CURVES = ("Ed25519", "Secp256k1", "NistP256", "Bls")


@contextmanager
def daemon() -> Iterator[int]:
    """Run a daemon on a free port and return the port."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "sealing.key"
        command = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", "--sealing-key", str(key)]
        command.append("--make-sealing-key")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "listening on" in line:
                    yield int(line.split("listening on 127.0.0.1:")[1].split('"')[0])
                    break
            process.terminate()
            process.stderr.read()


def frame(call: object) -> bytes:
    """Return a call as it is sent."""
    body = cbor2.dumps(call)
    return struct.pack(">I", len(body)) + body


class Client:
    """One connection that keeps a number of calls in flight."""

    def __init__(self, port: int, curve: str, depth: int) -> None:
        self.stream = socket.create_connection(("127.0.0.1", port))
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.depth = depth
        self.sent: deque[float] = deque()
        self.buffer = b""
        self.level = 0
        calls: list[object] = [{"Initialize": {}}, {"GenerateAndImport": curve}]
        for call in calls:
            self.stream.sendall(frame(call))
            self.take(wait=True)
        # Attestations of rising levels, in the form without a slot: what the guard allows, and has to look at.
        head, tail = b"\x13" + bytes(36) + b"\x29", bytes(36)
        sample = frame({"Sign": {"handle": 0, "message": head + b"LEVL" + tail, "version": 2}})
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


def measure(port: int, curve: str, shape: tuple[int, int], seconds: float) -> tuple[float, list[float]]:
    """Return signatures per second and the sorted latencies in seconds."""
    connections, depth = shape
    latencies: list[float] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(connections):
            client = Client(port, curve, depth)
            stack.callback(client.stream.close)
            selector.register(client.stream, selectors.EVENT_READ, client)
            client.fill()
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            for key, _ in selector.select(1):
                key.data.count(latencies)
                key.data.fill()
    return len(latencies) / (now - start), sorted(latencies)


def main() -> None:
    """Print one line per curve and shape."""
    parser = argparse.ArgumentParser(description="Measure the enclave daemon on loopback.")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (default: %(default)s)")
    seconds = parser.parse_args().seconds
    print(machine_line())
    print(f"{'curve':<10} {'connections':>11} {'in flight':>9} {'rate/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
    with daemon() as port:
        for curve in CURVES:
            for shape in SHAPES:
                rate, latencies = measure(port, curve, shape, seconds)
                p50, p99 = (latencies[int(len(latencies) * q)] * 1e3 for q in (0.5, 0.99))
                print(f"{curve:<10} {shape[0]:>11} {shape[1]:>9} {rate:>8.0f} {p50:>8.3f} {p99:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
