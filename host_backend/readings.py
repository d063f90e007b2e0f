"""What a request for metrics reads: the links, the keys, the watermark store, the log, the process.

The names of the last are those of Prometheus' own library for Python. Source: proc(5).
"""

import gc
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from host_backend.log import dropped_lines
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore

#: Values of labels, and a number.
Value = tuple[tuple[str, ...], float]

_GENERATION = ("generation",)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value as it is at this moment.

    Attributes:
        name: Of the family; `_total` is added where it counts.
        help: What it tells.
        labels: Their names.
        read: Gives the values; None in between, where that takes long.
        counts: Whether it only grows.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Iterable[Value | None]]
    counts: bool = False


def _single(name: str, help_: str, value: Callable[[], float], *, counts: bool = False) -> Reading:
    return Reading(name, help_, (), lambda: [((), value())], counts)


def build_reading(version: str) -> Reading:
    """Return the version of this program, in Signatory's form."""
    build = {"branch": "", "checksum": "", "path": "enclave-host", "revision": "", "version": version}
    return Reading("signatory_build_info", "Build information.", tuple(build), lambda: [(tuple(build.values()), 1)])


def host_readings(vaults: Sequence[Vault], watermark: WatermarkStore) -> list[Reading]:
    """Return the readings of links, keys, the watermark store and the log. Longer than most: an entry for each."""

    def of_vaults(name: str, help_: str, value: Callable[[Vault], float], *, counts: bool = False) -> Reading:
        return Reading(name, help_, ("vault_name",), lambda: (((v.name,), value(v)) for v in vaults), counts)

    return [
        of_vaults("enclave_link_up", "Whether the enclave can be asked", lambda v: v.problem is None),
        of_vaults("enclave_keys_ready", "Keys that can sign", lambda v: 0 if v.problem else v.ready_count),
        of_vaults("enclave_keys_quarantined", "Keys out of service", lambda v: len(v.quarantined)),
        of_vaults(
            "enclave_reconnects",
            "How often the connection to the enclave was made again after it had ended",
            lambda v: v.link.reconnects,
            counts=True,
        ),
        of_vaults(
            "enclave_proof_good_until_seconds",
            "Until when the enclave may be asked without another proof, since unix epoch; 0 where none is asked for",
            _good_until,
        ),
        of_vaults(
            "enclave_proof_overdue",
            "Whether another proof was due and could not be had",
            lambda v: v.link.proof_overdue,
        ),
        of_vaults("enclave_retries", "Calls asked for once more", lambda v: v.link.retries, counts=True),
        of_vaults(
            "signature_verification_failures",
            "Signatures and proofs of the enclave that were wrong",
            lambda v: v.verification.failures,
            counts=True,
        ),
        _single(
            "watermark_store_problem",
            "Whether the watermark store could not judge the last request",
            lambda: watermark.problem is not None,
        ),
        _single(
            "watermark_rights_refused",
            "Rights that are not signed because their mark is damaged",
            lambda: len(watermark.refused),
        ),
        _single(
            "log_lines_dropped",
            "Log lines that were dropped because the reader had stopped",
            dropped_lines,
            counts=True,
        ),
    ]


def _good_until(vault: Vault) -> float:
    client = vault.link.client
    return 0.0 if client is None or client.proof is None else client.good_until


def process_readings() -> list[Reading]:
    """Return the readings of this process and its interpreter; without `/proc`, of the interpreter alone."""
    return [*(_of_process() if Path("/proc/self/stat").exists() else []), *_of_interpreter()]


def _of_process() -> list[Reading]:
    process = _Process()
    return [
        _single("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtual_bytes),
        _single("process_resident_memory_bytes", "Resident memory size in bytes.", process.resident_bytes),
        _single(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            lambda: process.started,
        ),
        _single(
            "process_cpu_seconds", "Total user and system CPU time spent in seconds.", process.cpu_seconds, counts=True
        ),
        Reading("process_open_fds", "Number of open file descriptors.", (), process.open_files),
        _single("process_max_fds", "Maximum number of open file descriptors.", process.max_files),
    ]


def _of_interpreter() -> list[Reading]:
    major, minor, patch = platform.python_version_tuple()
    info = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "major": major,
        "minor": minor,
        "patchlevel": patch,
    }
    return [
        _collections("python_gc_objects_collected", "Objects collected during gc", "collected"),
        _collections("python_gc_objects_uncollectable", "Uncollectable objects found during GC", "uncollectable"),
        _collections("python_gc_collections", "Number of times this generation was collected", "collections"),
        Reading("python_info", "Python platform information", tuple(info), lambda: [(tuple(info.values()), 1)]),
    ]


def _collections(name: str, help_: str, what: str) -> Reading:
    def read() -> list[Value]:
        return [((str(generation),), stat[what]) for generation, stat in enumerate(gc.get_stats())]

    return Reading(name, help_, _GENERATION, read, counts=True)


class _Process:
    """This process, as the kernel sees it."""

    def __init__(self) -> None:
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        after_boot = ticks / os.sysconf("SC_CLK_TCK")
        #: Seconds since 1970.
        self.started = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot)

    def virtual_bytes(self) -> int:
        return self._pages(0) * self._page_bytes

    def resident_bytes(self) -> int:
        return self._pages(1) * self._page_bytes

    def _pages(self, place: int) -> int:
        return int(Path("/proc/self/statm").read_text().split()[place])

    def cpu_seconds(self) -> float:
        times = os.times()
        return times.user + times.system

    def open_files(self) -> Iterator[Value | None]:
        # The one by which they are counted is open, too.
        count = -1
        with os.scandir("/proc/self/fd") as files:
            for _ in files:
                count += 1
                yield None
        yield (), count

    def max_files(self) -> float:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return inf if soft == resource.RLIM_INFINITY else soft
