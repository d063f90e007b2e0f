"""What machine this is, in the terms that matter to a signer, so that runs on different machines can be compared."""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path

import nacl.signing

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.messages import KeyType, SigningVersion

#: Where benchmarks keep their files: on a disk, where a `/tmp` may be memory.
FOLDER = Path("/var/tmp")
_REPEATS = 200
_MIB, _PAGE = 1 << 20, 4096
_ADDITIONS = 100_000


def microseconds(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e6


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _add() -> int:
    total = 0
    for number in range(_ADDITIONS):
        total += number
    return total


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast a machine does what signing consists of: one thread, medians.

    Attributes:
        bls_us: A signature of 80 bytes in the proof-of-possession suite by libblst, in microseconds.
        ed25519_us: A signature of 80 bytes by libsodium, in microseconds.
        blake2b_us: BLAKE2b of 1 MiB, in microseconds.
        loop_ms: A loop of 100 000 additions in a Python function, in milliseconds.
        sync_ms: A write of 4 KiB over what a file has there, and its fdatasync, in milliseconds.
    """

    bls_us: float
    ed25519_us: float
    blake2b_us: float
    loop_ms: float
    sync_ms: float

    def __str__(self) -> str:
        return (
            f"libblst POP signature {self.bls_us:.0f} µs, Ed25519 {self.ed25519_us:.1f} µs, BLAKE2b of 1 MiB "
            f"{self.blake2b_us:.0f} µs, Python loop {self.loop_ms:.2f} ms, fdatasync of 4 KiB {self.sync_ms:.3f} ms"
        )


def add_folder_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where a benchmark keeps its files."""
    parser.add_argument("--folder", type=Path, default=FOLDER, help="on which disk (default: %(default)s)")


def this_machine(folder: Path = FOLDER) -> Machine:
    """Measure the machine; `folder` is on the disk that counts."""
    message = bytes(80)
    bls = curve(KeyType.BLS)
    key = bls.open(bls.generate())
    with tempfile.TemporaryFile(dir=folder) as file:

        def sync() -> None:
            os.pwrite(file.fileno(), bytes(_PAGE), 0)
            os.fdatasync(file.fileno())

        return Machine(
            bls_us=microseconds(_signing(key)),
            ed25519_us=microseconds(partial(nacl.signing.SigningKey.generate().sign, message)),
            blake2b_us=microseconds(partial(blake2b, bytes(_MIB)), 30),
            loop_ms=microseconds(_add, 30) / 1e3,
            sync_ms=microseconds(sync, 50) / 1e3,
        )


def _signing(key: SigningKey) -> Callable[[], object]:
    """Return what signs another message each time: of one signed before, something may be kept."""
    numbers = count()
    return lambda: key.sign(next(numbers).to_bytes(80), SigningVersion.LATEST)


def machine_line(folder: Path = FOLDER) -> str:
    """Return two lines: processor, Python, one signature of each curve by our code; and what signing consists of."""
    signs = []
    for key_type in KeyType:
        key = curve(key_type).open(curve(key_type).generate())
        signs.append(f"{key_type} {microseconds(_signing(key)):.0f}")
    system = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{system}; one signature, µs: {', '.join(signs)}\n{this_machine(folder)}"
