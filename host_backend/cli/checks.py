"""What `doctor` looks at. It signs nothing, takes no lock, and leaves nothing behind."""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from enclave_signer.curves import CurveError, self_test
from host_backend.addresses import UnixAddress
from host_backend.cli.counting import counted
from host_backend.cli.findings import FAILED, OK, WARNING, Check
from host_backend.cli.front_checks import examine_front
from host_backend.cli.progress import ENCLAVE_LIMITS, progress, waiting
from host_backend.config import Config, VaultConfig, load_config
from host_backend.config.key_storage import KeysApart
from host_backend.config.mark_storage import MarksInFirestore
from host_backend.durable import sync_times_s
from host_backend.errors import ConfigError, HostError, reason_of
from host_backend.operations.messages import CONSENSUS_KINDS
from host_backend.stores import marks_admin, open_configured_vault, process_on, stored_keys
from host_backend.watermark.base import MarksDescription, StoredMarks

#: Syncs that are measured: the median of these is not moved by one that had to wait.
SYNC_COUNT = 7
#: Milliseconds that a sync may take before a baker notices: every consensus signature waits for one.
SLOW_SYNC_MS = 100
#: Milliseconds below which so many syncs are too fast for a disk that keeps what it was given.
IMPLAUSIBLE_SYNC_MS = 0.01
IMPLAUSIBLE_COUNT = 5
#: No clock that is right is before this project, or so far after it.
PLAUSIBLE_YEARS = range(2026, 2100)
#: Seconds by which a file may seem to be of the future, or the clock to be moved, without a word: clocks are adjusted.
CLOCK_TOLERANCE_S = 2.0
#: Keys in one line.
_MOST_NAMED = 5


async def examine(config_file: Path, base_dir: str | None) -> AsyncIterator[Check]:
    """Look at everything, in the order in which `serve` needs it."""
    offset_s = time.time() - time.monotonic()
    try:
        config = load_config(config_file, base_dir)
    except ConfigError as error:
        yield Check("configuration", FAILED, str(error))
    else:
        for check in _configuration(config, config_file):
            yield check
        async for check in _parts(config):
            yield check
    yield _libraries()
    yield _clock(offset_s)


async def _parts(config: Config) -> AsyncIterator[Check]:
    yield _folder(config)
    stored: dict[str, int] = {}
    for vault in config.vaults.values():
        stored[vault.name], checks = await _stored_keys(vault)
        for check in checks:
            yield check
    for check in await asyncio.to_thread(list, _watermarks(config, sum(stored.values()))):
        yield check
    held: set[str] = set()
    for vault in config.vaults.values():
        async for check in _enclave(vault, stored[vault.name], held):
            yield check
    if missing := sorted(config.policies.keys() - held):
        yield Check(
            "keys", WARNING, f"listed under `tezos`, but ready in no vault: {', '.join(missing)}: they cannot sign"
        )
    yield await asyncio.to_thread(_disk, config.base_dir)
    for check in _listeners(config):
        yield check
    for check in await asyncio.to_thread(list, examine_front(config.server, process_on(config))):
        yield check


def _configuration(config: Config, file: Path) -> Iterator[Check]:
    yield Check(
        "configuration", OK, f"{file}: vaults: {len(config.vaults)}, keys under `tezos`: {len(config.policies)}"
    )
    for warning in config.warnings:
        yield Check("configuration", WARNING, warning)
    if config.server.jwt_users and file.stat().st_mode & 0o007:
        yield Check("configuration", WARNING, f"{file} has passwords, and can be read by others: chmod o-rwx {file}")
    if not config.vaults:
        yield Check("configuration", WARNING, "no vault: nothing can sign; name one under `vaults`")


def _folder(config: Config) -> Check:
    try:
        return _looked_at(config)
    except OSError as error:
        text = f"{config.base_dir} cannot be looked at: {reason_of(error)}: run as its owner, or correct base_dir"
        return Check("base_dir", FAILED, text)


def _looked_at(config: Config) -> Check:
    name, folder = "base_dir", config.base_dir
    if not folder.exists() and config.policies:
        why = (
            "`serve` does not start while keys are listed under `tezos`: correct base_dir, or generate or import a key"
        )
        return Check(name, FAILED, f"{folder} is not there: {why}")
    if not folder.exists():
        return Check(name, WARNING, f"{folder} is not there yet: the first generate, import or watermark init makes it")
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            name, FAILED, f"{folder} is not a folder that this user may write to: run as its owner, or correct base_dir"
        )
    return _permissions(name, folder, f"{folder} is this user's alone")


def _permissions(name: str, path: Path, fine: str) -> Check:
    others = path.stat().st_mode & 0o077
    if others & 0o022:
        return Check(name, FAILED, f"{path} can be changed by others: chmod go-rwx {path}")
    if others:
        return Check(name, WARNING, f"{path} can be read by others: chmod go-rwx {path}")
    return Check(name, OK, fine)


async def _stored_keys(vault: VaultConfig) -> tuple[int, list[Check]]:
    """Return how many keys are stored, and what there is to say of them."""
    shared, own = (vault.keys.shared, vault.keys.own) if isinstance(vault.keys, KeysApart) else (vault.keys, None)
    name = f"{'keys' if shared.file is None else 'key file'} of vault {vault.name}"
    try:
        hashes = Counter(key.pkh for key in await stored_keys(vault))
    except HostError as error:
        return 0, [Check(name, FAILED, str(error))]
    count, file = counted(len(hashes), "key"), shared.file
    if file is not None and not file.exists():
        if not hashes:
            return 0, [Check(name, WARNING, f"{file} is not there yet: the first generate or import makes it")]
        checks = [Check(name, OK, f"{file} is not there yet: {count} beside it")]
    elif file is not None:
        checks = [_permissions(name, file, f"{file}: {count}")]
    else:
        checks = [Check(name, OK, f"{shared}: {count}")]
    if own is not None and own.file is not None and own.file.exists():
        checks.append(_permissions(name, own.file, f"{own.file}: those that Signatory does not know"))
    if repeated := sorted(pkh for pkh, count in hashes.items() if count > 1):
        checks.append(Check(name, WARNING, f"{', '.join(repeated)} are stored several times: one good entry is enough"))
    return len(hashes), checks


def _watermarks(config: Config, stored: int) -> Iterator[Check]:
    name = "watermarks"
    try:
        found = marks_admin(config).describe()
    except HostError as error:
        yield Check(name, FAILED, str(error))
        return
    for finding in found.findings:
        yield Check(name, WARNING, finding)
    if not config.watermark.storage.lasts:
        yield Check(name, WARNING, "kept in memory and forgotten at every stop: never for a baker")
    elif found.stored is None:
        yield _no_marks(config, found, stored)
    else:
        yield _some_marks(found.stored, found)
        if unmarked := _without_mark(config, found.stored):
            fix = "for others, `enclave-host watermark raise`"
            yield Check("keys without a mark", OK, f"{_first(unmarked)}: right for keys that have never signed; {fix}")


def _without_mark(config: Config, stored: StoredMarks) -> list[str]:
    """Return the listed keys that may sign for a baker, and whose first message may be of any level."""
    marked = {key.pkh for key in (*stored.marks, *stored.refused)}
    return sorted(
        pkh for pkh, policy in config.policies.items() if pkh not in marked and policy.requests & CONSENSUS_KINDS
    )


def _first(pkhs: Sequence[str]) -> str:
    more = f", and {len(pkhs) - _MOST_NAMED} more" if len(pkhs) > _MOST_NAMED else ""
    return ", ".join(pkhs[:_MOST_NAMED]) + more


def _some_marks(stored: StoredMarks, found: MarksDescription) -> Check:
    name, count = "watermarks", counted(len(stored.marks), "mark")
    if stored.refused:
        return Check(name, FAILED, f"{count}, and {len(stored.refused)} damaged: those rights are not signed")
    if found.crashed:
        fix = "start one again, or let Signatory start with `enclave-host watermark export`"
        return Check(name, WARNING, f"{count}, all whole; the last host did not end in order: {fix}")
    running = "no host runs" if found.host is None else f"in use by process {found.host}"
    return Check(name, OK, f"{count}, all whole; {running}")


def _no_marks(config: Config, found: MarksDescription, stored: int) -> Check:
    name = "watermarks"
    if isinstance(config.watermark.storage, MarksInFirestore) and stored:
        fix = "check project, database and collection; see `enclave-host watermark init`"
        return Check(name, FAILED, f"no store in {config.watermark.storage.place}: {fix}")
    if found.waiting:
        return Check(
            name, OK, f"no store yet: the first serve makes one of {counted(found.waiting, 'mark')} that others left"
        )
    if stored:
        fix = (
            "if its keys have never signed, make one with `enclave-host watermark init`; otherwise put back the original file or "
            "rebuild the marks with `enclave-host watermark rebuild --above-level N`"
        )
        return Check(name, FAILED, f"no store in {config.base_dir}: {fix}")
    return Check(name, WARNING, "no store yet: the first generate, import or watermark init makes one")


async def _enclave(vault: VaultConfig, stored: int, held: set[str]) -> AsyncIterator[Check]:
    name = f"enclave of vault {vault.name}"
    try:
        async with AsyncExitStack() as stack:
            with waiting(str(vault.enclave), ENCLAVE_LIMITS.sealer_s), progress("opening keys", stored) as advance:
                opening = open_configured_vault(vault, limits=ENCLAVE_LIMITS, on_restored=lambda _done, _all: advance())
                opened = await stack.enter_async_context(opening)
            how = "answers, a socket of this machine" if isinstance(vault.enclave, UnixAddress) else "answers"
            yield Check(name, OK, f"{vault.enclave} {how}, {counted(len(opened.keys), 'key')} opened and compared")
            for pkh, reason in opened.out_of_service.items():
                fix = 'see "When a key is out of service" in docs/operations.md'
                yield Check(name, FAILED, f"{pkh} is out of service: {reason}: {fix}")
            held.update(key.pkh for key in opened.keys)
    except HostError as error:
        fix = f"start enclave-signer, or correct vaults.{vault.name}.config"
        yield Check(name, FAILED, f"{error}: {fix}")
    if not vault.enclave.is_loopback:
        yield Check(
            name,
            WARNING,
            f"{vault.enclave} is reached over a network in clear: others on the network can see imported keys",
        )


def _disk(folder: Path) -> Check:
    name = "disk"
    try:
        if not folder.is_dir():
            return Check(name, WARNING, f"{folder} is not there yet: not measured")
        times_ms = [time_s * 1000 for time_s in sync_times_s(folder, SYNC_COUNT)]
    except OSError as error:
        return Check(name, FAILED, f"{folder} cannot be written to: {reason_of(error)}")
    if len([time_ms for time_ms in times_ms if time_ms < IMPLAUSIBLE_SYNC_MS]) >= IMPLAUSIBLE_COUNT:
        why = "no disk is that fast: a restart of the machine may forget what was synced, so check that it is a local disk"
        return Check(name, WARNING, f"syncing {folder} takes {statistics.median(times_ms) * 1000:.1f} µs: {why}")
    text = f"syncing {folder} takes {statistics.median(times_ms):.1f} ms, {max(times_ms):.1f} ms at most"
    if statistics.median(times_ms) > SLOW_SYNC_MS:
        return Check(name, WARNING, f"{text}: every consensus signature waits for that; use a faster disk")
    return Check(name, OK, text)


def _listeners(config: Config) -> Iterator[Check]:
    for name, address in config.server.listeners.items():
        if address.is_loopback:
            yield Check(name, OK, f"{address}: this machine only")
        elif config.server.leaves_open(name):
            fix = "anyone who reaches it can get signed what the policy allows; use 127.0.0.1, or authenticate clients"
            yield Check(name, WARNING, f"{address} is open to other machines: {fix}")
        else:
            yield Check(name, WARNING, f"{address} is open to other machines: limit them with a firewall")


def _libraries() -> Check:
    try:
        self_test()
    except CurveError as error:
        return Check("curves", FAILED, f"{error}: install the locked versions")
    return Check("curves", OK, "all give their known answers")


def _clock(offset_s: float) -> Check:
    """Compare the clock with itself; `offset_s` is how far it was ahead of the monotonic one at the beginning."""
    now = datetime.now(UTC)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    moved_s = time.time() - time.monotonic() - offset_s
    if now.year not in PLAUSIBLE_YEARS:
        return Check("clock", FAILED, f"{text} cannot be: set the clock; tokens and logs depend on it, marks do not")
    if abs(moved_s) > CLOCK_TOLERANCE_S:
        return Check("clock", WARNING, f"{text}: moved by {moved_s:.1f} s meanwhile; see what sets it")
    return Check(
        "clock", OK, f"{text}: steady; whether it is right cannot be known from here, and no mark depends on it"
    )
