"""Rude clients by the hundred: the host's memory stays bounded, and others go on signing."""

from collections.abc import Iterator

import pytest

from tests.doubles.host_process import Host
from tests.endurance.http_floods import FLOODS, Flood, flooded_host, run

#: Bytes that any flood may cost: 2000 connections are some 20 KiB each, 50 unread answers at most 1 MiB each.
BOUND_BYTES = 100 * 1024 * 1024


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with flooded_host(tmp_path_factory.mktemp("floods")) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: str(flood.__name__))
def test_a_flood(host: Host, flood: Flood) -> None:
    before, during = run(host, flood)
    assert during - before < BOUND_BYTES
