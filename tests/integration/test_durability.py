"""The mark of a message is on the disk before the enclave gets the first byte of it."""

import asyncio
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from enclave_signer.protocol import codec
from enclave_signer.tezos import Right, parse_consensus, parse_secret_key
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.errors import StoreUnavailable
from host_backend.keystore.base import Before, StoredKey
from host_backend.policy import DEFAULT_POLICY
from host_backend.signer import Signer
from host_backend.vault.vault import open_vault
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.layout import BLOCK_BYTES, COPIES, Record, header_offset, parse_stray_record
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.enclave_proxy import enclave_proxy
from tests.doubles.host_process import BAKER, import_keys, running_host, store_file, write_config
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import Enclave, running_local_enclave
from tests.doubles.watermarks import created, digest

TZ1, *_ = FOUR
KEY = MarkKey("NetXo5iVw1vBoxM", TZ1.pkh, Right.BLOCK)


@dataclass
class Watched:
    """A disk that keeps in order which marks are written to it and synced, and everything else that is reported."""

    events: list[str] = field(default_factory=list)
    #: Chain, level and round of every mark that was written and then synced.
    stored: set[tuple[str, int, int]] = field(default_factory=set)
    written: list[Record] = field(default_factory=list)
    failing: bool = False

    def open(self, path: Path) -> "WatchedBlocks":
        return WatchedBlocks(self, PosixBlocks.writing(path))

    async def open_store(self, base_dir: Path) -> FileWatermarkStore:
        return await FileWatermarkStore.open(base_dir, in_memory_allowed=True, blocks=self.open)


class WatchedBlocks:
    """One open file of a `Watched` disk. Of headers, and of slots without a mark, nothing is noted."""

    def __init__(self, watched: Watched, real: PosixBlocks) -> None:
        self._watched = watched
        self.pread, self.fstat, self.close = real.pread, real.fstat, real.close
        self._real = real

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        data = b"".join(pieces)
        blocks = (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))
        records = [
            record for record in map(parse_stray_record, blocks) if record is not None and record.mark is not None
        ]
        if records:
            self._watched.events.append("writing")
            if self._watched.failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._watched.written += records
        return self._real.pwritev(pieces, offset)

    def fdatasync(self) -> None:
        self._real.fdatasync()
        if self._watched.written:
            self._watched.events.append("synced")
        for record in self._watched.written:
            assert record.mark is not None
            self._watched.stored.add((record.key.chain_id, record.mark.level, record.mark.round))
        self._watched.written.clear()


def test_every_mark_is_synced_before_its_answer(tmp_path: Path) -> None:
    created(tmp_path)
    watched = Watched()

    async def scenario(first: int) -> None:
        store = await watched.open_store(tmp_path)
        for level in range(first, first + 3):
            assert await store.advance(KEY, Mark(level, 0, digest(level))) is Verdict.ADVANCE
            assert (KEY.chain_id, level, 0) in watched.stored
            watched.failing = True
            with pytest.raises(StoreUnavailable):
                await store.advance(KEY, Mark(level, 1, digest("another")))
            assert (KEY.chain_id, level, 1) not in watched.stored
            watched.failing = False
            # It is written again, and synced, before anything is answered.
            assert await store.advance(KEY, Mark(level, 1, digest("another"))) is Verdict.REPEAT
            assert (KEY.chain_id, level, 1) in watched.stored
        await store.aclose()

    for start in (0, 10):
        asyncio.run(scenario(start))
    # What a stopped host has left is durable, and not written again.
    assert watched.events == ["writing", "synced", "writing", "writing", "synced"] * 6


class OneKey:
    """A key store that holds the blob of one key, sealed by nothing."""

    look_s = 1.0

    damaged: Mapping[str, str] = MappingProxyType({})

    async def load(self) -> tuple[StoredKey, ...]:
        return (StoredKey(TZ1.pkh, codec.encode_private_key(parse_secret_key(TZ1.secret))),)

    async def revision(self) -> str:
        return "the only one"

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        raise AssertionError("nothing is to be stored")

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        raise AssertionError(f"{key.pkh} is not to be replaced")

    async def keep(self, utc: str, before: Before) -> None:
        raise AssertionError("nothing is to be kept aside")

    async def kept(self, before: Before) -> None:
        raise AssertionError("nothing is to be put back")

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        raise AssertionError("nothing is to be exchanged")

    async def aclose(self) -> None:
        pass


def test_nothing_reaches_the_enclave_before_its_mark_is_stored(tmp_path: Path, enclave: Enclave) -> None:
    created(tmp_path)
    watched = Watched()

    async def scenario(port: int) -> None:
        store = await watched.open_store(tmp_path)
        async with open_vault(OneKey(), Endpoint(Address("127.0.0.1", port))) as vault:
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
        if (asked.chain_id, asked.level, asked.round) not in watched.stored:
            watched.events.append(f"not stored: level {asked.level} of {asked.chain_id}")

    with enclave_proxy(enclave.address) as proxy:
        proxy.on_bytes = lambda _: watched.events.append("asked")
        proxy.on_message = on_message
        asyncio.run(scenario(proxy.port))
        assert len(proxy.messages) == 20 + 1 + 15
    one_by_one, together = watched.events[: 20 * 3 + 1], watched.events[20 * 3 + 1 :]
    assert one_by_one == ["writing", "synced", "asked"] * 20 + ["asked"]
    # The one that failed and is written again, then batches.
    assert together[:3] == ["writing", "writing", "synced"]
    assert set(together) == {"writing", "synced", "asked"}


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


# The tests above believe what a sync says. This one, where strace can be had, sees the kernel being asked for it.
if strace_works():

    def test_the_marks_are_synced_before_the_first_byte_to_the_enclave(tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        names = "fsync,fdatasync,sendto,sendmsg,write,writev,pwritev,pwritev2"
        prefix = ("strace", "-D", "-f", "-yy", "-o", str(trace), "-e", f"trace={names}")
        with running_local_enclave(tmp_path / "sealing.key") as enclave:
            config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
            import_keys(config, TZ1)
            with running_host(config, prefix=prefix) as host:
                for level in (1, 2, 3):
                    assert host.sign(TZ1.pkh, attestation(level)).status == 200
                assert host.stop() == 0
            to_enclave = f"->127.0.0.1:{enclave.port}]"
        headers = [header_offset(copy) for copy in range(COPIES)]
        kinds = []
        for call in completed_calls(trace.read_text()):
            if call.name == "fdatasync" and f"{store_file(config)}>" in call.arguments:
                assert call.result == "0"
                kinds.append("sync")
            elif call.name.startswith("pwritev") and f"{store_file(config)}>" in call.arguments:
                offset = int(call.arguments.rpartition("], ")[2].split(", ")[1])
                kinds.append("header" if offset in headers else "record")
            elif to_enclave in call.arguments:
                kinds.append("enclave")
        # Initialize, Import, then the signatures; headers and slots may be written before each mark, and are synced, too.
        place = [index for index, kind in enumerate(kinds) if kind == "enclave"][1]
        signing = "".join(kind[0] for kind in kinds[place + 1 :])
        assert re.match(r"(([hr]+s)*r+se){3}", signing), signing
