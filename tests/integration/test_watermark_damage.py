"""The table of damage: whatever happened to the file, nothing is signed twice, and there is a way back.

Every case is made from what the disk of a host held that has signed for a while, and then ended: in order, killed when it
had been quiet for a second, or killed right after its last batch. There is no guard here, and no enclave.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_backend.watermark.file.layout import BLOCK_BYTES, CHUNK_SLOTS, COPIES, HEADERS, header_offset, slot_offset
from host_backend.watermark.file.place import STORE_NAME
from tests.doubles.signed_history import (
    KEYS,
    End,
    History,
    Outcome,
    ask_for_doubles,
    outcome_of,
    sign_for_a_while,
    used_offsets,
)

SHM = Path("/dev/shm")
STARTS, REFUSES_RIGHTS, NO_START = Outcome
#: A slot that signed in the last batch, and one that did not.
SLOTS = range(len(KEYS))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where there is one: no power is lost here, and thousands of syncs take minutes on a disk."""
    folder = (SHM if SHM.is_dir() else tmp_path_factory.getbasetemp()) / f"marks-{os.getpid()}-{random.getrandbits(32)}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def histories(room: Path) -> dict[End, History]:
    return {end: sign_for_a_while(room / end.name.lower(), end) for end in End}


@pytest.fixture(params=End)
def history(request: pytest.FixtureRequest, histories: dict[End, History]) -> History:
    end: End = request.param
    return histories[end]


@pytest.fixture
def case(history: History, room: Path) -> History:
    return history.copy(room / "case")


def write(history: History, offset: int, data: bytes) -> None:
    with history.store.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def read(history: History, offset: int, size: int = BLOCK_BYTES) -> bytes:
    with history.store.open("rb") as file:
        return os.pread(file.fileno(), size, offset)


def exchange(history: History, one: int, other: int, size: int = BLOCK_BYTES) -> None:
    first, second = read(history, one, size), read(history, other, size)
    write(history, one, second)
    write(history, other, first)


def test_nothing_happened(case: History) -> None:
    assert outcome_of(case) is STARTS


def test_the_file_is_cut_at_every_block_and_inside(history: History, room: Path) -> None:
    size = history.store.stat().st_size
    found: Counter[Outcome] = Counter()
    used = set(used_offsets())
    for block in range(0, size, BLOCK_BYTES):
        # Where nothing is in use the answer is the same for many blocks; every eighth is enough there.
        if block not in used and block // BLOCK_BYTES % 8:
            continue
        for length in (block, block + 100):
            case = history.copy(room / "case")
            os.truncate(case.store, length)
            found[outcome_of(case)] += 1
    assert set(found) == {NO_START}


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"x"])
def test_the_whole_file_is_overwritten(case: History, filling: bytes) -> None:
    write(case, 0, filling * case.store.stat().st_size)
    assert outcome_of(case) is NO_START


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(4080), b"nonsense" * 1000])
def test_another_file_is_there(case: History, content: bytes) -> None:
    case.store.write_bytes(content)
    assert outcome_of(case) is NO_START


def test_it_is_longer_than_it_was(case: History) -> None:
    with case.store.open("ab") as file:
        file.write(bytes(10 * BLOCK_BYTES + 17))
    assert outcome_of(case) is STARTS


def test_it_is_far_longer_than_it_can_be(case: History) -> None:
    os.truncate(case.store, 2**40)
    assert outcome_of(case) is NO_START


#: For each end of a host; `make endurance` has 700 of them, 2 100 in all.
FLIPS = int(os.environ.get("FLIPS", "150"))


def test_one_bit_is_flipped_anywhere(history: History, room: Path) -> None:
    """Most of them where something is, some where nothing is."""
    chance = random.Random(f"{history.folder.name} 20261126")
    size, used = history.store.stat().st_size, used_offsets()
    found: Counter[Outcome] = Counter()
    for number in range(FLIPS):
        case = history.copy(room / "case")
        if number % 10:
            offset = chance.choice(used) + chance.randrange(220 if number % 3 else BLOCK_BYTES)
        else:
            offset = chance.randrange(size)
        (byte,) = read(case, offset, 1)
        write(case, offset, bytes([byte ^ 1 << chance.randrange(8)]))
        # The way back is walked for some of them: it takes five starts.
        found[asyncio.run(ask_for_doubles(case)) if number % 8 else outcome_of(case)] += 1
    assert found[NO_START] == 0
    assert min(found[STARTS], found[REFUSES_RIGHTS]) > FLIPS // 14


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("copy", range(COPIES))
@pytest.mark.parametrize("filling", [b"\0", b"x"])
def test_one_copy_is_damaged(case: History, slot: int, copy: int, filling: bytes) -> None:
    write(case, slot_offset(slot, copy), filling * BLOCK_BYTES)
    assert outcome_of(case) is REFUSES_RIGHTS


@pytest.mark.parametrize("slots", [1, 2, 9])
def test_one_copy_of_several_slots_is_damaged(case: History, slots: int) -> None:
    for slot in range(slots):
        write(case, slot_offset(slot, slot % COPIES), b"x" * BLOCK_BYTES)
    assert outcome_of(case) is REFUSES_RIGHTS


@pytest.mark.parametrize("slot", SLOTS)
def test_both_copies_are_damaged(case: History, slot: int) -> None:
    for copy in range(COPIES):
        write(case, slot_offset(slot, copy), b"x" * BLOCK_BYTES)
    assert outcome_of(case) is NO_START


def test_slots_are_exchanged(case: History) -> None:
    for copy in range(COPIES):
        exchange(case, slot_offset(1, copy), slot_offset(2, copy))
    assert outcome_of(case) is NO_START


def test_one_copy_of_two_slots_is_exchanged(case: History) -> None:
    exchange(case, slot_offset(1, 0), slot_offset(2, 0))
    assert outcome_of(case) is REFUSES_RIGHTS


def test_the_copies_of_a_slot_are_exchanged(case: History) -> None:
    exchange(case, slot_offset(1, 0), slot_offset(1, 1))
    assert outcome_of(case) is NO_START


def test_all_first_copies_stand_in_place_of_the_second(case: History) -> None:
    exchange(case, slot_offset(0, 0), slot_offset(0, 1), CHUNK_SLOTS * BLOCK_BYTES)
    assert outcome_of(case) is NO_START


@pytest.mark.parametrize("copies", [(0,), (1,), (0, 1)])
def test_a_slot_of_another_store_is_there(case: History, room: Path, copies: tuple[int, ...]) -> None:
    shutil.rmtree(room / "another", ignore_errors=True)
    another = sign_for_a_while(room / "another", End.CLEAN)
    for copy in copies:
        write(case, slot_offset(4, copy), read(another, slot_offset(4, copy)))
    assert outcome_of(case) is (NO_START if len(copies) == COPIES else REFUSES_RIGHTS)


@pytest.mark.parametrize("copy", range(HEADERS))
@pytest.mark.parametrize("filling", [b"\0", b"x"])
def test_one_header_is_damaged(case: History, copy: int, filling: bytes) -> None:
    write(case, header_offset(copy), filling * BLOCK_BYTES)
    assert outcome_of(case) is STARTS


def test_both_headers_are_damaged(case: History) -> None:
    for copy in range(HEADERS):
        write(case, header_offset(copy), b"x" * BLOCK_BYTES)
    assert outcome_of(case) is NO_START


def test_the_headers_are_exchanged(case: History) -> None:
    exchange(case, header_offset(0), header_offset(1))
    assert outcome_of(case) is NO_START


@pytest.mark.parametrize("copies", [(0,), (1,), (0, 1)])
def test_a_header_of_another_store_is_there(case: History, room: Path, copies: tuple[int, ...]) -> None:
    shutil.rmtree(room / "another", ignore_errors=True)
    another = sign_for_a_while(room / "another", End.CLEAN)
    for copy in copies:
        write(case, header_offset(copy), read(another, header_offset(copy)))
    assert outcome_of(case) is NO_START


AGES = (1, 2, 5, 50)


def put_back_everywhere(history: History, room: Path, groups: list[list[int]]) -> Counter[Outcome]:
    """Put back every group of blocks by every age; what has to come of it is judged here, but for the counts."""
    found: Counter[Outcome] = Counter()
    last = {slot_offset(KEYS.index(key), copy) for key in history.last_batch for copy in range(COPIES)}
    for age in AGES:
        for group in groups:
            case = history.copy(room / "case")
            if not case.put_back(age, group):
                continue
            if history.folder.name == End.KILLED.name.lower() and last & set(group):
                # The last batch of an end out of order, within its second: the one exception, and for its rights alone.
                for key in history.last_batch:
                    del case.signed[key]
            found[outcome_of(case)] += 1
    return found


def test_one_copy_is_put_back(history: History, room: Path) -> None:
    groups = [[slot_offset(slot, copy)] for slot in SLOTS for copy in range(COPIES)]
    found = put_back_everywhere(history, room, groups)
    assert found[NO_START] > 5
    assert found[REFUSES_RIGHTS] > 5


def test_one_slot_is_put_back(history: History, room: Path) -> None:
    groups = [[slot_offset(slot, copy) for copy in range(COPIES)] for slot in SLOTS]
    found = put_back_everywhere(history, room, groups)
    assert found[NO_START] > 5
    assert not found[REFUSES_RIGHTS]


def test_one_header_is_put_back(history: History, room: Path) -> None:
    found = put_back_everywhere(history, room, [[header_offset(0)], [header_offset(1)]])
    assert set(found) == {STARTS}


@pytest.fixture(params=[End.CLEAN, End.QUIET])
def sealed(request: pytest.FixtureRequest, histories: dict[End, History]) -> History:
    """A history whose last header lies elsewhere than what falls back."""
    end: End = request.param
    return histories[end]


@pytest.mark.parametrize("pages", [4, 16])
def test_larger_pages_are_put_back(sealed: History, room: Path, pages: int) -> None:
    step = pages * BLOCK_BYTES
    used = set(used_offsets())
    starts = range(0, sealed.store.stat().st_size, step)
    groups = [list(range(start, start + step, BLOCK_BYTES)) for start in starts]
    found = put_back_everywhere(sealed, room, [group for group in groups if used & set(group)])
    assert found[NO_START] > 3
    assert found[REFUSES_RIGHTS] > 1


def test_one_half_of_a_chunk_is_put_back(sealed: History, room: Path) -> None:
    groups = [[slot_offset(slot, copy) for slot in SLOTS] for copy in range(COPIES)]
    assert not put_back_everywhere(sealed, room, groups)[STARTS]


def test_a_second_name_and_a_lost_folder(case: History, room: Path) -> None:
    """The file comes back in a new folder, as a hard link or a mount of the file alone would bring it."""
    shutil.rmtree(room / "new", ignore_errors=True)
    (room / "new").mkdir()
    os.link(case.store, room / "new" / STORE_NAME)
    shutil.rmtree(case.folder)
    assert outcome_of(History(room / "new", case.signed, case.last_batch, case.after)) is STARTS
