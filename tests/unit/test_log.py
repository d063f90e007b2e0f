"""Log lines in Signatory's two forms."""

import contextvars
import io
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_backend.log import LEVELS, TextFormatter, adds, configure, fields, fields_later

logger = logging.getLogger("tests.log")


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def text_line(message: str, *, level: int = logging.INFO, **values: object) -> str:
    """Return the logged lines, without the time."""
    stream = io.StringIO()
    configure(logging.DEBUG, as_json=False, stream=stream)
    logger.log(level, message, extra=fields(**values))
    head, line = stream.getvalue().split(" ", 1)
    assert re.fullmatch(r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"', head)
    return line


def json_line(message: str, *, level: int = logging.INFO, **values: object) -> dict[str, object]:
    stream = io.StringIO()
    configure(logging.DEBUG, as_json=True, stream=stream)
    logger.log(level, message, extra=fields(**values))
    (line,) = stream.getvalue().splitlines()
    entries = json.loads(line)
    assert isinstance(entries, dict)
    assert list(entries) == sorted(entries)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entries.pop("time"))
    return entries


def test_text() -> None:
    assert text_line("Signed") == 'level=info msg="Signed"\n'
    line = text_line("a b", pkh="tz1x", lvl=7, active=True, empty="", spaced="a b", quoted='"')
    assert line == 'level=info msg="a b" active=true empty="" lvl=7 pkh=tz1x quoted="\\"" spaced="a b"\n'
    assert text_line("x", level=logging.WARNING) == 'level=warning msg="x"\n'
    assert text_line("x", level=logging.ERROR) == 'level=error msg="x"\n'
    assert text_line("x", level=logging.DEBUG) == 'level=debug msg="x"\n'


@pytest.mark.parametrize("hostile", ["a\nlevel=info", "a\r\nb", "\0", "\x1b[31m", "\u2028", "\ud800", "=", "a=b"])
def test_whatever_stands_in_a_text_stays_on_its_line_and_in_its_quotes(hostile: str) -> None:
    line = text_line(f"x{hostile}", note=hostile)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert line == f"level=info msg={json.dumps(f'x{hostile}')} note={json.dumps(hostile)}\n"
    assert json_line(hostile, note=hostile) == {"level": "info", "msg": hostile, "note": hostile}


def test_json() -> None:
    assert json_line("Signed", pkh="tz1x", lvl=7, active=True, path=logging) == {
        "active": True,
        "level": "info",
        "lvl": 7,
        "msg": "Signed",
        "path": str(logging),
        "pkh": "tz1x",
    }


def test_a_field_cannot_take_the_place_of_what_every_line_has() -> None:
    assert json_line("x", level=logging.ERROR, msg="y", time="z")["msg"] == "x"


def test_an_exception_is_a_field_of_its_line() -> None:
    for as_json in (False, True):
        stream = io.StringIO()
        configure(logging.INFO, as_json=as_json, stream=stream)
        try:
            int("what happened")
        except ValueError:
            logger.exception("a bug")
        (line,) = stream.getvalue().splitlines()
        assert "ValueError: invalid literal" in line
        assert "Traceback" in line


def test_levels() -> None:
    assert list(LEVELS) == ["panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"]
    stream = io.StringIO()
    configure(LEVELS["warn"], as_json=False, stream=stream)
    logger.info("not this")
    logger.warning("but this")
    assert stream.getvalue().count("\n") == 1


SECRET = "edsk3QoqBuvdamxouPhin7swCvkQNgq4jP5KZPbwWNnwdZpSpJiEbq"


def test_a_secret_key_is_masked_wherever_it_stands() -> None:
    for where in ("{}", "/keys/{}?x", "a\n{}", "{} and {}"):
        text = where.format(SECRET, SECRET)
        shown = where.format("edsk***", "edsk***")
        line = text_line(text, path=text, ops={text: 1}, file=Path(f"/{SECRET}"))
        assert json.dumps(shown) in line
        assert SECRET[4:] not in line
        assert json_line(text, path=text, ops={text: 1}) == {
            "level": "info",
            "msg": shown,
            "ops": {shown: 1},
            "path": shown,
        }


def test_a_secret_key_in_an_exception_is_masked() -> None:
    empty: dict[str, int] = {}
    for as_json in (False, True):
        stream = io.StringIO()
        configure(logging.INFO, as_json=as_json, stream=stream)
        try:
            empty[SECRET]
        except KeyError:
            logger.exception("a bug")
        assert "edsk***" in stream.getvalue()
        assert SECRET[4:] not in stream.getvalue()


def test_numbers_and_maps() -> None:
    assert text_line("x", sign_ms=9.94, ops={"b": 2, "a": 1}) == 'level=info msg="x" ops="map[a:1 b:2]" sign_ms=9.94\n'
    assert json_line("x", sign_ms=9.94, ops={"b": 2, "a": 1})["ops"] == {"a": 1, "b": 2}
    assert json_line("x", sign_ms=9.94)["sign_ms"] == 9.94


def test_fields_that_are_added_to_all_lines_of_a_task() -> None:
    def task() -> None:
        adds(source="127.0.0.1")
        assert text_line("x", lvl=1) == 'level=info msg="x" lvl=1 source="127.0.0.1"\n'.replace(
            '"127.0.0.1"', "127.0.0.1"
        )

    contextvars.copy_context().run(task)
    assert text_line("x", lvl=1) == 'level=info msg="x" lvl=1\n'


def test_times_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        record = logging.makeLogRecord({"created": 1_000_000_000.5, "msg": "x"})
        assert TextFormatter().format(record).startswith('time="2001-09-09T01:46:40Z"')
    finally:
        monkeypatch.undo()
        time.tzset()


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(logging.INFO, as_json=False, stream=first)
    configure(logging.INFO, as_json=False, stream=second)
    logger.info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_fields_that_are_made_later_are_masked_too_and_added_to() -> None:
    def task() -> None:
        adds(source="somewhere")
        stream = io.StringIO()
        configure(logging.INFO, as_json=False, stream=stream)
        logger.info("x", extra=fields_later(lambda: {"lvl": 1, "path": SECRET}))
        assert stream.getvalue().endswith(' level=info msg="x" lvl=1 path="edsk***" source=somewhere\n')

    contextvars.copy_context().run(task)


def test_fields_that_are_made_later_are_not_made_before_the_line_is() -> None:
    made: list[int] = []
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            kept.append(record)
            assert not made
            return ""

    def make() -> dict[str, object]:
        made.append(1)
        return {"lvl": 1}

    def task() -> None:
        adds(source="somewhere")
        configure(logging.INFO, as_json=False, stream=io.StringIO())
        logging.getLogger().handlers[0].setFormatter(Keeping())
        logger.info("x", extra=fields_later(make))

    contextvars.copy_context().run(task)
    assert TextFormatter().format(kept[0]).endswith(" lvl=1 source=somewhere")
    assert made == [1]
