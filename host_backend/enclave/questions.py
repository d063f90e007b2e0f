"""Questions to an enclave now and then, whether or not anyone wants a signature."""

import asyncio
from contextlib import suppress

from host_backend.enclave.in_service import InService
from host_backend.enclave.renewal import Renewal
from host_backend.errors import HostError


class Questions:
    """Notices an enclave that stands still before a signature waits for it, and a proof that is due.

    Args:
        service: Where the connection is.
        renewal: Replaces it when its proof is due.
        pause_s: Seconds between two questions.
    """

    def __init__(self, service: InService, renewal: Renewal, pause_s: float) -> None:
        self._service = service
        self._renewal = renewal
        self._pause_s = pause_s

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s)
            if (client := self._service.client) is None:
                continue
            if client.proof_is_due:
                self._renewal.ask()
            # Without an answer the connection ends itself.
            with suppress(HostError):
                await client.check()
