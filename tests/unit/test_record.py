"""What the one log line of a request says."""

import logging

import pytest

from host_backend.operations import parse_message
from host_backend.policy import ANYONE
from host_backend.record import MAX_NAMED_OPERATIONS, Record
from tests.doubles.known_keys import FOUR, transaction

#: First byte and branch, then the contents.
HEAD_BYTES = 33


def test_every_operation_counts_and_the_line_stays_short(caplog: pytest.LogCaptureFixture) -> None:
    record = Record(FOUR[0].pkh, ANYONE)
    count = MAX_NAMED_OPERATIONS + 2
    contents = b"".join(transaction(number)[HEAD_BYTES:] for number in range(1, count + 1))
    record.note(parse_message(transaction(1)[:HEAD_BYTES] + contents))
    with caplog.at_level(logging.INFO, "host_backend"):
        record.log("Signed generic successfully")
    (line,) = caplog.records
    told = vars(line)["fields"]
    assert told["ops_total"] == count
    assert told["ops"] == ",".join(["transaction"] * MAX_NAMED_OPERATIONS)
