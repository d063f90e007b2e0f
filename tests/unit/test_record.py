"""What the one log line of a request says."""

import logging

import pytest

from host_backend.operations.messages import parse_message
from host_backend.policy import ANYONE
from host_backend.record import Record
from tests.doubles.known_keys import FOUR, PAYLOADS, transaction

#: First byte and branch, then the contents.
HEAD_BYTES = 33
BATCH = PAYLOADS["policy_reveal"] + transaction(1)[HEAD_BYTES:] + transaction(2)[HEAD_BYTES:]


@pytest.mark.parametrize(
    ("message", "operations", "total"),
    [
        (BATCH, {"delegation": 1, "reveal": 1, "transaction": 2}, 4),
        (PAYLOADS["policy_ballot"], {"ballot": 1}, 1),
        (PAYLOADS["policy_pack_data_is"], {"pack": 1}, 1),
        (PAYLOADS["watermark_A1"], {"block": 1}, 1),
    ],
)
def test_operations_are_listed_as_signatory_does_and_all_of_them_count(
    caplog: pytest.LogCaptureFixture, message: bytes, operations: dict[str, int], total: int
) -> None:
    record = Record(FOUR[0].pkh, ANYONE)
    record.note(parse_message(message))
    with caplog.at_level(logging.INFO, "host_backend"):
        record.log("done")
    (line,) = caplog.records
    told = vars(line)["fields"]
    assert (told["ops"], told["ops_total"]) == (operations, total)
