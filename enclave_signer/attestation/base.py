"""The attestation port: what vouches for this machine and its image."""

from typing import Protocol

from enclave_signer.errors import NotAttested


class Attester(Protocol):
    """Has tokens made that say what runs here. Raises what it says, and nothing else."""

    async def token(self, nonce: str) -> str:
        """Return a token with a nonce of 64 hexadecimal digits, as the only one.

        Raises:
            NotAttested: This machine or image gets none.
            TokenUnavailable: There is none at the moment.
        """
        ...


class NoAttester:
    """What stands there outside a confidential machine."""

    async def token(self, nonce: str) -> str:
        """Give none.

        Raises:
            NotAttested: Always.
        """
        del nonce
        raise NotAttested(
            "not attested: this enclave is configured without attestation, its image has no [attestation]"
        )
