"""The file of `FileWatermarkStore`: made, opened, and refused without a trace."""

import asyncio
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    COPIES,
    FORMAT,
    HEADERS,
    STORE_ID_BYTES,
    Header,
    Record,
    block,
    file_bytes,
    header_offset,
    pack_header,
    pack_identity,
    pack_record,
    parse_header,
    slot_offset,
)
from host_backend.watermark.file.place import LOCK_NAME, OLD_STORE_NAME, STORE_NAME, store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import MAX_LEVEL, Mark
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    OTHER,
    USES,
    A,
    advance,
    created,
    everything_in,
    export,
    marks_of,
    nothing,
    open_and_close,
    raise_one,
    read_marks,
    use,
)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_new_store_is_private_and_empty(base: Path) -> None:
    path = store_path(base)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == 2 * 1024 * 1024 + 8 * 1024
    assert read_marks(base) == {}
    assert names(base) == [LOCK_NAME, STORE_NAME]


def test_all_marks_are_in_the_one_file_and_it_stays_private(base: Path) -> None:
    def modes() -> dict[str, int]:
        return {file.name: stat.S_IMODE(file.stat().st_mode) for file in base.iterdir() if file.is_file()}

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, A)
        assert modes() == {LOCK_NAME: 0o600, STORE_NAME: 0o600}

    use(base, scenario)
    assert names(base) == [LOCK_NAME, STORE_NAME, FOLDER]


def test_existing_store_is_never_overwritten(base: Path) -> None:
    advance(base, KEY, A)
    before = everything_in(base)
    with pytest.raises(ConfigError, match="has 1 marks: a watermark store is never overwritten"):
        created(base)
    assert everything_in(base) == before


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (
            OLD_STORE_NAME,
            "the watermark store of version 0.1, cannot be taken over as it is: it is not a watermark store",
        ),
        (f"{OLD_STORE_NAME}.taken-over", "though it took over that of version 0.1"),
        (f"{FOLDER}/in-use-by-enclave-host.json", "though the last host here did not end in order"),
    ],
)
def test_no_store_is_made_beside_what_is_left_of_another(tmp_path: Path, left: str, text: str) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_bytes(b"")
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=text):
        created(tmp_path)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("limit_bytes", [1024, 1024 * 1024, file_bytes(1) - 1])
def test_store_that_cannot_be_written_is_unavailable(tmp_path: Path, limit_bytes: int) -> None:
    with files_up_to(limit_bytes), pytest.raises(StoreUnavailable, match="File too large"):
        created(tmp_path)
    assert names(tmp_path) == [LOCK_NAME]
    created(tmp_path)


def test_absence_is_not_permission(tmp_path: Path) -> None:
    for use_it in (*USES, export):
        with pytest.raises(ConfigError, match=r"no watermark store at .*`enclave-host watermark init`"):
            use_it(tmp_path)
    assert everything_in(tmp_path) == {}


def test_a_folder_is_made_with_the_store_and_by_nothing_else(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "there"
    for use_it in (open_and_close, raise_one, export):
        with pytest.raises(ConfigError, match="there is not a folder"):
            use_it(missing)
    assert everything_in(tmp_path) == {}
    created(missing)
    assert stat.S_IMODE(missing.stat().st_mode) == 0o700
    use(missing, nothing)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for use_it in (created, open_and_close, raise_one, export):
        with pytest.raises(ConfigError, match="file is not a folder"):
            use_it(tmp_path / "file")


def test_second_opener_is_told_who_has_it(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        before = everything_in(base)
        for use_it in (created, open_and_close, raise_one, export):
            with pytest.raises(ConfigError) as caught:
                await asyncio.to_thread(use_it, base)
            assert str(caught.value).startswith(f"{base} is in use by process {os.getpid()} ")
            assert "\n" not in str(caught.value)
        assert everything_in(base) == before
        assert await store.advance(KEY, A) is ADVANCE

    use(base, scenario)
    use(base, nothing)


GARBAGE = {
    "text": b"nonsense" * 1000,
    "empty": b"",
    "zeros": bytes(8192),
    "zeros of the right size": bytes(file_bytes(1)),
    "part of a block": b"EHWMARKS",
    "SQLite": b"SQLite format 3\0" + bytes(84),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_by_name_and_left_alone(tmp_path: Path, content: bytes) -> None:
    store_path(tmp_path).write_bytes(content)
    for use_it in (created, *USES, export):
        with pytest.raises(ConfigError, match=f"{store_path(tmp_path)}: .*`enclave-host watermark rebuild"):
            use_it(tmp_path)
    # Not even a lock file is made.
    assert everything_in(tmp_path) == {store_path(tmp_path): content}


def put(base: Path, offset: int, data: bytes) -> None:
    with store_path(base).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def header(base: Path, copy: int = 0) -> Header:
    with store_path(base).open("rb") as file:
        found = parse_header(os.pread(file.fileno(), BLOCK_BYTES, header_offset(copy)), copy)
    assert found is not None
    return found


def of_a_later_format(base: Path) -> None:
    for copy in range(HEADERS):
        put(base, header_offset(copy) + 8, (FORMAT + 1).to_bytes(4))


def headers_of_two_stores(base: Path) -> None:
    put(base, header_offset(0), block(pack_header(replace(header(base), store_id=bytes(STORE_ID_BYTES)))))


def both_headers_spoilt(base: Path) -> None:
    for copy in range(HEADERS):
        put(base, header_offset(copy), bytes(BLOCK_BYTES))


def headers_exchanged(base: Path) -> None:
    data = store_path(base).read_bytes()
    for copy in range(HEADERS):
        there = header_offset(1 - copy)
        put(base, header_offset(copy), data[there : there + BLOCK_BYTES])


def one_byte_short(base: Path) -> None:
    os.truncate(store_path(base), file_bytes(1) - 1)


def a_slot_lost(base: Path) -> None:
    for copy in range(COPIES):
        put(base, slot_offset(1, copy), bytes(BLOCK_BYTES))


def an_impossible_mark(base: Path) -> None:
    record = Record(0, KEY, Mark(MAX_LEVEL + 1, 0, None), refused=False, sequence=0, batch=0, before=0)
    for copy in range(COPIES):
        packed = pack_record(
            pack_identity(header(base).store_id, record.slot, record.key), record._replace(sequence=copy)
        )
        put(base, slot_offset(0, copy), block(packed))


def a_name_that_is_no_text(base: Path) -> None:
    record = Record(0, KEY, A, refused=False, sequence=0, batch=0, before=0)
    for copy in range(COPIES):
        identity = pack_identity(header(base).store_id, record.slot, record.key).replace(b"tz1", b"\x8bz1")
        put(base, slot_offset(0, copy), block(pack_record(identity, record._replace(sequence=copy))))


def one_right_in_two_slots(base: Path) -> None:
    record = Record(1, KEY, A, refused=False, sequence=0, batch=0, before=0)
    for copy in range(COPIES):
        packed = pack_record(
            pack_identity(header(base).store_id, record.slot, record.key), record._replace(sequence=copy)
        )
        put(base, slot_offset(1, copy), block(packed))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (of_a_later_format, "it has format 2, of a later version of this program"),
        (headers_of_two_stores, "its two headers are of two different stores"),
        (both_headers_spoilt, "neither of its two headers is whole"),
        (headers_exchanged, "neither of its two headers is whole"),
        (one_byte_short, f"it has {file_bytes(1) - 1} bytes where 2 slots need {file_bytes(1)}: its end is missing"),
        (a_slot_lost, "both copies of slot 1 are damaged, so it is not known which mark is lost"),
        (an_impossible_mark, "both copies of slot 0 are damaged"),
        (a_name_that_is_no_text, "both copies of slot 0 are damaged"),
        (one_right_in_two_slots, f"two slots are of {KEY}"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_file_that_is_not_whole_is_refused_and_left_alone(
    base: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    advance(base, KEY, A)
    advance(base, OTHER, A)
    spoil(base)
    before = everything_in(base)
    for use_it in (*USES, export):
        with pytest.raises(
            ConfigError, match=f"watermark store {store_path(base)}: {reason}.*: nothing is signed on it"
        ):
            use_it(base)
    assert everything_in(base) == before


def test_a_file_that_is_far_too_long_is_not_read(base: Path) -> None:
    os.truncate(store_path(base), size_bytes := 1024**4)
    for use_it in (*USES, export):
        with pytest.raises(ConfigError, match=f"it has {size_bytes} bytes, far more than 0 slots can need"):
            use_it(base)


def test_reading_and_looking_leave_no_trace(base: Path) -> None:
    advance(base, KEY, A)
    (base / LOCK_NAME).unlink()
    before = everything_in(base)
    assert read_marks(base) == {KEY: A}
    description = marks_of(base).describe()
    assert description.stored is not None
    assert (description.stored.marks, description.host, description.crashed) == ({KEY: A}, None, False)
    assert everything_in(base) == before


def test_a_folder_that_was_kept_in_memory_gets_no_store(tmp_path: Path) -> None:
    SignatoryFolder(tmp_path).note_forgotten()
    before = everything_in(tmp_path)
    for use_it in (created, open_and_close, raise_one, export):
        with pytest.raises(ConfigError, match=r"`watermark\.driver: mem`.*`enclave-host watermark rebuild"):
            use_it(tmp_path)
    assert everything_in(tmp_path) == before


def test_path_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%41é\n\\012"
    folder.mkdir()
    created(folder)
    advance(folder, KEY, A)
    marks_of(folder).raise_mark(KEY, Mark(20, 0, None))
    assert read_marks(folder) == {KEY: Mark(20, 0, None)}
