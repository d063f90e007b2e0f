"""A progress bar for long work: on a terminal only, and below the lines of the log."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

import click

from host_backend.enclave.supervisor import DEFAULT_LIMITS

#: Of commands that look at an enclave: one that gives no answer for so long is a finding.
ENCLAVE_LIMITS = replace(DEFAULT_LIMITS, sealer_s=5.0)
#: To the beginning of the line, and nothing on it: ECMA-48, EL.
_CLEAR_LINE = "\r\x1b[2K"


class _AboveTheBar:
    """A stream of log lines that clears what the bar has drawn; the bar draws itself again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_CLEAR_LINE + text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def progress(label: str, count: int, *, hidden: bool = False) -> Iterator[Callable[[], None]]:
    """Show the progress of some work; yields a function to call after each step.

    Args:
        label: Names the work.
        count: How many steps; for a single one nothing is shown.
        hidden: Show nothing in any case.
    """
    if hidden or count < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    with click.progressbar(length=count, label=label, file=sys.stderr, show_pos=True) as bar:
        streams = [handler.setStream(_AboveTheBar(handler.stream)) for handler in handlers]
        try:
            yield lambda: bar.update(1)
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)


@contextmanager
def waiting(whom: str, limit_s: float) -> Iterator[None]:
    """Say on a terminal that an enclave is waited for, and clear that afterwards.

    Args:
        whom: Where it is.
        limit_s: For how many seconds it may say nothing.
    """
    if sys.stderr.isatty():
        click.echo(f"waiting for the enclave at {whom}, {limit_s:g} s at most …", nl=False, err=True)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            click.echo(_CLEAR_LINE, nl=False, err=True)
