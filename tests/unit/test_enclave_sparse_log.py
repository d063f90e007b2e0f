"""Warnings of the enclave that strangers can cause as often as they like."""

import pytest
import trio
from trio.testing import MockClock

from enclave_signer.sparse_log import SPARSE_LOG_S, SparseLog


@pytest.mark.parametrize("quiet_s", [SPARSE_LOG_S + 1, 1])
def test_a_flood_is_reported_seldom_and_counted_whole(caplog: pytest.LogCaptureFixture, quiet_s: float) -> None:
    async def flood() -> None:
        warnings = SparseLog()
        for number in range(50):
            warnings.warn("too many", source=str(number))
        # Nothing follows, or the program ends.
        await trio.sleep(quiet_s)

    trio.run(flood, clock=MockClock(autojump_threshold=0))
    written = [vars(record)["fields"] for record in caplog.records]
    assert written == [{"times": 1, "source": "0"}, {"times": 49, "source": "49"}]
