"""A backup as bytes: every sealed key and every mark of a host, and a hash over all of it.

- Two lines: the contents as one JSON object, and the SHA-256 of that line. `head -n 1 FILE | sha256sum` gives the same.
- Keys stay sealed: a thief of the file cannot sign without an enclave that opens them.
- The marks are those of the moment, so they are too low from the next signature on. They say which rights there are and
  how far they were; nothing is ever signed on them alone.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enclave_signer.tezos import Family, Right, TezosError, check_public_key_hash, decode
from host_backend import strict_json
from host_backend.errors import HostError
from host_backend.keystore.base import MAX_BLOB_BYTES, MAX_PKH_CHARS, StoredKey
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.rule import Mark, MarkKey, in_range

#: What the first member of a backup says; another number for every other form.
FORMAT = "enclave-host backup 1"
#: Bytes of a backup: four full key files, or ten thousand keys with thirty thousand marks several times over.
MAX_BACKUP_BYTES = 64 * 1024 * 1024
#: The longest digest of a message, in bytes: BLAKE2b-256.
_MAX_DIGEST_BYTES = 32


class BackupUnusable(HostError):
    """The file is no backup, or not a whole one; use another copy."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds.

    Attributes:
        made: When, in UTC, as 2026-01-31T23:59:59Z.
        program: The version of the host that made it.
        keys: The sealed keys of each vault, by its name.
        marks: What the watermark store held.
    """

    made: str
    program: str
    keys: Mapping[str, Sequence[StoredKey]] = field(default_factory=dict)
    marks: StoredMarks = field(default_factory=StoredMarks)

    @property
    def hashes(self) -> frozenset[str]:
        """The public-key hashes of all keys."""
        return frozenset(key.pkh for keys in self.keys.values() for key in keys)

    @property
    def highest(self) -> dict[MarkKey, Mark]:
        """The highest known mark of every right; 0 where all that is known is that there was one."""
        damaged = {key: mark or Mark(0, 0, None) for key, mark in self.marks.refused.items()}
        return {**self.marks.marks, **damaged}


def encode_backup(backup: Backup) -> bytes:
    """Return a backup as bytes.

    Raises:
        BackupUnusable: It would be larger than a backup may be.
    """
    states: list[tuple[MarkKey, Mark | None, str]] = [(key, mark, "ok") for key, mark in backup.marks.marks.items()]
    states += [(key, mark, "refused") for key, mark in backup.marks.refused.items()]
    contents = {
        "format": FORMAT,
        "made": backup.made,
        "program": backup.program,
        "vaults": {
            name: [{"pkh": key.pkh, "blob": base64.b64encode(key.blob).decode()} for key in keys]
            for name, keys in backup.keys.items()
        },
        "marks": [_mark_entry(*state) for state in sorted(states, key=lambda state: state[0])],
    }
    line = json.dumps(contents).encode() + b"\n"
    data = line + json.dumps({"sha256": hashlib.sha256(line).hexdigest()}).encode() + b"\n"
    if len(data) > MAX_BACKUP_BYTES:
        raise BackupUnusable(f"the backup would have {len(data)} bytes, and {MAX_BACKUP_BYTES} are the limit")
    return data


def _mark_entry(key: MarkKey, mark: Mark | None, state: str) -> dict[str, object]:
    return {
        "pkh": key.pkh,
        "chain_id": key.chain_id,
        "right": key.right.value,
        "level": None if mark is None else mark.level,
        "round": None if mark is None else mark.round,
        "digest": None if mark is None or mark.digest is None else mark.digest.hex(),
        "state": state,
    }


def decode_backup(data: bytes) -> Backup:
    """Return what a backup holds.

    Args:
        data: The whole file.

    Raises:
        BackupUnusable: It is not a backup, not whole, or of a later form; the text says which.
    """
    line, newline, last = data.partition(b"\n")
    try:
        contents, ending = strict_json.loads(line), strict_json.loads(last)
    except (ValueError, RecursionError):
        raise BackupUnusable("not a whole backup: it must be two lines of JSON") from None
    if not isinstance(contents, dict) or not isinstance(ending, dict):
        raise BackupUnusable("not a backup: it must be two JSON objects, each on a line")
    if contents.get("format") != FORMAT:
        raise BackupUnusable(f"not a backup that this version reads: its `format` must be {FORMAT!r}")
    if ending != {"sha256": hashlib.sha256(line + newline).hexdigest()}:
        raise BackupUnusable("damaged: its SHA-256 is not the one in its last line; use another copy")
    try:
        return _backup(contents)
    except (KeyError, TypeError, ValueError, AttributeError, TezosError, binascii.Error):
        # The hash is right, so this was written so: by another program.
        raise BackupUnusable("not a backup that this version reads: an entry has another form") from None


def _backup(contents: dict[str, object]) -> Backup:
    made, program, vaults, marks = (contents[name] for name in ("made", "program", "vaults", "marks"))
    if not (
        isinstance(made, str) and isinstance(program, str) and isinstance(vaults, dict) and isinstance(marks, list)
    ):
        raise TypeError
    if not (made + program).isprintable():
        # Both are shown on a terminal.
        raise ValueError
    keys = {name: tuple(_stored_key(entry) for entry in entries) for name, entries in vaults.items()}
    whole: dict[MarkKey, Mark] = {}
    refused: dict[MarkKey, Mark | None] = {}
    for entry in marks:
        key, mark = _mark(entry)
        if entry["state"] == "refused":
            refused[key] = mark
        elif mark is not None:
            whole[key] = mark
        else:
            raise ValueError
    return Backup(made, program, keys, StoredMarks(whole, refused))


def _stored_key(entry: dict[str, str]) -> StoredKey:
    key = StoredKey(entry["pkh"], base64.b64decode(entry["blob"], validate=True))
    if not isinstance(key.pkh, str):
        raise TypeError
    if not 0 < len(key.pkh) <= MAX_PKH_CHARS or not 0 < len(key.blob) <= MAX_BLOB_BYTES:
        raise ValueError
    return key


def _mark(entry: dict[str, object]) -> tuple[MarkKey, Mark | None]:
    chain_id, pkh, right, level, round_, digest = (
        entry[name] for name in ("chain_id", "pkh", "right", "level", "round", "digest")
    )
    if not (isinstance(chain_id, str) and isinstance(pkh, str) and isinstance(right, str)):
        raise TypeError
    decode(chain_id, Family.CHAIN_ID)
    check_public_key_hash(pkh)
    key = MarkKey(chain_id, pkh, Right(right))
    if level is None:
        return key, None
    # A bool is an int, too.
    if type(level) is not int or type(round_) is not int or not isinstance(digest, str | None):
        raise TypeError
    mark = Mark(level, round_, None if digest is None else bytes.fromhex(digest))
    if not in_range(mark) or (mark.digest is not None and len(mark.digest) > _MAX_DIGEST_BYTES):
        raise ValueError
    return key, mark
