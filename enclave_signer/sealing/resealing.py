"""Which keys may be resealed, from where to where: the image's own list, asked before any provider.

Anyone who reaches the enclave can ask. Without the list they could move a key to a sealer that protects it less.
"""

from collections.abc import Sequence
from dataclasses import replace

from enclave_signer.errors import SealingRefused, blob_error
from enclave_signer.protocol.blob import sealed_under
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import Sealer
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.reseal_rules import ResealRule

#: Characters of a stranger's name in a refusal.
_SHOWN_CHARS = 200


class ResealingByImage:
    """See `Resealing`.

    Args:
        providers: Of the process.
        rules: What the image allows; None where no image does, and the daemon seals by a file.
        client: Who asks: an address, or what counts as it; None: the process itself.
    """

    def __init__(self, providers: Providers, rules: Sequence[ResealRule] | None, client: str | None = None) -> None:
        self._providers = providers
        self._rules = rules
        self._client = client

    async def open_target(self, blob: bytes, target: str, credentials: Credentials) -> Sealer:
        """Return the sealer that reseals a blob under the key `target`; see `Resealing`."""
        sealer = self._sealer(_source(blob), target)
        credentials = replace(credentials, encryption_key_path=target)
        return await self._providers.open_sealer_named(sealer, credentials, self._client)

    def _sealer(self, source: str, target: str) -> str:
        if self._rules is None:
            raise SealingRefused("this enclave seals by a file on its machine: it cannot reseal")
        sealer = next((rule.sealer for rule in self._rules if rule.allows(source, target)), None)
        if sealer is None:
            shown = f"from {source[:_SHOWN_CHARS]!r} to {target[:_SHOWN_CHARS]!r}"
            raise SealingRefused(f"this image does not allow resealing {shown}: its list `reseal` has no such entry")
        return sealer


def _source(blob: bytes) -> str:
    try:
        return sealed_under(blob)
    except BadBlob as error:
        raise blob_error(error) from None
