"""Marks in memory on a real folder: they begin with Signatory's, and no one starts there again as if nothing was signed."""

import asyncio
import os
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file.place import LOCK_NAME, OLD_STORE_NAME, STORE_NAME, store_path
from host_backend.watermark.memory import MemoryMarks, MemoryWatermarkStore, kept_in_memory
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks, write_signatory_marks
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    A,
    B,
    advance,
    created,
    everything_in,
    export,
    gather,
    marks_of,
    open_and_close,
    raise_one,
    read_marks,
    use,
)
from tests.doubles.watermarks import nothing as nothing_asked


def keep_in_memory(folder: Path) -> None:
    """Start and stop a host that keeps its marks in memory."""
    with kept_in_memory(folder):
        pass


def test_it_begins_with_signatorys_marks_and_forgets_all_others(tmp_path: Path) -> None:
    write_signatory_marks(tmp_path, {KEY: A})

    async def scenario(store: MemoryWatermarkStore) -> None:
        assert await gather(store.advance(KEY, B), store.advance(KEY, LATER)) == [WatermarkRejected, ADVANCE]
        await store.aclose()

    for _ in range(2):
        with kept_in_memory(tmp_path) as marks:
            asyncio.run(scenario(MemoryWatermarkStore(marks=marks)))
    assert read_signatory_marks(tmp_path) == {KEY: A}


def test_it_takes_the_folder_and_leaves_a_note_for_good(tmp_path: Path) -> None:
    with kept_in_memory(tmp_path):
        with pytest.raises(ConfigError, match=f"{tmp_path} is in use by process {os.getpid()} "):
            keep_in_memory(tmp_path)
        with pytest.raises(ConfigError, match=f"{tmp_path} is in use by process {os.getpid()} "):
            created(tmp_path)
        assert MemoryMarks(tmp_path).describe().host == os.getpid()
        assert SignatoryFolder(tmp_path).left_behind
    # Signatory does not start here any more, as no one knows what was signed.
    assert SignatoryFolder(tmp_path).forgotten
    keep_in_memory(tmp_path)
    assert SignatoryFolder(tmp_path).forgotten
    assert MemoryMarks(tmp_path).describe().host is None


def test_after_it_no_file_store_starts_before_its_marks_were_made_anew(tmp_path: Path) -> None:
    write_signatory_marks(tmp_path, {KEY: A})
    keep_in_memory(tmp_path)
    before = everything_in(tmp_path)
    for use_it in (created, open_and_close, raise_one, export, lambda folder: marks_of(folder).describe()):
        with pytest.raises(
            ConfigError,
            match=r"`watermark\.driver: mem`.*`enclave-host watermark rebuild.*have 1 marks, the highest at level 10",
        ):
            use_it(tmp_path)
    assert everything_in(tmp_path) == before
    assert marks_of(tmp_path).rebuild(Rebuilt([], [], 20), ".damaged") == 3
    use(tmp_path, nothing_asked)
    assert read_marks(tmp_path)[KEY].level == 20
    assert not SignatoryFolder(tmp_path).left_behind


def test_nor_does_one_that_is_put_back(base: Path) -> None:
    advance(base, KEY, A)
    marks_of(base).retire()
    keep_in_memory(base)
    (base / f"{STORE_NAME}.migrated").rename(store_path(base))
    for use_it in (open_and_close, raise_one, export):
        with pytest.raises(ConfigError, match=r"`watermark\.driver: mem`"):
            use_it(base)
    # The note outlives a failed try to remake the marks.
    with files_up_to(100_000), pytest.raises(StoreUnavailable, match="File too large"):
        marks_of(base).rebuild(Rebuilt([], [], 20), ".damaged")
    with pytest.raises(ConfigError, match=r"`watermark\.driver: mem`"):
        open_and_close(base)
    marks_of(base).rebuild(Rebuilt([], [], 20), ".damaged")
    open_and_close(base)


def refused_without_a_trace(folder: Path, text: str) -> None:
    before = everything_in(folder)
    with pytest.raises(ConfigError, match=text):
        keep_in_memory(folder)
    assert everything_in(folder) == before


def test_a_folder_that_has_a_store_is_not_for_memory(base: Path) -> None:
    text = f"{store_path(base)} has marks, .* `enclave-host watermark migrate`"
    refused_without_a_trace(base, text)
    with pytest.raises(ConfigError, match=f"kept in memory, though {store_path(base)} has marks"):
        MemoryMarks(base).describe()
    advance(base, KEY, A)
    refused_without_a_trace(base, text)
    marks_of(base).retire()
    with kept_in_memory(base) as marks:
        assert marks == {KEY: A}


def test_nor_is_one_with_a_store_of_version_0_1(tmp_path: Path) -> None:
    (tmp_path / OLD_STORE_NAME).write_bytes(bytes(100))
    refused_without_a_trace(tmp_path, f"{tmp_path / OLD_STORE_NAME} has marks")
    with pytest.raises(ConfigError, match=f"kept in memory, though {tmp_path / OLD_STORE_NAME} has marks"):
        MemoryMarks(tmp_path).describe()


def test_nor_is_one_that_has_lost_its_store(base: Path) -> None:
    SignatoryFolder(base).begin()
    store_path(base).unlink()
    refused_without_a_trace(base, "did not end in order, and its watermark store is gone")


def test_nor_is_one_whose_marks_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f"{KEY.chain_id}.json").write_text("{")
    refused_without_a_trace(tmp_path, "not a watermark file of Signatory's")


def test_nor_is_what_is_no_folder(tmp_path: Path) -> None:
    refused_without_a_trace(tmp_path / "missing", "missing is not a folder")
    (tmp_path / "file").write_bytes(b"")
    refused_without_a_trace(tmp_path / "file", "file is not a folder")


def test_a_note_that_cannot_be_written_is_no_start(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b"")
    write_signatory_marks(tmp_path, {KEY: A, OTHER: A})
    with files_up_to(10), pytest.raises(StoreUnavailable, match="cannot be written"):
        keep_in_memory(tmp_path)
    assert not SignatoryFolder(tmp_path).left_behind


def test_what_waits_is_told(tmp_path: Path) -> None:
    assert MemoryMarks(tmp_path).describe().waiting == 0
    write_signatory_marks(tmp_path, {KEY: A, OTHER: Mark(1, 0, None)})
    before = everything_in(tmp_path)
    description = MemoryMarks(tmp_path).describe()
    assert (description.stored, description.waiting, description.findings) == (None, 2, ())
    assert everything_in(tmp_path) == before
    (tmp_path / FOLDER / f"{KEY.chain_id}.json").write_text("{")
    with pytest.raises(HostError):
        MemoryMarks(tmp_path).describe()
