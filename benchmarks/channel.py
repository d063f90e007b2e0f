"""What TLS costs: rates of the enclave with and without it, and the memory of a connection.

`python -m benchmarks.channel` starts two daemons with the local sealer, of which one speaks TLS, and loads them in turn.
"""

import argparse
import datetime
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.enclave import CURVES, SHAPES, Shape, connected, frame, measure
from benchmarks.machine import machine_line
from benchmarks.turns import in_turn, quantile, ratio_text, sealing_key_in
from tests.doubles.processes import Enclave, kept

#: Connections of which the memory is measured, behind some that make room for themselves; an address may have 128.
MEASURED, BEFORE = 100, 10


class Daemon:
    """A daemon, how it is reached, and by curve and shape the rates and all latencies."""

    def __init__(self, name: str, enclave: Enclave, tls: ssl.SSLContext | None) -> None:
        self.name = name
        self._enclave = enclave
        self._tls = tls
        self.rates: dict[tuple[str, Shape], list[float]] = {}
        self.latencies: dict[tuple[str, Shape], list[float]] = {}

    def connect(self) -> socket.socket:
        """Return a new connection."""
        stream = connected(self._enclave.port)
        return stream if self._tls is None else self._tls.wrap_socket(stream)

    def measure(self, curve: str, shape: Shape, seconds: float) -> None:
        """Take one turn."""
        rate, latencies = measure(self.connect, curve, shape, seconds)
        self.rates.setdefault((curve, shape), []).append(rate)
        self.latencies.setdefault((curve, shape), []).extend(latencies)

    def line(self, curve: str, shape: Shape) -> str:
        """Return a line of the table."""
        p50, p99 = (quantile(self.latencies[curve, shape], part) * 1e3 for part in (0.5, 0.99))
        rate = median(self.rates[curve, shape])
        return f"{curve:<10} {shape[0]:>11} {shape[1]:>9} {self.name:<5} {rate:>8.0f} {p50:>8.3f} {p99:>8.3f}"

    def bytes_per_connection(self) -> float:
        """Return what a connection costs that has initialized and says nothing more."""
        with ExitStack() as stack:
            before = 0
            for number in range(BEFORE + MEASURED):
                if number == BEFORE:
                    before = self._enclave.resident_bytes()
                stream = stack.enter_context(self.connect())
                stream.sendall(frame({"Initialize": {}}))
                stream.recv(100)
            return (self._enclave.resident_bytes() - before) / MEASURED


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
def daemon(name: str, *, tls: bool) -> Iterator[Daemon]:
    """Run a daemon on a free port."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        image = 'development = true\nsealers = ["local"]\nlisteners = ["127.0.0.1:0"]\n'
        image += f'[local]\nsealing_key = "{sealing_key_in(folder)}"\n'
        context = None
        if tls:
            context, digest = certificate(folder)
            image += f'[tls]\nclients = ["{digest}"]\n'
        (folder / "image.toml").write_text(image)
        with kept(Enclave([sys.executable, "-m", "enclave_signer", "--image", str(folder / "image.toml")])) as enclave:
            yield Daemon(name, enclave, context)


def main() -> None:
    """Print one line per curve, shape and daemon, and the ratios of rates."""
    parser = argparse.ArgumentParser(description="Measure what TLS costs the enclave.")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of each measurement (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line())
    with daemon("plain", tls=False) as plain, daemon("TLS", tls=True) as encrypted:
        # First: a heap that has grown would hide it.
        for each in (plain, encrypted):
            print(f"resident memory of a connection, {each.name}: {each.bytes_per_connection() / 1024:.0f} KiB")
        print(f"{'curve':<10} {'connections':>11} {'in flight':>9} {'':<5} {'rate/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
        for curve, shape in product(CURVES, SHAPES):
            turn: Callable[[Daemon], None] = partial(Daemon.measure, curve=curve, shape=shape, seconds=options.seconds)
            in_turn([plain, encrypted], options.turns, turn)
            print(plain.line(curve, shape), encrypted.line(curve, shape), sep="\n")
            rate = ratio_text(encrypted.rates[curve, shape], plain.rates[curve, shape])
            print(f"{'':<32} TLS : plain, rate {rate}", flush=True)


if __name__ == "__main__":
    main()
