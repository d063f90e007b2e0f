"""A vault without an enclave, which signs or fails as a test asks."""

from enclave_signer.protocol.messages import PublicKey, Signature, SigningVersion
from host_backend.vault.keys import VaultKey, opened_key
from host_backend.vault.vault import Vault
from tests.doubles.linked_vault import OPENED


class FailingVault(Vault):
    """A vault with open keys, whose enclave fails at will.

    Attributes:
        error: What it fails with; None: it signs.
    """

    def __init__(self, *pkhs: str) -> None:
        self.name = "vault"
        self.error: Exception | None = None
        self._keys = {pkh: opened_key(OPENED[pkh].public_key, pkh) for pkh in pkhs}

    def serves(self, pkh: str) -> bool:
        return pkh in self._keys

    def opened(self, pkh: str) -> bool:
        return pkh in self._keys

    def holds(self, pkh: str) -> bool:
        return pkh in self._keys

    async def read_store(self) -> None:
        pass

    async def opened_key(self, pkh: str) -> VaultKey:
        if self.error is not None:
            raise self.error
        return self._keys[pkh]

    async def ready_key(self, pkh: str, version: SigningVersion) -> VaultKey:
        del version
        return await self.opened_key(pkh)

    async def sign_with(self, key: VaultKey, message: bytes, version: SigningVersion) -> Signature:
        return OPENED[key.pkh].sign(message, version)

    async def prove_possession(self, pkh: str, other: PublicKey | None = None) -> Signature:
        await self.opened_key(pkh)
        return OPENED[pkh].prove_possession(other)
