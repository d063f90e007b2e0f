"""What every command on marks does in every state of a folder: the table is the test.

A lock that nobody holds, left by a process that is gone, is like none. In every state: a refusal has changed no byte,
names the way back, and never advises to take away what keeps a double signature away; and what Signatory has marked is
reported wherever marks are missing.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from host_backend.durable import locked
from host_backend.errors import ConfigError, HostError, StoreUnavailable
from host_backend.watermark.file.layout import BLOCK_BYTES, slot_offset
from host_backend.watermark.file.place import LOCK_NAME, store_path
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark
from host_backend.watermark.signatory.layouts import FOLDER, IN_USE_NAME, write_signatory_marks
from tests.doubles.signed_history import assert_no_bad_advice
from tests.doubles.watermarks import KEY, OTHER, A, advance, created, marks_of, open_and_close, opened

COMMANDS: dict[str, Callable[[Path], object]] = {
    "init": lambda base: marks_of(base).create(),
    "serve": open_and_close,
    "show": lambda base: marks_of(base).read(),
    "raise": lambda base: marks_of(base).raise_mark(KEY, Mark(5000, 0, None)),
    "reset": lambda base: marks_of(base).reset_mark(OTHER, Mark(3, 0, None)),
    "export": lambda base: marks_of(base).export(),
    "rebuild": lambda base: marks_of(base).rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], 6000), ".damaged"),
}

#: What a refusal says, by its word in the table.
TEXTS = {
    "in use": r"is in use by process",
    "exists": r"exists and has \d marks: a watermark store is never overwritten, and there is nothing to make$",
    "exists, raise": r"never overwritten, .*damaged marks: .*`enclave-host watermark raise`",
    "init": r"no watermark store at .*`enclave-host watermark init`.*watermark rebuild --above-level",
    "lost": r"no watermark store at .*did not end in order: put back the original file, never .*watermark rebuild --above-level",
    "damaged": r"both copies of slot 0 are damaged.*watermark rebuild --above-level",
    "empty": r"it is empty.*watermark rebuild --above-level",
    "raise": r"damaged marks: .*`enclave-host watermark raise`\).*no marks are handed back",
}

# State of the store, whether the in-use file is there, whether Signatory left marks; then what becomes of each command.
TABLE = """
store    in-use  theirs | init           serve     show      raise     reset     export    rebuild
whole    no      no     | exists         done      done      done      done      done      done
whole    no      yes    | exists         done      done      done      done      done      done
whole    yes     no     | exists         done      done      done      done      done      done
whole    yes     yes    | exists         done      done      done      done      done      done
empty    no      no     | empty          empty     empty     empty     empty     empty     done
empty    no      yes    | empty          empty     empty     empty     empty     empty     done
empty    yes     no     | empty          empty     empty     empty     empty     empty     done
empty    yes     yes    | empty          empty     empty     empty     empty     empty     done
absent   no      no     | done           init      init      init      init      init      done
absent   no      yes    | done           done      init      init      init      init      done
absent   yes     no     | lost           lost      lost      lost      lost      lost      done
absent   yes     yes    | lost           lost      lost      lost      lost      lost      done
damaged  no      no     | damaged        damaged   damaged   damaged   damaged   damaged   done
damaged  no      yes    | damaged        damaged   damaged   damaged   damaged   damaged   done
damaged  yes     no     | damaged        damaged   damaged   damaged   damaged   damaged   done
damaged  yes     yes    | damaged        damaged   damaged   damaged   damaged   damaged   done
refused  no      no     | exists,raise   raise     done      done      done      raise     done
refused  no      yes    | exists,raise   raise     done      done      done      raise     done
refused  yes     no     | exists,raise   raise     done      done      done      raise     done
refused  yes     yes    | exists,raise   raise     done      done      done      raise     done
"""


def rows() -> Iterator[tuple[str, bool, bool, str, str]]:
    head, *lines = TABLE.strip().splitlines()
    commands = head.split("|")[1].split()
    for line in lines:
        state, outcomes = line.split("|")
        store, in_use, theirs = state.split()
        for command, outcome in zip(commands, outcomes.split(), strict=True):
            yield store, in_use == "yes", theirs == "yes", command, outcome.replace(",", ", ")


def test_the_table_is_whole() -> None:
    states = product(("whole", "empty", "absent", "damaged", "refused"), (False, True), (False, True), COMMANDS)
    assert [row[:4] for row in rows()] == sorted(states, key=[row[:4] for row in rows()].index)


def make_state(base: Path, store: str, *, in_use: bool, theirs: bool, lock: str) -> None:
    """Put a folder into a state."""
    created(base)
    if store not in ("empty", "absent"):
        advance(base, KEY, A)
        advance(base, OTHER, A)
    for left in (base / FOLDER).glob("*.json"):
        left.unlink()
    (base / LOCK_NAME).unlink(missing_ok=True)
    match store:
        case "empty":
            store_path(base).write_bytes(b"")
        case "absent":
            store_path(base).unlink()
        case "damaged" | "refused":
            with store_path(base).open("r+b") as file:
                for copy in range(1 if store == "refused" else 2):
                    file.seek(slot_offset(0, copy))
                    file.write(b"x" * BLOCK_BYTES)
    if theirs:
        write_signatory_marks(base, {KEY: Mark(7, 0, None)})
    if in_use:
        (base / FOLDER).mkdir(exist_ok=True)
        (base / FOLDER / IN_USE_NAME).write_bytes(b'"enclave-host has these marks: stop it before Signatory starts"\n')
    if lock == "stale":
        (base / LOCK_NAME).write_text("4194304\n")


def tree(base: Path) -> dict[str, tuple[int, bytes]]:
    files = (file for file in sorted(base.rglob("*")) if file.is_file())
    return {str(file.relative_to(base)): (file.stat().st_mode, file.read_bytes()) for file in files}


@contextmanager
def holding(base: Path, lock: str) -> Iterator[None]:
    if lock == "held":
        with locked(base / LOCK_NAME):
            yield
    else:
        yield


def run(command: str, base: Path) -> HostError | None:
    try:
        COMMANDS[command](base)
    except HostError as error:
        return error
    return None


@pytest.mark.parametrize("lock", ["held", "stale", "none"])
@pytest.mark.parametrize(("store", "in_use", "theirs", "command", "outcome"), list(rows()))
def test_every_command_in_every_state(
    tmp_path: Path, lock: str, store: str, in_use: bool, theirs: bool, command: str, outcome: str
) -> None:
    make_state(tmp_path, store, in_use=in_use, theirs=theirs, lock=lock)
    if lock == "held" and command != "show":
        outcome = "in use"
    with holding(tmp_path, lock):
        before = tree(tmp_path)
        error = run(command, tmp_path)
        after = tree(tmp_path)
    if outcome == "done":
        assert error is None
        assert (before == after) is (command == "show")
        return
    assert error is not None
    assert_no_bad_advice(error)
    with pytest.raises(type(error), match=TEXTS[outcome]):
        raise error
    if outcome != "raise":
        assert isinstance(error, ConfigError)
        assert before == after
    else:
        # It has started, and stopped: the other rights were served.
        assert isinstance(error, StoreUnavailable)
        assert (tmp_path / FOLDER / IN_USE_NAME).exists()
    if outcome in ("init", "lost"):
        told = "have 1 marks, the highest at level 7" if theirs else "there are no marks in Signatory's files"
        assert told in str(error)


@pytest.mark.parametrize(("store", "in_use", "theirs"), sorted({row[:3] for row in rows()}))
def test_from_every_state_there_is_a_way_to_a_host_that_signs(
    tmp_path: Path, store: str, in_use: bool, theirs: bool
) -> None:
    make_state(tmp_path, store, in_use=in_use, theirs=theirs, lock="none")
    for command in ("serve", "init", "raise", "rebuild"):
        error = run("serve", tmp_path)
        if error is None:
            break
        wanted = {"init": "watermark init", "raise": "watermark raise", "rebuild": "watermark rebuild"}.get(command, "")
        if wanted and wanted in str(error):
            assert run(command, tmp_path) is None
    assert run("serve", tmp_path) is None
    assert not (tmp_path / FOLDER / IN_USE_NAME).exists()


def test_running_stores_say_so_too(tmp_path: Path) -> None:
    async def life() -> None:
        store = await opened(created(tmp_path))
        for command in set(COMMANDS) - {"show"}:
            error = await asyncio.to_thread(run, command, tmp_path)
            assert "in use by process" in str(error)
        assert run("show", tmp_path) is None
        await store.aclose()

    asyncio.run(life())
