"""Several things fail at once, under load: nothing is signed twice, and everybody signs again."""

from pathlib import Path

from tests.endurance.chaos import report, run
from tests.endurance.chaos_faults import all_faults
from tests.endurance.chaos_site import HOSTS

#: Kinds that are over soon, and take no key out of service for long.
KINDS = ("kill file", "kill enclave", "disk failing", "link duplicate", "firestore unsure", "strangers at enclave")
SECONDS = 2.0


def test_faults_at_once_cost_no_mark_and_no_host(tmp_path: Path) -> None:
    faults = [fault for fault in all_faults() if fault.name in KINDS]
    result = run(SECONDS, tmp_path, faults=faults, mount=False)
    assert not result.bad, report(result)
    assert result.faults.keys() <= {*KINDS, "strangers everywhere"}
    assert len(result.faults) > 1
    assert result.back_s.keys() == set(HOSTS)
    assert result.book.oracle.statuses[200] > 0
    assert result.book.oracle.statuses[409] > 0
