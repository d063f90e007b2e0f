"""Asking for signatures and proofs of keys that are open in service, and what happens where a key's release has ended.

- Such a key is opened again on the second connection, once for all requests that want it; then it is asked for once more.
- Meanwhile it is not asked for: new requests fail, with the reason.
"""

from collections.abc import Awaitable, Callable

from enclave_signer.protocol.messages import Signature
from host_backend.enclave.client import SigningClient
from host_backend.enclave.link import EnclaveLink
from host_backend.errors import EnclaveUnavailable, NotReleased, ReleaseDenied
from host_backend.leaving import waiting
from host_backend.time_limit import TimeLimit
from host_backend.vault.keyring import Keyring
from host_backend.vault.keys import Keys
from host_backend.vault.watch import Watch


class Asking:
    """Asks for signatures of one vault's keys.

    Args:
        link: Leads to the enclave.
        ring: The keys.
        watch: Opens a key again.
        limit_s: Seconds for a signature in all.
    """

    def __init__(self, link: EnclaveLink, ring: Keyring, watch: Watch, limit_s: float) -> None:
        self._link = link
        self._ring = ring
        self._watch = watch
        self._limit = TimeLimit(limit_s)

    async def ask(
        self, pkh: str, ask: Callable[[SigningClient], Awaitable[Signature]]
    ) -> tuple[SigningClient, Signature]:
        """Return the answer of a call that may be made twice with a key, and the connection that it came from.

        Raises:
            NotReleased, ReleaseDenied: The key's release has ended, and there was no other in time.
            EnclaveRefused, EnclaveUnavailable, WatermarkRejected: As `ask` does.
        """
        try:
            with self._limit.wait():
                try:
                    return await self._link.ask_idempotent(ask)
                except (NotReleased, ReleaseDenied) as error:
                    await self._release(pkh, error)
                return await self._link.ask_idempotent(ask)
        except TimeoutError:
            raise EnclaveUnavailable(f"the enclave gave no signature within {self._limit.seconds:g} s") from None

    async def _release(self, pkh: str, error: NotReleased | ReleaseDenied) -> None:
        self._ring.note_lapsed(pkh, error)
        if isinstance(error, ReleaseDenied):
            raise error
        with waiting():
            await self._watch.release(pkh)
        keys = self._ring.keys
        if (reason := keys.quarantined.get(pkh)) is not None and pkh in keys.lapsed:
            raise ReleaseDenied(f"{pkh} is out of service: {reason}")
        if pkh in keys.lapsed:
            raise why_not_open(keys, pkh) or error


def why_not_open(keys: Keys, pkh: str) -> EnclaveUnavailable | None:
    """Return what to tell of a key that waits to be opened; None when it does not."""
    if (reason := keys.unreleased.get(pkh)) is not None:
        return NotReleased(f"{pkh} is not open: {reason}")
    reason = keys.waiting.get(pkh)
    return EnclaveUnavailable(f"{pkh} is not open: {reason}") if reason is not None else None
