"""A log that no one reads stops no one; lost lines are counted, and nothing is lost while it is read."""

import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from host_backend import log
from host_backend.log_writer import MAX_WAITING_LINES

logger = logging.getLogger("tests.log_writer")
#: Bytes of a line's text: a pipe of 64 KiB is full after some hundred.
LINE = "x" * 200


@dataclass
class Pipe:
    read: int
    write: int
    closed: set[int] = field(default_factory=set)

    def close(self, end: int) -> None:
        """Close an end once."""
        if end not in self.closed:
            self.closed.add(end)
            os.close(end)

    def all(self) -> str:
        """Return all bytes written until the other end is closed."""
        data = b""
        while part := os.read(self.read, 1 << 16):
            data += part
        return data.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ends = Pipe(*os.pipe())
    stream = open(ends.write, "w", closefd=False)  # noqa: SIM115 -- only its number is used
    log.configure(logging.INFO, as_json=False, stream=stream, in_thread=True)
    yield ends
    root.handlers[:] = handlers
    root.setLevel(level)
    for end in (ends.read, ends.write):
        ends.close(end)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r" n=(\d+)", text)]


def test_all_lines_come_in_order_to_whoever_reads(pipe: Pipe) -> None:
    for number in range(200):
        logger.info("%s", "short", extra=log.fields(n=number))
    log.flush()
    pipe.close(pipe.write)
    assert numbers(pipe.all()) == list(range(200))
    assert log.dropped_lines() == 0


def test_nobody_waits_for_a_reader_and_what_is_dropped_is_counted(pipe: Pipe) -> None:
    total = 2 * MAX_WAITING_LINES
    for number in range(total):
        logger.info("%s", LINE, extra=log.fields(n=number))
    dropped = log.dropped_lines()
    assert 0 < dropped < total
    # It returns although no one reads.
    log.flush()
    assert log.dropped_lines() == dropped
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.all()))
    reader.start()
    log.flush()
    pipe.close(pipe.write)
    reader.join()
    (text,) = found
    found_numbers = numbers(text)
    assert len(found_numbers) == total - dropped
    assert found_numbers == sorted(found_numbers)
    assert re.findall(r'level=warning msg="(\d+) log lines were dropped"\n', text) == [str(dropped)]


def test_a_reader_that_has_gone_is_survived_and_its_lines_are_counted(pipe: Pipe) -> None:
    pipe.close(pipe.read)
    for number in range(10):
        logger.info("%s", LINE, extra=log.fields(n=number))
    log.flush()
    assert log.dropped_lines() == 10


def test_a_stream_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.write, False)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.all()))
    for number in range(1000):
        logger.info("%s", LINE, extra=log.fields(n=number))
    reader.start()
    log.flush()
    pipe.close(pipe.write)
    reader.join()
    assert numbers(found[0]) == list(range(1000))


def test_a_line_says_what_was_so_when_it_was_logged(pipe: Pipe) -> None:
    values = ["before"]
    logger.info("%s", values, extra=log.fields(values=values))
    values[0] = "after"
    try:
        int("x")
    except ValueError:
        logger.exception("%s", "a bug")
    log.flush()
    pipe.close(pipe.write)
    first, second = pipe.all().splitlines()
    assert "before" in first
    assert "after" not in first
    assert "Traceback" in second


class Unnamed:
    def __str__(self) -> str:
        raise TypeError("a secret")


def test_a_line_that_cannot_be_made_is_named_and_the_next_ones_are_written(pipe: Pipe) -> None:
    logger.info("%s", "short", extra=log.fields_later(lambda: {"n": int("a secret")}))
    logger.info("%s", "short", extra=log.fields_later(lambda: {"n": Unnamed()}))
    logger.info("%s", "short", extra=log.fields(n=1))
    log.flush()
    pipe.close(pipe.write)
    first, second, last = pipe.all().splitlines()
    assert 'level=error msg="a log line of tests.log_writer cannot be made: ValueError"' in first
    assert 'level=error msg="a log line of tests.log_writer cannot be made: TypeError"' in second
    assert numbers(last) == [1]
