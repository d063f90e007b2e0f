"""Warnings that strangers can cause as often as they like."""

import pytest

from host_backend.sparse_log import SPARSE_LOG_S, SparseLog


def test_a_flood_is_told_of_seldom_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    warnings = SparseLog(lambda: now)
    for number in range(50):
        warnings.warn("too many", source=str(number))
    now += SPARSE_LOG_S
    for number in range(50):
        warnings.warn("too many", source=str(number))
    told = [vars(record)["fields"] for record in caplog.records]
    assert told == [{"times": 1, "source": "0"}, {"times": 50, "source": "0"}]
