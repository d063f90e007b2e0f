"""Signatures over Octez' sockets, and beside them over HTTP: how many a second, and how long one takes.

`python -m benchmarks.octez` starts both programs as `benchmarks.host` does; each client has a connection and a key of its
own, and asks for attestations of rising levels. In turn, over HTTP, TCP and a Unix socket.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.host import CLIENTS, HEAD, Client, Measured, port_of
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import in_turn, sealing_key_in
from tests.doubles.host_process import BAKER, VAULT, stored_hashes, write_config
from tests.doubles.known_keys import attestation
from tests.doubles.octez_socket import framed, signing_request
from tests.doubles.processes import running


class OctezClient(Client):
    """Asks over one of Octez' sockets, with one key for one signature after the other."""

    def __init__(self, address: int | Path, pkh: str) -> None:
        super().__init__(0 if isinstance(address, Path) else address, pkh)
        self.where = address
        self.pkh = pkh

    def connect(self) -> socket.socket:
        """Connect again."""
        if isinstance(self.where, Path):
            self.stream = socket.socket(socket.AF_UNIX)
            self.stream.connect(str(self.where))
        else:
            super().connect()
        return self.stream

    def ask(self) -> None:
        """Send the next request."""
        self.level += 1
        self.answer = b""
        frame = framed(signing_request(self.pkh, attestation(self.level)))
        self.asked = time.perf_counter()
        self.stream.sendall(frame)

    def take(self) -> float | None:
        """Take what has come; when it is all of the answer, return how long it took in seconds."""
        came = self.stream.recv(65536)
        self.answer += came
        if came and len(self.answer) < 2 + int.from_bytes(self.answer[:2], "big"):
            return None
        if self.answer[2:3] != b"\0":
            raise SystemExit(f"not signed: {self.answer!r}")
        return time.perf_counter() - self.asked


@contextmanager
def serving(folder: Path) -> Iterator[list[Measured]]:
    """Run both programs, with clients for each way and each key."""
    enclave = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0"]
    with running([*enclave, "--sealing-key", str(sealing_key_in(folder))]) as daemon:
        port, path = port_of(daemon, "listening"), folder / "socket"
        config = write_config(folder, port, watermark="{driver: file}")
        host = [sys.executable, "-m", "host_backend"]
        generate = [*host, "generate", "-c", str(config), "-v", VAULT, "-n", str(3 * max(CLIENTS))]
        subprocess.run(generate, env={**os.environ}, capture_output=True, check=True)
        pkhs = stored_hashes(config)
        write_config(folder, port, dict.fromkeys(pkhs, BAKER), watermark="{driver: file}")
        octez = f"octez: {{unix: {path}, tcp: '127.0.0.1:0'}}, utility_address"
        config.write_text(config.read_text().replace("utility_address", octez))
        with running([*host, "serve", "-c", str(config)]) as serve:
            tcp = port_of(serve, '"Octez TCP server is listening for connections')
            http = port_of(serve, '"HTTP server is listening for connections')
            yield [
                Measured("HTTP", serve, [Client(http, pkh) for pkh in pkhs[0::3]]),
                Measured("tcp:", serve, [OctezClient(tcp, pkh) for pkh in pkhs[1::3]]),
                Measured("unix:", serve, [OctezClient(path, pkh) for pkh in pkhs[2::3]]),
            ]


def main() -> None:
    """Print one line per number of clients and way."""
    parser = argparse.ArgumentParser(description="Measure signatures over Octez' sockets and HTTP.")
    parser.add_argument("--turns", type=int, default=10, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of clients (default: %(default)s)")
    add_folder_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as name, serving(Path(name)) as measured:
        in_turn(measured, options.turns, lambda one: one.measure(options.seconds))
    print(HEAD)
    for count in CLIENTS:
        for one in measured:
            print(one.line(count))


if __name__ == "__main__":
    main()
