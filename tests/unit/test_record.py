"""What the one log line of a request says."""

import logging

import pytest

from host_backend.errors import PolicyDenied
from host_backend.log import Later
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


@pytest.mark.parametrize(("payload", "later"), [("watermark_A1", True), ("policy_ballot", False)])
def test_lines_of_bakers_are_made_by_whoever_writes_them(
    caplog: pytest.LogCaptureFixture, payload: str, *, later: bool
) -> None:
    record = Record(FOUR[0].pkh, ANYONE)
    record.note(parse_message(PAYLOADS[payload]))
    with caplog.at_level(logging.INFO, "host_backend"):
        record.log("done")
    (line,) = caplog.records
    told = vars(line)["fields"]
    assert isinstance(told, Later) is later
    assert (told["pkh"], told["status"], "lvl" in told) == (FOUR[0].pkh, 200, later)


def test_what_waits_for_the_log_holds_no_payload_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with_payload, refused = Record(FOUR[0].pkh, ANYONE), Record(FOUR[0].pkh, ANYONE)
    for record in (with_payload, refused):
        record.note(parse_message(PAYLOADS["watermark_A1"]))
    with_payload.raw = PAYLOADS["watermark_A1"]
    refused.error = PolicyDenied("no", violation="chain")
    with caplog.at_level(logging.INFO, "host_backend"):
        with_payload.log("done")
        refused.log_refusal(refused.error)
    assert [type(vars(line)["fields"]) for line in caplog.records] == [dict, dict]
