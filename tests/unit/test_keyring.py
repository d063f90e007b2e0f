"""Opening keys side by side."""

import asyncio

import pytest

from host_backend.errors import EnclaveUnavailable
from host_backend.vault.keyring import _side_by_side


@pytest.mark.parametrize("passes", range(5))
def test_a_failure_does_not_hide_that_the_host_stops(passes: int) -> None:
    """Both at once: the connection ends while keys are opened on it, and the task that opens them is cancelled."""

    async def run() -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def open_one(pkh: str) -> None:
            await ended

        opening = asyncio.create_task(_side_by_side(open_one, ["tz1"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.set_exception(EnclaveUnavailable("lost"))
        for _ in range(passes):
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            with pytest.raises(EnclaveUnavailable):
                await opening

    asyncio.run(run())
