"""Log lines in Signatory's two forms, text and JSON, on standard error.

Fields are given as `logger.info("message", extra=fields(pkh=..., ms=...))`. Source: Signatory's logrus output.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TextIO

#: Names on the command line; the rest of logrus's names are taken for the nearest level that exists here.
LEVELS: Mapping[str, int] = {
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}

_FIELDS = "fields"
_BARE = re.compile(r"[A-Za-z0-9\-._/@^+]+")


def fields(**values: object) -> dict[str, object]:
    """Return the `extra` argument of a log call that adds these fields."""
    return {_FIELDS: values}


def _entries(record: logging.LogRecord) -> dict[str, object]:
    extra = getattr(record, _FIELDS, {})
    error = {"error": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
    return {**dict(sorted(extra.items())), **error}


@lru_cache(maxsize=4)
def _time(second: int) -> str:
    return datetime.fromtimestamp(second).astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")


def _head(record: logging.LogRecord) -> tuple[str, str]:
    return _time(int(record.created)), record.levelname.lower()


class TextFormatter(logging.Formatter):
    """`time="…" level=info msg="…" key=value`, keys sorted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        time, level = _head(record)
        line = f'time="{time}" level={level} msg={_quoted(record.getMessage(), always=True)}'
        return line + "".join(f" {name}={_quoted(_plain(value))}" for name, value in _entries(record).items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str, *, always: bool = False) -> str:
    # JSON's escapes keep whatever a peer managed to put into a text on its one line.
    return json.dumps(text) if always or not _BARE.fullmatch(text) else text


class JsonFormatter(logging.Formatter):
    """One JSON object per line, keys sorted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        time, level = _head(record)
        values = {**_entries(record), "level": level, "msg": record.getMessage(), "time": time}
        return json.dumps(values, sort_keys=True, default=str)


def configure(level: int, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send all records of at least `level` to standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
