"""The high watermarks of octez-signer as marks: read, and written for its return.

- The files before and after their renaming are read, the highest mark of each right counts.
- A digest is kept where a signature stands with it: then octez-signer, too, would give that one again.
- A mark without a round is at the highest one: octez-signer signs nothing more at that level.
- octez-signer signs first and writes then, and waits for no disk: after a crash its files may be one signature behind.

Source: Octez `src/bin_signer/handler.ml`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from enclave_signer.tezos import Family, Right, TezosError, decode
from host_backend.durable import write_durably
from host_backend.errors import ConfigError, StoreUnavailable, reason_of
from host_backend.json_entry import Entry
from host_backend.octez.folder import LOCK_NAME, held, read_files
from host_backend.octez.wallet import WALLET_NAMES
from host_backend.watermark.rule import MAX_ROUND, Mark, MarkKey, in_range, merged, union

_FILES = {
    Right.BLOCK: ("block_high_watermarks",),
    Right.PREATTESTATION: ("preattestation_high_watermarks", "preendorsement_high_watermarks"),
    Right.ATTESTATION: ("attestation_high_watermarks", "endorsement_high_watermarks"),
}
#: BLAKE2b-256 of the whole message, as our own.
_DIGEST_BYTES = 32
_MEMBERS = {"level", "round", "hash", "signature"}


def read_octez_marks(folder: Path) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right in a folder of octez-signer; none when it was run without `-W`.

    Raises:
        ConfigError: A file is not what octez-signer writes; the text names it. Nothing may be signed without its marks.
        StoreUnavailable: A file cannot be read.
    """
    with held(folder):
        return _read(folder)


def _read(folder: Path) -> dict[MarkKey, Mark]:
    marks: dict[MarkKey, Mark] = {}
    for right, names in _FILES.items():
        for file in read_files(folder, names):
            for chain_id, keys in file.entries():
                _check(keys, chain_id)
                for pkh, entry in keys.entries():
                    key = MarkKey(chain_id, entry.pkh(pkh), right)
                    marks[key] = merged(marks.get(key), _mark(entry))
    return marks


def _check(entry: Entry, chain_id: str) -> None:
    try:
        decode(chain_id, Family.CHAIN_ID)
    except TezosError as error:
        raise entry.fail(f"not a chain id: {error}") from None


def _mark(entry: Entry) -> Mark:
    members = entry.members()
    if not {"level", "hash"} <= set(members) <= _MEMBERS:
        raise entry.fail("must have a level and a hash, perhaps a round and a signature, and nothing else")
    digest = _digest(members["hash"])
    if "round" not in members:
        mark = Mark(members["level"].integer(), MAX_ROUND, None)
    else:
        signed = "signature" in members
        mark = Mark(members["level"].integer(), members["round"].integer(), digest if signed else None)
    if not in_range(mark):
        raise entry.fail(f"{mark} is out of range")
    return mark


def _digest(entry: Entry) -> bytes:
    try:
        digest = bytes.fromhex(entry.text())
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST_BYTES:
        raise entry.fail(f"must be {_DIGEST_BYTES} bytes in hex")
    return digest


def write_octez_marks(folder: Path, marks: Mapping[MarkKey, Mark]) -> None:
    """Raise octez-signer's high watermarks to these, durably; what its files hold that is higher stays.

    A mark without a digest gets one that no message has. No signature is written: octez-signer signs nothing of these
    again.

    Raises:
        ConfigError: The folder is not one of octez-signer, or a file in it is not what that writes.
        StoreUnavailable: Not all of it is written: octez-signer must not start on these files.
    """
    with held(folder):
        _require_octez(folder)
        _write(folder, union(_read(folder), marks))


def _require_octez(folder: Path) -> None:
    """Pass for a folder in which octez-signer has something, and for an empty one, which it may be given.

    Raises:
        ConfigError: It is another program's: octez-signer would start elsewhere, without these marks.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise StoreUnavailable(f"{folder} cannot be read: {reason_of(error)}") from error
    own = {LOCK_NAME, *WALLET_NAMES, *(name for names in _FILES.values() for name in names)}
    if names and not names & own:
        raise ConfigError(
            f"{folder} has nothing of octez-signer in it: name the folder that it gets as --base-dir, or a new, empty one"
        )


def _write(folder: Path, marks: Mapping[MarkKey, Mark]) -> None:
    try:
        for right, (name, *_) in _FILES.items():
            chains: dict[str, dict[str, object]] = {}
            for key, mark in sorted(marks.items()):
                if key.right is right:
                    digest = mark.digest or bytes(_DIGEST_BYTES)
                    state = {"level": mark.level, "round": mark.round, "hash": digest.hex()}
                    chains.setdefault(key.chain_id, {})[key.pkh] = state
            write_durably(folder / name, json.dumps(chains, indent=2).encode())
    except OSError as error:
        raise StoreUnavailable(f"the high watermarks in {folder} cannot be written: {reason_of(error)}") from error
