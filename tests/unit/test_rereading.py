"""Files of an enclave that are read again: which are used, which stay, and the log of it."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint, Reread
from host_backend.enclave.proving import Proving
from host_backend.enclave.renewal import Renewal
from host_backend.enclave.rereading import reread
from host_backend.errors import ConfigError


def told(caplog: pytest.LogCaptureFixture, *rereads: Reread, trusted: bool | None = None) -> tuple[int, list[str]]:
    """Return how often a new connection was insisted on, and what was logged."""
    insisted: list[None] = []

    async def judge_again() -> bool:
        return trusted is True

    proving = None if trusted is None else cast("Proving", SimpleNamespace(judge_again=judge_again))
    renewal = cast("Renewal", SimpleNamespace(insist=lambda: insisted.append(None)))
    with caplog.at_level(logging.WARNING):
        asyncio.run(reread("v", Endpoint(Address("h", 1), proving=proving, rereads=rereads), renewal))
    return len(insisted), [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def gives(*, changed: bool) -> Reread:
    return lambda: lambda: changed


def fails(error: Exception) -> Callable[[], Callable[[], bool]]:
    def read() -> Callable[[], bool]:
        raise error

    return read


CHANGED = "WARNING the certificate for the enclave, or the policy that it is judged by, has changed"


def test_without_files_or_changes_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog) == (0, [])
    assert told(caplog, gives(changed=False), trusted=True) == (0, [])


@pytest.mark.parametrize(("trusted", "insisted"), [(None, 1), (True, 1), (False, 0)])
def test_a_change_asks_for_a_new_connection_unless_the_enclave_was_refused(
    caplog: pytest.LogCaptureFixture, trusted: bool | None, insisted: int
) -> None:
    assert told(caplog, gives(changed=False), gives(changed=True), trusted=trusted) == (insisted, [CHANGED])


def test_if_one_file_cannot_be_used_none_is(caplog: pytest.LogCaptureFixture) -> None:
    used: list[bool] = []

    def read() -> Callable[[], bool]:
        def use() -> bool:
            used.append(True)
            return True

        return use

    insisted, (line,) = told(caplog, read, fails(ConfigError("policy.yaml: is wrong")))
    assert (insisted, used) == (0, [])
    assert line.startswith(
        "ERROR the certificate for the enclave and the policy were not reloaded, the old ones stay: "
    )


def test_a_bug_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, fails(ZeroDivisionError()))[0] == 0
    assert "by a bug" in caplog.text
