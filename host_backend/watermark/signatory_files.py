"""Signatory's watermark files: read at every start, written back when the host stops.

- What Signatory marked is never signed again here, whichever of its three layouts it left: the highest mark of each
  right counts, and files that cannot be read stop the start.
- `attestation` and `attestation_with_dal`, and the old name `endorsement`, are one right.
- While the host runs, the folder holds a file at which Signatory refuses to start. It is removed only after the marks
  were written there durably, so that Signatory goes on from them.

Source: Signatory `pkg/signatory/watermark` (`file.go`, `migration.go`); that a foreign `*.json` in `watermark_v2` stops
its start was seen on the program.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from enclave_signer.tezos import Kind, Right, TezosError, check_public_key_hash
from enclave_signer.tezos import decode as decode_base58
from enclave_signer.tezos import encode as encode_base58
from host_backend.durable import create_folder, fsync_directory, write_durably
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.rule import Mark, MarkKey, in_range, is_above

#: Signatory's folders: the present layout, and those that it migrates from.
FOLDER = "watermark_v2"
_FOLDER_V1 = "watermark_v1"
_FOLDER_V0 = "watermark"
#: The file at which Signatory refuses to start.
IN_USE_NAME = "in-use-by-enclave-host.json"
#: Three marks of some ten thousand keys, per chain.
MAX_FILE_BYTES = 16 * 1024 * 1024

_RIGHTS = {
    "block": Right.BLOCK,
    "preattestation": Right.PREATTESTATION,
    "preendorsement": Right.PREATTESTATION,
    "attestation": Right.ATTESTATION,
    "attestation_with_dal": Right.ATTESTATION,
    "endorsement": Right.ATTESTATION,
}
#: Under which names a right is written, so that Signatory consults it for every kind of message.
_KINDS = {
    Right.BLOCK: ("block",),
    Right.PREATTESTATION: ("preattestation",),
    Right.ATTESTATION: ("attestation", "attestation_with_dal"),
}
#: What `order` meant in the second layout; everything above is an endorsement.
_ORDERS = {0: Right.BLOCK, 1: Right.PREATTESTATION}

Marks = Mapping[MarkKey, Mark]


def read_signatory_marks(base_dir: Path, *, present: bool = True) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right in Signatory's files; none when there are none.

    Args:
        base_dir: Where its folders are.
        present: Whether to read the present layout as well as the older ones.

    Raises:
        ConfigError: A file is not what Signatory writes; the text names it. Nothing may be signed without its marks.
        StoreUnavailable: A file cannot be read.
    """
    highest: dict[MarkKey, Mark] = {}
    layouts = ((FOLDER, _parse_v2), (_FOLDER_V1, _parse_v1), (_FOLDER_V0, _parse_v0))
    for name, parse in layouts if present else layouts[1:]:
        for file in _files(base_dir / name):
            for key, mark in parse(_Entry(file, "", _load(file)), _chain_id(file)):
                highest[key] = merged(highest.get(key), mark)
    return highest


def merged(stored: Mark | None, mark: Mark) -> Mark:
    """Return the higher of two marks; of two messages at one level and round, neither may be repeated."""
    if stored is None or is_above(mark, stored):
        return mark
    if is_above(stored, mark) or stored.digest == mark.digest:
        return stored
    return Mark(mark.level, mark.round, None)


def _files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreUnavailable(f"Signatory's watermarks in {folder} cannot be read: {error.strerror}") from error
    # Signatory reads regular files that end so, and nothing else.
    return [entry for entry in entries if entry.suffix == ".json" and entry.is_file() and entry.name != IN_USE_NAME]


def _load(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StoreUnavailable(f"Signatory's watermarks in {file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, no watermark file is")
    try:
        return json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: not a watermark file of Signatory's: not JSON, or a name stands twice") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands twice")
    return entries


def _chain_id(file: Path) -> str:
    try:
        decode_base58(file.stem, Kind.CHAIN_ID.value.family)
    except TezosError as error:
        raise ConfigError(f"{file}: its name is no chain id: {error}; move it out of the folder") from None
    return file.stem


class _Entry:
    """A value in a file, which knows where it stands."""

    def __init__(self, file: Path, path: str, value: object) -> None:
        self._file = file
        self._path = path
        self._value = value

    def fail(self, problem: str) -> ConfigError:
        return ConfigError(f"{self._file}: {self._path or 'the file'}: {problem}")

    def entries(self) -> Iterator[tuple[str, "_Entry"]]:
        if not isinstance(self._value, dict):
            raise self.fail("must be an object")
        for name, value in self._value.items():
            yield name, _Entry(self._file, f"{self._path}.{name}" if self._path else name, value)

    def _member(self, name: str) -> object:
        return {member: entry._value for member, entry in self.entries()}.get(name)  # noqa: SLF001 -- its own class

    def integer(self, name: str) -> int:
        """Return a number of an object; an absent one is 0, as in Go."""
        value = self._member(name)
        if value is None:
            return 0
        if type(value) is not int:
            raise self.fail(f"{name} must be a whole number")
        return value

    def mark(self, *more: str) -> Mark:
        """Return level, round and digest of an object that has nothing else but `more`."""
        if unknown := {name for name, _ in self.entries()} - {"level", "round", "hash", *more}:
            raise self.fail(f"unknown member {min(unknown)!r}")
        mark = Mark(self.integer("level"), self.integer("round"), self._digest())
        if not in_range(mark):
            raise self.fail(f"{mark} is out of range")
        return mark

    def _digest(self) -> bytes | None:
        text = self._member("hash")
        if text is None:
            return None
        try:
            _, digest = decode_base58(str(text), Kind.BLOCK_PAYLOAD_HASH.value.family)
        except TezosError as error:
            raise self.fail(f"hash: {error}") from None
        return digest

    def right(self, kind: str) -> Right:
        if kind not in _RIGHTS:
            raise self.fail(f"unknown kind, known are {', '.join(_RIGHTS)}")
        return _RIGHTS[kind]

    def pkh(self, text: str) -> str:
        try:
            check_public_key_hash(text)
        except TezosError as error:
            raise self.fail(f"not a public key hash: {error}") from None
        return text


_Parsed = Iterator[tuple[MarkKey, Mark]]


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
        own = _ORDERS.get(state.integer("order"), Right.ATTESTATION)
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
        raise StoreUnavailable(f"Signatory's watermarks in {base_dir / FOLDER} cannot be written: {error}") from error


def _by_chain(marks: Marks) -> dict[str, dict[str, dict[str, object]]]:
    chains: dict[str, dict[str, dict[str, object]]] = {}
    for key, mark in sorted(marks.items(), key=lambda entry: (entry[0].pkh, entry[0].right)):
        kinds = chains.setdefault(key.chain_id, {}).setdefault(key.pkh, {})
        for kind in _KINDS[key.right]:
            kinds[kind] = _state(mark)
    return chains


def _state(mark: Mark) -> dict[str, object]:
    state: dict[str, object] = {"level": mark.level, "round": mark.round}
    if mark.digest is not None:
        state["hash"] = encode_base58(Kind.BLOCK_PAYLOAD_HASH, mark.digest)
    return state


_Seen = tuple[int, frozenset[tuple[str, int, int, int]]]
#: What the file says while a host has the keys, and after one closed its store whole without handing them back.
_OPEN = b'"enclave-host has these keys: stop it before Signatory starts"\n'
_CLOSED = b'"enclave-host had these keys and did not hand them back: start it, or enclave-host watermark export"\n'
#: What it says once a host kept its marks in memory.
_FORGOTTEN = b'"enclave-host had these keys with watermark.driver mem: nobody knows what was signed since"\n'


class SignatoryFolder:
    """Signatory's files of one `base_dir`: taken over when the host starts, watched, handed back when it stops."""

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._folder = base_dir / FOLDER
        self._file = self._folder / IN_USE_NAME
        self._seen: _Seen | None = None

    @property
    def in_use_file(self) -> Path:
        """The file that keeps Signatory out."""
        return self._file

    @property
    def left_behind(self) -> bool:
        """Whether a host that did not end in order left the file there."""
        return self._file.exists()

    def read(self) -> dict[MarkKey, Mark]:
        """Return what Signatory marked; see `read_signatory_marks`."""
        return read_signatory_marks(self._base_dir)

    @property
    def closed_whole(self) -> bool:
        """Whether the host that left the file there had closed its store by itself, log and all."""
        return self._says(_CLOSED)

    @property
    def forgotten(self) -> bool:
        """Whether a host kept its marks in memory since: all marks in this folder may be too low."""
        return self._says(_FORGOTTEN)

    def _says(self, text: bytes) -> bool:
        try:
            return self._file.read_bytes() == text
        except OSError:
            return False

    def begin(self) -> None:
        """Keep Signatory out, durably, and watch the folder from now on.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        self._write(_OPEN)

    def note_forgotten(self) -> None:
        """Note that marks are in memory from now on, durably; Signatory is kept out for good.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        self._write(_FORGOTTEN)

    def note_opened(self) -> None:
        """Take back the note that the store was closed whole, if there is one: its log counts again.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        if self.closed_whole:
            self._write(_OPEN)

    def note_closed(self) -> None:
        """Note that the store was closed whole, while Signatory is still kept out; what others changed stays noticed.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        changed = not self._unchanged()
        self._write(_CLOSED)
        if changed:
            self._seen = None

    def _write(self, text: bytes) -> None:
        try:
            create_folder(self._folder, 0o750)
            write_durably(self._file, text)
            self._seen = self._look()
        except OSError as error:
            raise StoreUnavailable(f"{self._file} cannot be written: {error}") from error

    def check(self) -> None:
        """Pass while nobody else changed the folder.

        Raises:
            StoreUnavailable: Somebody did, and may be signing with the same keys.
        """
        if not self._unchanged():
            raise StoreUnavailable(
                f"{self._folder} was changed by another program while this host had it: make sure that no other "
                "signer uses these keys, then restart the host"
            )

    def _unchanged(self) -> bool:
        try:
            return self._look() == self._seen
        except OSError:
            return False

    def _look(self) -> _Seen:
        # All of it: a file may be rewritten in place, and a file system's clock may stand still for some milliseconds.
        with os.scandir(self._folder) as entries:
            stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        files = frozenset((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
        return self._folder.stat().st_mtime_ns, files

    def hand_back(self, marks: Marks) -> None:
        """Write the marks for Signatory, then let it start again.

        Raises:
            StoreUnavailable: Not done, and Signatory still refuses to start.
        """
        write_signatory_marks(self._base_dir, marks)
        self.withdraw()

    def save(self, marks: Marks) -> None:
        """Write the marks, higher ones of Signatory's aside, and go on keeping it out.

        Raises:
            ConfigError: Its files cannot be read any more.
            StoreUnavailable: Not done.
        """
        highest = self.read()
        for key, mark in marks.items():
            highest[key] = merged(highest.get(key), mark)
        write_signatory_marks(self._base_dir, highest)

    def withdraw(self) -> None:
        """Let Signatory start again, on its files as they are.

        Raises:
            StoreUnavailable: Not done.
        """
        try:
            self._file.unlink(missing_ok=True)
            fsync_directory(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"{self._file} cannot be removed: {error}") from error
