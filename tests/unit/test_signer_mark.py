"""What a client gets while its mark is not stored in time."""

import asyncio

import pytest

from enclave_signer.tezos import parse_consensus
from host_backend import signer
from host_backend.errors import StoreUnavailable
from host_backend.watermark.memory import MemoryWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.known_keys import FOUR, attestation


class SilentMarks(MemoryWatermarkStore):
    """A store that never answers."""

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("it never answers")


def test_a_mark_that_is_late_blames_no_disk_that_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer, "MARK_S", 0.0)

    async def run() -> None:
        message = attestation(1)
        request = parse_consensus(message)
        assert request is not None
        await signer.Signer({}, [], SilentMarks())._mark(FOUR[0].pkh, request, message)

    with pytest.raises(
        StoreUnavailable, match=r"not stored within 0 s: look at what keeps it \(`watermark` in the conf"
    ):
        asyncio.run(run())
