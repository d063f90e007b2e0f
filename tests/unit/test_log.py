"""Log lines in Signatory's two forms."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from host_backend.log import LEVELS, configure, fields

logger = logging.getLogger("tests.log")


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def text_line(message: str, *, level: int = logging.INFO, **values: object) -> str:
    """Return what is logged, without the time."""
    stream = io.StringIO()
    configure(logging.DEBUG, as_json=False, stream=stream)
    logger.log(level, message, extra=fields(**values))
    head, line = stream.getvalue().split(" ", 1)
    assert re.fullmatch(r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"', head)
    return line


def json_line(message: str, *, level: int = logging.INFO, **values: object) -> dict[str, object]:
    stream = io.StringIO()
    configure(logging.DEBUG, as_json=True, stream=stream)
    logger.log(level, message, extra=fields(**values))
    (line,) = stream.getvalue().splitlines()
    entries = json.loads(line)
    assert isinstance(entries, dict)
    assert list(entries) == sorted(entries)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", entries.pop("time"))
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


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(logging.INFO, as_json=False, stream=first)
    configure(logging.INFO, as_json=False, stream=second)
    logger.info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
