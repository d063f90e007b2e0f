"""Backups as bytes: what goes in comes out, and nothing that is damaged does."""

import hashlib
import json
import random

import pytest

from enclave_signer.tezos import Right
from host_backend.backup import Backup, BackupUnusable, decode_backup, encode_backup
from host_backend.keystore.base import StoredKey
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.known_keys import CHAIN_ID, KEYS

ALICE = KEYS["alice"].pkh
WHOLE, RAISED, DAMAGED, LOST = (
    MarkKey(chain, ALICE, right)
    for chain, right in (
        (CHAIN_ID, Right.BLOCK),
        (CHAIN_ID, Right.ATTESTATION),
        (CHAIN_ID, Right.PREATTESTATION),
        ("NetXdQprcVkpaWU", Right.BLOCK),
    )
)
BACKUP = Backup(
    "2026-01-31T23:59:59Z",
    "0.2.0",
    {"one": (StoredKey(ALICE, b"\x00blob"), StoredKey(ALICE, b"another")), "empty": ()},
    StoredMarks(
        {WHOLE: Mark(7, 1, bytes(range(32))), RAISED: Mark(2**31 - 1, 0, None)}, {DAMAGED: Mark(5, 0, None), LOST: None}
    ),
)


def test_what_goes_in_comes_out() -> None:
    data = encode_backup(BACKUP)
    assert decode_backup(data) == BACKUP
    assert encode_backup(decode_backup(data)) == data


def test_the_highest_known_mark_of_a_damaged_right_counts() -> None:
    assert BACKUP.highest == {**BACKUP.marks.marks, DAMAGED: Mark(5, 0, None), LOST: Mark(0, 0, None)}


def test_the_hash_is_that_of_the_first_line() -> None:
    line, last = encode_backup(BACKUP).splitlines(keepends=True)
    assert json.loads(last) == {"sha256": hashlib.sha256(line).hexdigest()}


def test_no_changed_bit_and_no_missing_end_passes() -> None:
    data = encode_backup(BACKUP)
    for place in range(len(data) * 8):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        # The last line may be spelt otherwise, as by another case of its digits; what it is about may not.
        try:
            assert decode_backup(bytes(changed)) == BACKUP
            assert place // 8 >= data.index(b"\n")
        except BackupUnusable:
            pass
    for length in range(len(data) - 1):
        with pytest.raises(BackupUnusable):
            decode_backup(data[:length])


def test_arbitrary_bytes_are_refused() -> None:
    chance = random.Random(1)
    for data in (
        b"",
        b"\n",
        b"[]\n[]",
        b"{}\n{}",
        b"[" * 100_000 + b"\n{}",
        *(chance.randbytes(40) for _ in range(200)),
    ):
        with pytest.raises(BackupUnusable):
            decode_backup(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], "enclave-host backup 2"),
        (["made"], 5),
        (["made"], "\x1b[2J"),
        (["program"], "\n"),
        (["vaults"], []),
        (["vaults", "one"], {"pkh": ALICE}),
        (["vaults", "one", 0], "key"),
        (["vaults", "one", 0, "blob"], "!"),
        (["vaults", "one", 0, "blob"], ""),
        (["vaults", "one", 0, "pkh"], 5),
        (["vaults", "one", 0, "pkh"], [ALICE]),
        (["vaults", "one", 0, "pkh"], "t" * 65),
        (["marks"], {}),
        (["marks", 0], []),
        (["marks", 0, "level"], True),
        (["marks", 0, "level"], -1),
        (["marks", 0, "level"], 2**31),
        (["marks", 0, "round"], None),
        (["marks", 0, "digest"], "zz"),
        (["marks", 0, "digest"], "00" * 33),
        (["marks", 0, "right"], "endorsement"),
        (["marks", 0, "pkh"], "tz1nobody"),
        (["marks", 0, "chain_id"], "NetX"),
        (["marks", 0, "level"], None),
    ],
)
def test_another_form_with_a_right_hash_is_refused(path: list[str | int], value: object) -> None:
    contents = json.loads(encode_backup(BACKUP).partition(b"\n")[0])
    contents["marks"] = [entry for entry in contents["marks"] if entry["state"] == "ok"]
    *way, last = path
    inner = contents
    for step in way:
        inner = inner[step]
    inner[last] = value
    line = json.dumps(contents).encode() + b"\n"
    with pytest.raises(BackupUnusable, match="not a backup that this version reads"):
        decode_backup(line + json.dumps({"sha256": hashlib.sha256(line).hexdigest()}).encode())
