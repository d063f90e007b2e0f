"""The three layouts of Signatory's watermark files: all are read, the present one is written.

- What Signatory marked is never signed again here, whichever layout it left: the highest mark of each right counts, and
  files that cannot be read stop the start.
- `attestation` and `attestation_with_dal`, and the old name `endorsement`, are one right.

Source: Signatory `pkg/signatory/watermark` (`file.go`, `migration.go`).
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from enclave_signer.tezos import Kind, Right, TezosError
from enclave_signer.tezos import decode as decode_base58
from enclave_signer.tezos import encode as encode_base58
from host_backend import strict_json
from host_backend.bounded_file import read_bounded
from host_backend.durable import create_folder, free_name, write_durably
from host_backend.errors import ConfigError, StateConflict, StoreUnavailable, reason_of
from host_backend.json_entry import Entry
from host_backend.watermark.rule import Mark, MarkKey, in_range, merged

logger = logging.getLogger(__name__)

#: Signatory's folders: the present layout, and those that it migrates from.
FOLDER = "watermark_v2"
_FOLDER_V1 = "watermark_v1"
_FOLDER_V0 = "watermark"
#: The file at which Signatory refuses to start.
IN_USE_NAME = "in-use-by-enclave-host.json"
#: All the marks on one chain that a store of ours can hold, as we write them: some 720 bytes a key.
MAX_FILE_BYTES = 64 * 1024 * 1024

#: What to do about a file that cannot be read.
_WAY_BACK = (
    "nothing is signed without its marks: put it right, or run `enclave-host watermark rebuild --above-level N`, which "
    "puts it aside"
)

#: Every name that a right has had with Signatory.
RIGHTS = {
    "block": Right.BLOCK,
    "preattestation": Right.PREATTESTATION,
    "preendorsement": Right.PREATTESTATION,
    "attestation": Right.ATTESTATION,
    "attestation_with_dal": Right.ATTESTATION,
    "endorsement": Right.ATTESTATION,
}
#: Under which names a right is written, so that Signatory consults it for every kind of message.
KINDS = {
    Right.BLOCK: ("block",),
    Right.PREATTESTATION: ("preattestation",),
    Right.ATTESTATION: ("attestation", "attestation_with_dal"),
}
#: What `order` meant in the second layout; everything above is an endorsement.
_ORDERS = {0: Right.BLOCK, 1: Right.PREATTESTATION}

Marks = Mapping[MarkKey, Mark]


def read_signatory_marks(
    base_dir: Path, *, present: bool = True, without: Collection[Path] = ()
) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right in Signatory's files; none when there are none.

    Args:
        base_dir: Where its folders are.
        present: Whether to read the present layout as well as the older ones.
        without: Files that are not read.

    Raises:
        ConfigError: A file is not what Signatory writes; the text names it. Nothing may be signed without its marks.
        StoreUnavailable: A file cannot be read.
    """
    highest: dict[MarkKey, Mark] = {}
    for file, parse in _all_files(base_dir, present=present):
        if file in without:
            continue
        for key, mark in parse(_Entry(file, "", _load(file)), _chain_id(file)):
            highest[key] = merged(highest.get(key), mark)
    return highest


def unreadable_files(base_dir: Path) -> list[Path]:
    """Return the files that `read_signatory_marks` would stop at.

    Raises:
        HostError: A folder cannot be read.
    """
    return [file for file, parse in _all_files(base_dir) if not _is_readable(file, parse)]


def put_aside(unreadable: Iterable[Path], suffix: str) -> None:
    """Give other names to files of Signatory's that cannot be read, where neither program reads them.

    Raises:
        OSError: Not done.
    """
    for file in unreadable:
        aside = free_name(file.with_name(file.name + suffix))
        file.replace(aside)
        logger.warning("%s could not be read, and was put aside as %s", file, aside.name)


def _is_readable(file: Path, parse: "_Parse") -> bool:
    try:
        for _ in parse(_Entry(file, "", _load(file)), _chain_id(file)):
            pass
    except (ConfigError, StoreUnavailable):
        return False
    return True


def _all_files(base_dir: Path, *, present: bool = True) -> Iterator[tuple[Path, "_Parse"]]:
    layouts = ((FOLDER, _parse_v2), (_FOLDER_V1, _parse_v1), (_FOLDER_V0, _parse_v0))
    for name, parse in layouts if present else layouts[1:]:
        for file in _files(base_dir / name):
            yield file, parse


def _files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError as error:
        if folder.is_symlink():
            raise StoreUnavailable(
                f"Signatory's watermarks in {folder} cannot be read: the link leads nowhere; mount what it leads to or, if "
                "that is lost, move the link away and run `enclave-host watermark rebuild --above-level N`"
            ) from error
        return []
    except OSError as error:
        if folder.exists() and not folder.is_dir():
            raise StateConflict(f"{folder} is not a folder, which Signatory's marks are in: move it away") from error
        raise StoreUnavailable(f"Signatory's watermarks in {folder} cannot be read: {reason_of(error)}") from error
    # Signatory reads regular files that end so. A link that leads nowhere may lead to marks: it stands for one of them.
    return [
        entry
        for entry in entries
        if entry.suffix == ".json" and entry.name != IN_USE_NAME and (entry.is_symlink() or entry.is_file())
    ]


def _load(file: Path) -> object:
    try:
        data = read_bounded(file, MAX_FILE_BYTES, regular=True)
    except OSError as error:
        raise StoreUnavailable(
            f"Signatory's watermarks in {file} cannot be read: {reason_of(error)}; {_WAY_BACK}"
        ) from error
    if data is None:
        raise StateConflict(f"{file}: larger than {MAX_FILE_BYTES} bytes, too large for a watermark file; {_WAY_BACK}")
    try:
        return strict_json.loads(data)
    except (ValueError, RecursionError):
        raise StateConflict(
            f"{file}: not a watermark file of Signatory's: not JSON, or a name occurs twice; {_WAY_BACK}"
        ) from None


def _chain_id(file: Path) -> str:
    try:
        decode_base58(file.stem, Kind.CHAIN_ID.value.family)
    except TezosError as error:
        raise StateConflict(f"{file}: its name is not a chain id: {error}; {_WAY_BACK}") from None
    return file.stem


class _Entry(Entry):
    """A value in one of Signatory's files."""

    def fail(self, problem: str) -> ConfigError:
        return StateConflict(f"{super().fail(problem)}; {_WAY_BACK}")

    def number(self, name: str) -> int:
        """Return a whole number of an object; an absent one is 0, as in Go."""
        member = self.members().get(name)
        return 0 if member is None or member.is_null else member.integer()

    def mark(self, *more: str) -> Mark:
        """Return level, round and digest of an object that has nothing else but `more`."""
        if unknown := self.members().keys() - {"level", "round", "hash", *more}:
            raise self.fail(f"unknown member {min(unknown)!r}")
        mark = Mark(self.number("level"), self.number("round"), self._digest())
        if not in_range(mark):
            raise self.fail(f"{mark} is out of range")
        return mark

    def _digest(self) -> bytes | None:
        member = self.members().get("hash")
        if member is None or member.is_null:
            return None
        try:
            _, digest = decode_base58(member.text(), Kind.BLOCK_PAYLOAD_HASH.value.family)
        except TezosError as error:
            raise member.fail(str(error)) from None
        return digest

    def right(self, kind: str) -> Right:
        if kind not in RIGHTS:
            raise self.fail(f"unknown kind, known are {', '.join(RIGHTS)}")
        return RIGHTS[kind]


_Parsed = Iterator[tuple[MarkKey, Mark]]
_Parse = Callable[[_Entry, str], _Parsed]


def _parse_v2(top: _Entry, chain_id: str) -> _Parsed:
    """Read key hash → kind → state."""
    for pkh, kinds in top.entries():
        for kind, state in kinds.entries():
            yield MarkKey(chain_id, kinds.pkh(pkh), state.right(kind)), state.mark()


def _parse_v0(top: _Entry, chain_id: str) -> _Parsed:
    """Read kind → key hash → state."""
    for kind, keys in top.entries():
        for pkh, state in keys.entries():
            yield MarkKey(chain_id, state.pkh(pkh), keys.right(kind)), state.mark()


def _parse_v1(top: _Entry, chain_id: str) -> _Parsed:
    """Read key hash → one state for all rights, the last message of any kind.

    What was signed of the other rights at that level and round is not known, so nothing is signed there again.
    """
    for pkh, state in top.entries():
        own = _ORDERS.get(state.number("order"), Right.ATTESTATION)
        mark = state.mark("order")
        for right in Right:
            known = mark if right is own else Mark(mark.level, mark.round, None)
            yield MarkKey(chain_id, state.pkh(pkh), right), known


def write_signatory_marks(base_dir: Path, marks: Marks) -> None:
    """Write marks in Signatory's present layout, durably; what its files held before is in `marks` or below.

    Raises:
        StoreUnavailable: Not all of it is written: Signatory must not start on these files.
    """
    try:
        create_folder(base_dir / FOLDER, 0o750)
        for chain_id, keys in sorted(_by_chain(marks).items()):
            text = json.dumps(keys, indent=4)
            write_durably(base_dir / FOLDER / f"{chain_id}.json", text.encode())
    except OSError as error:
        raise StoreUnavailable(
            f"Signatory's watermarks in {base_dir / FOLDER} cannot be written: {reason_of(error)}"
        ) from error


def _by_chain(marks: Marks) -> dict[str, dict[str, dict[str, object]]]:
    chains: dict[str, dict[str, dict[str, object]]] = {}
    for key, mark in sorted(marks.items(), key=lambda entry: (entry[0].pkh, entry[0].right)):
        kinds = chains.setdefault(key.chain_id, {}).setdefault(key.pkh, {})
        for kind in KINDS[key.right]:
            kinds[kind] = _state(mark)
    return chains


def _state(mark: Mark) -> dict[str, object]:
    state: dict[str, object] = {"level": mark.level, "round": mark.round}
    if mark.digest is not None:
        state["hash"] = encode_base58(Kind.BLOCK_PAYLOAD_HASH, mark.digest)
    return state
