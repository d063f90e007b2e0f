"""Rate and latency of the daemon on loopback: four curves, some depths of pipelining, some connections.

`python -m benchmarks.enclave [--seconds S] [--tls]` starts a daemon with the local sealer and loads it from this process;
both share the machine. With `--tls` a second daemon speaks TLS; each shape is measured with both, one after the other,
and compared. Latency is from before the call is written to after its answer is read, in milliseconds.
"""

import argparse
import datetime
import os
import resource
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.machine import machine_line

#: Connections and calls in flight on each.
SHAPES = ((1, 1), (16, 1), (1, 64))
CURVES = ("Ed25519", "Secp256k1", "NistP256", "Bls")


#: Connections of which the memory is measured: fewer than one address may have.
MEASURED = 100


@dataclass(frozen=True)
class Daemon:
    """A daemon, and how it is reached."""

    port: int
    pid: int
    tls: ssl.SSLContext | None

    def connect(self) -> socket.socket:
        """Return a new connection."""
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream if self.tls is None else self.tls.wrap_socket(stream)

    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has used: other work on the machine changes them little."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return the memory that it has in RAM."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return how a client shows a certificate made for this run, and how the daemon's image names its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(key, hashes.SHA256())
    file = folder / "client.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(file)
    return context, sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@contextmanager
def daemon(*, tls: bool = False) -> Iterator[Daemon]:
    """Run a daemon on a free port."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = 'development = true\nsealers = ["local"]\nlisteners = ["127.0.0.1:0"]\n'
        image += f'[local]\nsealing_key = "{folder / "sealing.key"}"\n'
        context = None
        if tls:
            context, digest = certificate(folder)
            image += f'[tls]\nclients = ["{digest}"]\n'
        (folder / "image.toml").write_text(image)
        command = [sys.executable, "-m", "enclave_signer", "--image", str(folder / "image.toml")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "listening on" in line:
                    port = int(line.split("listening on 127.0.0.1:")[1].split('"')[0])
                    yield Daemon(port, process.pid, context)
                    break
            process.terminate()
            process.stderr.read()


def frame(call: object) -> bytes:
    """Return a call as it is sent."""
    body = cbor2.dumps(call)
    return struct.pack(">I", len(body)) + body


class Client:
    """One connection that keeps a number of calls in flight."""

    def __init__(self, daemon: Daemon, curve: str, depth: int) -> None:
        self.stream = daemon.connect()
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
            while isinstance(self.stream, ssl.SSLSocket) and self.stream.pending():
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


def measure(daemon: Daemon, curve: str, shape: tuple[int, int], seconds: float) -> tuple[float, list[float]]:
    """Return signatures per second and the sorted latencies in seconds."""
    connections, depth = shape
    latencies: list[float] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(connections):
            client = Client(daemon, curve, depth)
            stack.callback(client.stream.close)
            selector.register(client.stream, selectors.EVENT_READ, client)
            client.fill()
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            for key, _ in selector.select(1):
                key.data.count(latencies)
                key.data.fill()
    return len(latencies) / (now - start), sorted(latencies)


def report(name: str, daemon: Daemon, curve: str, shape: tuple[int, int], seconds: float) -> tuple[float, float]:
    """Print one line; return the rate, and the daemon's seconds of processor time for a signature."""
    before = daemon.cpu_s()
    rate, latencies = measure(daemon, curve, shape, seconds)
    cpu_s = (daemon.cpu_s() - before) / len(latencies)
    p50, p99 = (latencies[int(len(latencies) * q)] * 1e3 for q in (0.5, 0.99))
    counts = f"{shape[0]:>11} {shape[1]:>9} {rate:>8.0f}"
    print(f"{name:<14} {counts} {p50:>8.3f} {p99:>8.3f} {cpu_s * 1e6:>8.0f}", end="")
    return rate, cpu_s


def memory_per_connection(daemon: Daemon) -> float:
    """Return the bytes that a connection costs which has initialized and says nothing more."""
    with ExitStack() as stack:
        before = 0
        for number in range(MEASURED + 10):
            if number == 10:
                # The first ones made room for themselves.
                before = daemon.resident_bytes()
            stream = daemon.connect()
            stack.callback(stream.close)
            stream.sendall(frame({"Initialize": {}}))
            stream.recv(100)
        return (daemon.resident_bytes() - before) / MEASURED


def main() -> None:
    """Print one line per curve and shape, and per way to connect."""
    parser = argparse.ArgumentParser(description="Measure the enclave daemon on loopback.")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (default: %(default)s)")
    parser.add_argument("--tls", action="store_true", help="measure TLS as well, and compare")
    arguments = parser.parse_args()
    print(machine_line())
    print(f"{'curve':<14} {'connections':>11} {'in flight':>9} {'rate/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8}")
    with ExitStack() as stack:
        plain = stack.enter_context(daemon())
        encrypted = stack.enter_context(daemon(tls=True)) if arguments.tls else None
        for curve in CURVES:
            for shape in SHAPES:
                rate, cpu_s = report(curve, plain, curve, shape, arguments.seconds)
                print(flush=True)
                if encrypted is not None:
                    other, other_cpu_s = report(f"{curve}+TLS", encrypted, curve, shape, arguments.seconds)
                    print(f"  rate {other / rate:.2f}, CPU {other_cpu_s / cpu_s:.2f} of plain", flush=True)
        if encrypted is not None:
            for name, each in (("plain", plain), ("TLS", encrypted)):
                print(f"resident memory per {name} connection: {memory_per_connection(each) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
