"""Warnings that strangers can cause as often as they like."""

import asyncio
import logging
from typing import Any

import pytest

from host_backend import sparse_log
from host_backend.sparse_log import SparseLog

FLOOD = 50


class Written(logging.Handler):
    """The fields of each line; `whole` is set when all of the flood is counted in them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.whole = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(vars(record)["fields"])
        if sum(line["times"] for line in self.lines) == FLOOD:
            self.whole.set()


def test_a_flood_is_reported_seldom_and_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_log, "SPARSE_LOG_S", 0.1)

    async def scenario() -> list[dict[str, Any]]:
        written, warnings = Written(), SparseLog()
        sparse_log.logger.addHandler(written)
        try:
            for number in range(FLOOD):
                warnings.warn("too many", source=str(number))
            assert not written.whole.is_set()
            # Nothing follows, and yet all are counted.
            await asyncio.wait_for(written.whole.wait(), 60)
        finally:
            sparse_log.logger.removeHandler(written)
        return written.lines

    lines = asyncio.run(scenario())
    assert lines[0] == {"times": 1, "source": "0"}
    assert lines[-1]["source"] == str(FLOOD - 1)
