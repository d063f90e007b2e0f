"""Signatory's folder of marks, as one host has it: Signatory kept out, the folder watched, the marks handed back.

- While a host has the marks the folder holds a file at which Signatory refuses to start. It is removed only after the
  marks were written there durably, so that Signatory goes on from them.
- No other program may write there meanwhile: one that does is perhaps signing with the same keys.

Source: that a foreign `*.json` in `watermark_v2` stops Signatory's start was seen on the program.
"""

import os
from pathlib import Path

from host_backend.durable import create_folder, fsync_directory, open_regular, write_durably
from host_backend.errors import ConfigError, StoreUnavailable, reason_of
from host_backend.watermark.rule import Mark, MarkKey, merged
from host_backend.watermark.signatory.layouts import (
    FOLDER,
    IN_USE_NAME,
    Marks,
    read_signatory_marks,
    write_signatory_marks,
)

_Seen = tuple[int, frozenset[tuple[str, int, int, int]]]
#: What the file says while a host has the marks; version 0.1 has other words for that, and these for a store that it had
#: closed without handing the marks back.
_OPEN = b'"enclave-host has these marks: stop it before Signatory starts"\n'
_CLOSED_0_1 = b'"enclave-host had these keys and did not hand them back: start it, or enclave-host watermark export"\n'
#: What it says once a host kept its marks in memory.
_FORGOTTEN = b'"enclave-host had these keys with watermark.driver mem: nobody knows what was signed since"\n'
#: What it says while the marks are in Firestore.
_ELSEWHERE = b'"enclave-host keeps the marks of these keys in Firestore (watermark.driver gcp)"\n'


class SignatoryFolder:
    """Signatory's files of one `base_dir`: taken over when the host starts, watched, handed back when it stops."""

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._folder = base_dir / FOLDER
        self._file = self._folder / IN_USE_NAME
        self._seen: _Seen | None = None

    @property
    def path(self) -> Path:
        """Where Signatory's present files are."""
        return self._folder

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
    def left_open(self) -> bool:
        """Whether a host of this version left the file there."""
        return self._says(_OPEN)

    @property
    def left_closed_by_0_1(self) -> bool:
        """Whether a host of version 0.1 left the file there, and had closed its store by itself, log and all."""
        return self._says(_CLOSED_0_1)

    @property
    def forgotten(self) -> bool:
        """Whether a host kept its marks in memory since: all marks in this folder may be too low."""
        return self._says(_FORGOTTEN)

    @property
    def elsewhere(self) -> bool:
        """Whether the marks are in Firestore since: all marks in this folder may be too low."""
        return self._says(_ELSEWHERE)

    def require_here(self) -> None:
        """Pass unless the marks are in Firestore.

        Raises:
            ConfigError: They are; the marks here may be too low.
        """
        if self.elsewhere:
            raise ConfigError(
                "the last host here kept its marks in Firestore: write `driver: gcp`, or bring them back with "
                "`enclave-host watermark migrate`"
            )

    def _says(self, text: bytes) -> bool:
        try:
            with open_regular(self._file) as file:
                return file.read(len(text) + 1) == text
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreUnavailable(
                f"{self._file} cannot be read: {reason_of(error)}: it says whether the marks here may be too low: let the "
                "user of this host read it, or rebuild the marks with `enclave-host watermark rebuild --above-level N`"
            ) from error

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

    def note_elsewhere(self) -> None:
        """Note that marks are in Firestore from now on, durably; Signatory is kept out until they are handed back.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        self._write(_ELSEWHERE)

    def _write(self, text: bytes) -> None:
        try:
            create_folder(self._folder, 0o750)
            write_durably(self._file, text)
            self._seen = self._look()
        except OSError as error:
            raise StoreUnavailable(f"{self._file} cannot be written: {reason_of(error)}") from error

    def check(self) -> None:
        """Pass while no other program changed the folder.

        Raises:
            StoreUnavailable: Somebody did, and may be signing with the same keys.
        """
        try:
            unchanged = self._look() == self._seen
        except (FileNotFoundError, NotADirectoryError):
            unchanged = False
        except OSError as error:
            raise StoreUnavailable(f"{self._folder} cannot be looked at: {reason_of(error)}") from error
        if not unchanged:
            raise StoreUnavailable(
                f"{self._folder} was changed by another program while this host had it: make sure that no other "
                "signer uses these keys, then restart the host"
            )

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
            raise StoreUnavailable(f"{self._file} cannot be removed: {reason_of(error)}") from error
