"""Log lines in Signatory's two forms, text and JSON, on standard error. Source: Signatory's logrus output.

- Fields are given as `logger.info("message", extra=fields(pkh=..., ms=...))`, or to all lines of a task by `adds`.
- Times are in UTC. In JSON numbers are numbers and maps are objects; text writes a map as Go does, `map[a:1 b:2]`.
- Whatever begins like a secret key is masked in every line.
- A program that serves has a thread write its log; the request path hands over what the line is made of.
- This file is the same in both programs, as is `log_writer`: neither imports the other for it. A test holds them together.
"""

import json
import logging
import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

from enclave_signer.tezos import masked, may_hold_secret_key
from host_backend.log_writer import LogWriter

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
#: `json.dumps` would make another encoder each time.
_in_json = json.JSONEncoder(sort_keys=True, default=str).encode
_BARE = re.compile(r"[A-Za-z0-9\-._/@^+]+")
#: What cannot change between the call and the writing of its line.
_FIXED = frozenset({str, int, float, bool, type(None)})

_added: ContextVar[Mapping[str, object]] = ContextVar("added")


def fields(**values: object) -> dict[str, object]:
    """Return the `extra` argument of a log call that adds these fields."""
    return {_FIELDS: values}


class Later(Mapping[str, object]):
    """Fields that are made when the line is, by the thread that writes the log where there is one.

    Args:
        make: Returns them; of what it looks at, nothing may change any more, or hold more than the line says.
        added: Others, which those that are made take the place of.
    """

    __slots__ = ("_added", "_made", "_make")

    def __init__(self, make: Callable[[], Mapping[str, object]], added: Mapping[str, object] | None = None) -> None:
        self._make = make
        self._added = added or {}
        self._made: Mapping[str, object] | None = None

    def made(self) -> Mapping[str, object]:
        """Return them all, at once."""
        if self._made is None:
            self._made = {**self._added, **self._make()}
        return self._made

    def with_added(self, added: Mapping[str, object]) -> "Later":
        """Return these and others."""
        return Later(self._make, {**added, **self._added})

    def __getitem__(self, name: str) -> object:
        return self.made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made())

    def __len__(self) -> int:
        return len(self.made())


def fields_later(make: Callable[[], Mapping[str, object]]) -> dict[str, object]:
    """Return the `extra` argument of a log call that adds fields which are made later; see `Later`."""
    return {_FIELDS: Later(make)}


def adds(**values: object) -> None:
    """Add fields to every line of this task, and of those that it starts, from now on."""
    _added.set({**_added.get({}), **values})


def _entries(record: logging.LogRecord, *, mask: bool) -> dict[str, object]:
    extra: Mapping[str, object] = getattr(record, _FIELDS, {})
    values = dict(sorted((extra.made() if type(extra) is Later else extra).items()))
    if text := record.exc_text or (logging.Formatter().formatException(record.exc_info) if record.exc_info else ""):
        values["error"] = text
    return {name: _clean(value) for name, value in values.items()} if mask else values


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return {masked(str(name)): _clean(entry) for name, entry in value.items()}
    return value if type(value) in _FIXED and type(value) is not str else masked(str(value))


@lru_cache(maxsize=4)
def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = self.line(record, mask=False)
        # Masked before they are escaped: in a line one cannot see where a text begins.
        return self.line(record, mask=True) if may_hold_secret_key(line) else line

    def line(self, record: logging.LogRecord, *, mask: bool) -> str:
        """Return the line, with secret keys in it masked or not."""
        message = record.getMessage()
        entries = _entries(record, mask=mask)
        return self.made_of(
            _time(int(record.created)), record.levelname.lower(), masked(message) if mask else message, entries
        )

    @abstractmethod
    def made_of(self, time: str, level: str, message: str, entries: Mapping[str, object]) -> str:
        """Return the line that these make."""


class TextFormatter(_Formatter):
    """`time="…" level=info msg="…" key=value`, keys sorted."""

    def made_of(self, time: str, level: str, message: str, entries: Mapping[str, object]) -> str:
        """Return the line that these make."""
        line = f'time="{time}" level={level} msg={_quoted(message, always=True)}'
        return line + "".join([f" {name}={_value(value)}" for name, value in entries.items()])


def _value(value: object) -> str:
    # Nothing in a number needs quotes. The types that are frequent come first: every signature has a line.
    kind = type(value)
    if kind is int or kind is float:
        return str(value)
    return _quoted(value if kind is str else _plain(value))  # type: ignore[arg-type]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{name}:{_plain(entry)}' for name, entry in sorted(value.items()))}]"
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str, *, always: bool = False) -> str:
    # JSON's escapes keep whatever a peer managed to put into a text on its one line.
    return _in_json(text) if always or not _BARE.fullmatch(text) else text


class JsonFormatter(_Formatter):
    """One JSON object per line, keys sorted."""

    def made_of(self, time: str, level: str, message: str, entries: Mapping[str, object]) -> str:
        """Return the line that these make."""
        return _in_json({**entries, "level": level, "msg": message, "time": time})


def _settle(record: logging.LogRecord) -> None:
    """Leave nothing in a record that may change, or hold more than the line says, before another thread writes it."""
    if record.exc_info:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    if type(record.msg) is not str or not all(type(value) in _FIXED for value in record.args or ()):
        record.msg, record.args = record.getMessage(), None
    extra = getattr(record, _FIELDS, None)
    if type(extra) is not Later and extra and not all(type(value) in _FIXED for value in extra.values()):
        setattr(record, _FIELDS, {name: _clean(value) for name, value in extra.items()})


class _ThreadHandler(logging.Handler):
    """Leaves the writing, and most of the making, of lines to a thread."""

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.writer = LogWriter(descriptor, formatter.format)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over; never waits."""
        try:
            _settle(record)
        except Exception:  # noqa: BLE001 -- as every handler of the library does: no log line ends a request
            self.handleError(record)
        else:
            self.writer.put(record)

    def flush(self) -> None:
        """Wait for the lines that were handed over, as long as somebody reads; called at the end of the program."""
        self.writer.flush()


def _with_added(record: logging.LogRecord) -> bool:
    if added := _added.get(None):
        extra = getattr(record, _FIELDS, {})
        setattr(record, _FIELDS, extra.with_added(added) if type(extra) is Later else {**added, **extra})
    return True


def configure(level: int, *, as_json: bool, stream: TextIO | None = None, in_thread: bool = False) -> None:
    """Send all records of at least `level` to standard error.

    Args:
        level: The minimum log level, as a number of `logging`.
        as_json: Whether each line is a JSON object.
        stream: Takes the place of standard error.
        in_thread: Whether a thread writes them: for programs that serve. Commands write theirs at once, in the order
            of whatever else they say.
    """
    _collect_no_more_than_is_written()
    formatter = JsonFormatter() if as_json else TextFormatter()
    target = stream or sys.stderr
    handler: logging.Handler
    if in_thread:
        handler = _ThreadHandler(target.fileno(), formatter)
    else:
        handler = logging.StreamHandler(target)
        handler.setFormatter(formatter)
    handler.addFilter(_with_added)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _collect_no_more_than_is_written() -> None:
    # Threads, processes and lines of code stand in no line; the library has these switches for speed.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 -- so says the HOWTO of the library


def dropped_lines() -> int:
    """Return how many log lines were dropped because the reader had stopped; 0 where no thread writes the log."""
    return sum(
        handler.writer.dropped for handler in logging.getLogger().handlers if isinstance(handler, _ThreadHandler)
    )


def flush() -> None:
    """Wait until what was logged is written, as long as somebody reads: before something else is said there."""
    for handler in logging.getLogger().handlers:
        handler.flush()
