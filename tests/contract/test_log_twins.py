"""Both programs write their logs alike, and neither imports the other for it: two rooms stand in both, word for word."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["log.py", "log_writer.py"])
def test_a_room_of_the_log_is_the_same_in_both_programs(name: str) -> None:
    enclave, host = ((ROOT / package / name).read_text() for package in ("enclave_signer", "host_backend"))
    # The one line in which they may differ stands elsewhere for the order of imports.
    assert sorted(host.replace("host_backend.log", "enclave_signer.log").splitlines()) == sorted(enclave.splitlines())
