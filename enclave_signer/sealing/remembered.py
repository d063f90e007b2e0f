"""Sealers that were opened before, for the time when the service behind them is away.

A host that lost its connection sends `Initialize` again. If the provider has to ask a cloud for that and gets no answer,
the sealer that it gave for the same credentials last time serves: the keys that are remembered need no sealer, and all
others are told that it is unavailable. A refusal stays a refusal.
"""

from enclave_signer.errors import SealingUnavailable
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import Sealer, SealerProvider

#: Different credentials that are remembered: an image has one or two identities and keys to choose from.
MAX_REMEMBERED = 16


class RememberingProvider:
    """A `SealerProvider` that falls back on what another one gave before."""

    def __init__(self, provider: SealerProvider) -> None:
        self._provider = provider
        self._sealers: dict[Credentials, Sealer] = {}

    @property
    def name(self) -> str:
        """The name of the provider behind it."""
        return self._provider.name

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return a sealer; see `SealerProvider`."""
        try:
            sealer = await self._provider.open_sealer(credentials)
        except SealingUnavailable:
            if credentials not in self._sealers:
                raise
            return self._sealers[credentials]
        # The newest last, so that the oldest goes first.
        self._sealers.pop(credentials, None)
        self._sealers[credentials] = sealer
        if len(self._sealers) > MAX_REMEMBERED:
            del self._sealers[next(iter(self._sealers))]
        return sealer
