"""Which keys may be resealed, from where to where: the image's own list, asked before any provider.

Anyone who reaches the enclave can ask. Without the list they could move a key to a sealer that protects it less.
"""

from collections.abc import Sequence
from dataclasses import replace

from enclave_signer.errors import BlobCorrupt, SealingRefused
from enclave_signer.image import GCP_KMS, ResealRule
from enclave_signer.protocol.blob import sealed_under
from enclave_signer.protocol.errors import BadBlob, UnknownBlobFormat
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import Sealer
from enclave_signer.sealing.providers import Providers

#: Characters of a stranger's name in a refusal.
_SHOWN_CHARS = 200


class ResealingByImage:
    """See `Resealing`.

    Args:
        providers: Of the process.
        rules: What the image allows; None where no image does, and the daemon seals by a file.
    """

    def __init__(self, providers: Providers, rules: Sequence[ResealRule] | None) -> None:
        self._providers = providers
        self._rules = rules

    async def open_target(self, blob: bytes, target: str, credentials: Credentials) -> Sealer:
        """Return the sealer that reseals a blob under the key `target`; see `Resealing`."""
        self._check(_source(blob), target)
        # Every target is a key of Cloud KMS: `image` takes no other.
        return await self._providers.open_sealer_named(GCP_KMS, replace(credentials, encryption_key_path=target))

    def _check(self, source: str, target: str) -> None:
        if self._rules is None:
            raise SealingRefused("this enclave seals by a file on its machine: it cannot reseal")
        if not any(rule.allows(source, target) for rule in self._rules):
            shown = f"from {source[:_SHOWN_CHARS]!r} to {target[:_SHOWN_CHARS]!r}"
            raise SealingRefused(f"this image does not allow resealing {shown}: its list `reseal` has no such entry")


def _source(blob: bytes) -> str:
    try:
        return sealed_under(blob)
    except UnknownBlobFormat as error:
        raise SealingRefused(str(error)) from None
    except BadBlob as error:
        raise BlobCorrupt(str(error)) from None
