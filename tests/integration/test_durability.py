"""The mark of a message is on the disk before the enclave gets the first byte of it."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from enclave_signer.protocol import codec
from enclave_signer.tezos import Right, parse_consensus, parse_secret_key
from host_backend.errors import StoreUnavailable
from host_backend.keystore.base import StoredKey
from host_backend.policy import DEFAULT_POLICY
from host_backend.signer import Signer
from host_backend.vault import open_vault
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.enclave_proxy import enclave_proxy
from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import Enclave, running_local_enclave
from tests.doubles.watermarks import digest

TZ1, *_ = FOUR
KEY = MarkKey("NetXo5iVw1vBoxM", TZ1.pkh, Right.BLOCK)


@dataclass
class Watched:
    """Gives a store its connections, and keeps in order what they store and what else is told."""

    events: list[str] = field(default_factory=list)
    stored: set[tuple[object, object]] = field(default_factory=set)
    #: Journal mode and `synchronous` of the connection, at every write.
    durability: list[tuple[str, int]] = field(default_factory=list)
    connections: int = 0
    failing: bool = False

    def connect(self, path: Path) -> sqlite3.Connection:
        watched = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
                assert isinstance(parameters, list | tuple)
                if not sql.startswith("INSERT"):
                    return super().execute(sql, parameters)
                (journal_mode,) = super().execute("PRAGMA journal_mode").fetchone()
                (synchronous,) = super().execute("PRAGMA synchronous").fetchone()
                watched.durability.append((journal_mode, synchronous))
                watched.events.append("storing")
                if watched.failing:
                    raise sqlite3.OperationalError("disk I/O error")
                # A statement of its own is a transaction of its own: with synchronous FULL it returns after the sync.
                cursor = super().execute(sql, parameters)
                assert not self.in_transaction
                watched.events.append("stored")
                # Six values per mark: chain, key, right, level, round, digest.
                watched.stored |= set(zip(parameters[0::6], parameters[3::6], strict=True))
                return cursor

        self.connections += 1
        uri = f"{path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, isolation_level=None, factory=Connection)


def test_every_connection_writes_a_log_and_waits_for_the_disk(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    create(path)
    watched = Watched()

    async def scenario(first: int) -> None:
        store = await FileWatermarkStore.open(path, connect=watched.connect)
        for level in range(first, first + 3):
            assert await store.advance(KEY, Mark(level, 0, digest(level))) is Verdict.ADVANCE
            # After an error the file is opened anew.
            watched.failing = True
            with pytest.raises(StoreUnavailable):
                await store.advance(KEY, Mark(level, 1, digest("another")))
            watched.failing = False
        await store.aclose()

    for start in (0, 10):
        asyncio.run(scenario(start))
    assert watched.connections >= 6
    # 2 is FULL. Source: https://sqlite.org/pragma.html#pragma_synchronous
    assert watched.durability == [("wal", 2)] * 12


class OneKey:
    """A key store that holds the blob of one key, sealed by nothing."""

    async def load(self) -> tuple[StoredKey, ...]:
        return (StoredKey(TZ1.pkh, codec.encode_private_key(parse_secret_key(TZ1.secret))),)

    async def revision(self) -> str:
        return "the only one"

    async def add(self, key: StoredKey) -> bool:
        raise AssertionError(f"{key.pkh} is not to be stored")

    async def replace(self, key: StoredKey) -> None:
        raise AssertionError(f"{key.pkh} is not to be replaced")


def test_nothing_reaches_the_enclave_before_its_mark_is_stored(tmp_path: Path, enclave: Enclave) -> None:
    path = tmp_path / STORE_NAME
    create(path)
    watched = Watched()

    async def scenario(port: int) -> None:
        store = await FileWatermarkStore.open(path, connect=watched.connect)
        async with open_vault(OneKey(), host="127.0.0.1", port=port) as vault:
            signer = Signer({TZ1.pkh: DEFAULT_POLICY}, [vault], store)
            watched.events.clear()
            for level in range(20):
                await signer.sign(TZ1.pkh, attestation(level))
            # A repeat stores nothing: its mark is there.
            await signer.sign(TZ1.pkh, attestation(19))
            watched.failing = True
            with pytest.raises(StoreUnavailable):
                await signer.sign(TZ1.pkh, attestation(20))
            watched.failing = False
            await asyncio.gather(*(signer.sign(TZ1.pkh, attestation(21, chain=chain)) for chain in range(15)))
        await store.aclose()

    def on_message(message: bytes) -> None:
        asked = parse_consensus(message)
        if (asked.chain_id, asked.level) not in watched.stored:
            watched.events.append(f"not stored: level {asked.level} of {asked.chain_id}")

    with enclave_proxy(enclave.address) as proxy:
        proxy.on_bytes = lambda _: watched.events.append("asked")
        proxy.on_message = on_message
        asyncio.run(scenario(proxy.port))
        assert len(proxy.messages) == 20 + 1 + 15
    one_by_one, together = watched.events[: 20 * 3 + 1], watched.events[20 * 3 + 1 :]
    assert one_by_one == ["storing", "stored", "asked"] * 20 + ["asked"]
    # The one that failed, then batches.
    assert together[:3] == ["storing", "storing", "stored"]
    assert set(together) == {"storing", "stored", "asked"}


def strace_works() -> bool:
    """Whether system calls can be watched here: not every machine has strace, or lets it."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    return subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class SystemCall:
    name: str
    arguments: str
    result: str


def completed_calls(trace: str) -> list[SystemCall]:
    """Return the system calls of a trace in the order in which they returned."""
    unfinished: dict[str, str] = {}
    calls = []
    for line in trace.splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = rest.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"\s*<\.\.\. \w+ resumed>", rest):
            rest = unfinished.pop(pid) + rest[resumed.end() :]
        if found := re.fullmatch(r"\s*(\w+)\((.*)\)\s+= (.+)", rest):
            calls.append(SystemCall(found[1], found[2], found[3]))
    return calls


# The test above needs nothing but SQLite's word that a commit is on the disk. This one, where strace can be had, sees
# the kernel being asked to put it there.
if strace_works():

    def test_the_log_is_synced_before_the_first_byte_to_the_enclave(tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        names = "fsync,fdatasync,sendto,sendmsg,write,writev,pwrite64"
        prefix = ("strace", "-D", "-f", "-yy", "-o", str(trace), "-e", f"trace={names}")
        with running_local_enclave(tmp_path / "sealing.key") as enclave:
            config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
            import_keys(config, TZ1)
            with running_host(config, prefix=prefix) as host:
                for level in (1, 2, 3):
                    assert host.sign(TZ1.pkh, attestation(level)).status == 200
                assert host.stop() == 0
            to_enclave = f"->127.0.0.1:{enclave.port}]"
        kinds = []
        for call in completed_calls(trace.read_text()):
            if call.name in ("fsync", "fdatasync") and "watermark.sqlite-wal" in call.arguments:
                assert call.result == "0"
                kinds.append("sync")
            elif call.name == "pwrite64" and "watermark.sqlite-wal" in call.arguments:
                kinds.append("log")
            elif to_enclave in call.arguments:
                kinds.append("enclave")
        # Initialize, Import, then the signatures; the log's own header is synced before the first one.
        place = [index for index, kind in enumerate(kinds) if kind == "enclave"][1]
        signing = "".join(kind[0] for kind in kinds[place + 1 :])
        assert re.match(r"((l+s+)+e){3}", signing), signing
