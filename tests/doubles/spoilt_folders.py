"""Folders of a key that has signed, spoilt in ways in which no host starts, or refuses a right; and what they look like."""

import os
import random
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from enclave_signer.tezos import Right
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.layout import BLOCK_BYTES, COPIES, header_offset, slot_offset
from host_backend.watermark.file.opening import Slot, read_image
from tests.doubles.host_process import (
    BAKER,
    Host,
    Outcome,
    base,
    import_keys,
    in_use_file,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, KEYS, attestation, block
from tests.doubles.processes import Enclave

ALICE = KEYS["alice"]
#: The payload of another message than the one that was signed.
OTHER = bytes(32)
#: The last levels that were signed; preattestations were not.
LAST_BLOCK, LAST_ATTESTATION = 9, 10
LOCK = "watermark.lock"
OLD_STORE = "watermark.sqlite"
#: Commands that are said to change nothing.
LOOKS = (("watermark", "show"), ("watermark", "show", "--json"), ("doctor",), ("list",), ("config", "check"))
#: How a text might tell people to take away what keeps a double signature away.
DANGEROUS_ADVICE = re.compile(r"\b(remove|delete|erase|unlink|rm|move)\b", re.IGNORECASE)


def signs(host: Host, message: bytes) -> bool:
    answer = host.sign(ALICE.pkh, message)
    assert answer.status in (200, 409), answer.body
    return answer.status == 200


def signed_folder(folder: Path, local: Enclave, *, killed: bool) -> Path:
    """Let a host sign, stop it, start it, let it sign, and stop or kill it; return its `base_dir`."""
    config = write_config(folder, local.port, {ALICE.pkh: BAKER})
    import_keys(config, ALICE)
    with running_host(config) as host:
        for message in (block(6), block(7), attestation(8)):
            assert signs(host, message)
        assert host.stop() == 0
    with running_host(config) as host:
        for message in (block(8), block(LAST_BLOCK), attestation(9), attestation(LAST_ATTESTATION)):
            assert signs(host, message)
        if killed:
            host.discard()
        else:
            assert host.stop() == 0
    assert in_use_file(config).exists() == killed
    return base(config)


def spread(folder: Path, local: Enclave, history: Path) -> Path:
    """Put a `base_dir` into another folder; return its configuration there."""
    config = write_config(folder, local.port, {ALICE.pkh: BAKER})
    shutil.copytree(history, base(config))
    return config


def tree(config: Path, *, running: bool = False) -> dict[str, str]:
    """Names, modes and contents of everything.

    Of the store of a running host not the headers: it seals the store when it has nothing to do.
    """
    found = {}
    for path in (config.parent, *sorted(config.parent.rglob("*"))):
        content = path.read_bytes() if path.is_file() else b""
        if running and path == store_file(config):
            for offset in map(header_offset, range(COPIES)):
                content = content[:offset] + bytes(BLOCK_BYTES) + content[offset + BLOCK_BYTES :]
        mode = stat.filemode(path.lstat().st_mode)
        found[str(path)] = f"{mode} {len(content)} {blake2b(content).hexdigest()}"
    return found


def looks(config: Path) -> list[Outcome]:
    """Do everything that is said to change nothing; see that it has not, is no bug, and advises nothing dangerous."""
    before = tree(config)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda words: run_command(*words, "-c", config), LOOKS))
    assert tree(config) == before
    for outcome in outcomes:
        assert outcome.code in (0, 1, 2)
        assert "Traceback" not in outcome.stderr
        assert not DANGEROUS_ADVICE.search(outcome.stdout + outcome.stderr)
    return outcomes


def slot_of(config: Path, right: Right) -> tuple[int, Slot]:
    """Return the number and the content of a right's slot."""
    file = PosixBlocks.reading(store_file(config))
    try:
        slots = read_image(file).slots
    finally:
        file.close()
    (number,) = (number for number, slot in enumerate(slots) if slot.record.key.right is right)
    return number, slots[number]


def spoil(config: Path, offset: int) -> None:
    """Spoil a block of the store."""
    with store_file(config).open("r+b") as file:
        file.seek(offset)
        file.write(b"spoilt")


# States in which no host starts


def no_store(config: Path) -> None:
    store_file(config).unlink()
    if not in_use_file(config).exists():
        # Else the marks that were handed back would make a new one.
        shutil.rmtree(base(config) / "watermark_v2")


def empty(config: Path) -> None:
    os.truncate(store_file(config), 0)


def cut(config: Path) -> None:
    os.truncate(store_file(config), store_file(config).stat().st_size // 2)


def foreign(config: Path) -> None:
    store_file(config).write_bytes(random.Random(1).randbytes(store_file(config).stat().st_size))


def zeroed(config: Path) -> None:
    store_file(config).write_bytes(bytes(store_file(config).stat().st_size))


def both_copies(config: Path) -> None:
    number, _ = slot_of(config, Right.BLOCK)
    for copy in range(COPIES):
        spoil(config, slot_offset(number, copy))


def both_headers(config: Path) -> None:
    for copy in range(COPIES):
        spoil(config, header_offset(copy))


#: What version 0.1 wrote to keep Signatory out, and a crash left there.
_OLD_NOTE = b'"enclave-host has these keys: stop it before Signatory starts"\n'
#: Of version 0.1, with "EHWM" and the version in the header.
_OLD_SCHEMA = f"""
CREATE TABLE marks (
    chain_id TEXT NOT NULL,
    pkh TEXT NOT NULL,
    "right" TEXT NOT NULL CHECK ("right" IN ('block', 'preattestation', 'attestation')),
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2147483647),
    round INTEGER NOT NULL CHECK (round BETWEEN 0 AND 2147483647),
    digest BLOB CHECK (length(digest) = 32),
    PRIMARY KEY (chain_id, pkh, "right")
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {0x4548574D};
PRAGMA user_version = 1;
"""


def old_store(config: Path) -> None:
    """A store of version 0.1 in place of ours, closed as its last connection does."""
    store_file(config).unlink()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(_OLD_SCHEMA)
        (base(config) / OLD_STORE).write_bytes(connection.serialize())
    with closing(sqlite3.connect(base(config) / OLD_STORE, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for right, level in (("block", LAST_BLOCK), ("attestation", LAST_ATTESTATION)):
            connection.execute(
                "INSERT INTO marks VALUES (?, ?, ?, ?, 0, ?)", (CHAIN_ID, ALICE.pkh, right, level, OTHER)
            )


def old_store_after_a_crash(config: Path) -> None:
    """One whose host was killed: its note is there, or a log with marks that are not in the file."""
    old_store(config)
    if in_use_file(config).exists():
        in_use_file(config).write_bytes(_OLD_NOTE)
        return
    path = base(config) / OLD_STORE
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE marks SET round = 1")
        log = path.with_name(f"{OLD_STORE}-wal").read_bytes()
        content = path.read_bytes()
    # Closing has brought the log into the file.
    path.write_bytes(content)
    path.with_name(f"{OLD_STORE}-wal").write_bytes(log)


def signatory_file(config: Path) -> Path:
    return base(config) / "watermark_v2" / f"{CHAIN_ID}.json"


def signatory_garbage(config: Path) -> None:
    signatory_file(config).write_text('{"tz1": ')


def signatory_garbage_of_long_ago(config: Path) -> None:
    (base(config) / "watermark").mkdir()
    (base(config) / "watermark" / f"{CHAIN_ID}.json").write_text("[]")


@dataclass(frozen=True)
class Refused:
    """A state in which no host starts.

    Attributes:
        make: Makes it of a whole folder.
        names: The file that the refusal names, in `base_dir`.
        command: The command that it names as a way back.
    """

    make: Callable[[Path], None]
    names: str = "watermark.marks"
    command: str = "watermark rebuild --above-level N"

    def __str__(self) -> str:
        return self.make.__name__.replace("_", " ")


REFUSED = (
    Refused(no_store),
    Refused(empty),
    Refused(cut),
    Refused(foreign),
    Refused(zeroed),
    Refused(both_copies),
    Refused(both_headers),
    Refused(old_store_after_a_crash, OLD_STORE, "watermark migrate --above-level N"),
    Refused(signatory_garbage, f"watermark_v2/{CHAIN_ID}.json"),
    Refused(signatory_garbage_of_long_ago, f"watermark/{CHAIN_ID}.json"),
)
