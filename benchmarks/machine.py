"""What machine this is, in the terms that matter to a signer, so that runs on different machines can be compared."""

import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType, SigningVersion

_REPEATS = 200


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


def machine_line() -> str:
    """Return one line: processor, Python, and how long one signature of each curve takes here in one thread."""
    message = bytes(80)
    signs = []
    for key_type in KeyType:
        key = curve(key_type).open(curve(key_type).generate())
        signs.append(f"{key_type} {microseconds(partial(key.sign, message, SigningVersion.LATEST)):.0f}")
    return f"{processor()}, Python {platform.python_version()}; one signature, µs: {', '.join(signs)}"
