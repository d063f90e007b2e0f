"""Confidential Space: Google's attestation service vouches, and the launcher's socket leads to it."""

from enclave_signer.errors import LauncherRefused, LauncherUnavailable, NotAttested, TokenUnavailable
from enclave_signer.launcher import LauncherSocket, TokenRequest


class ConfidentialSpace:
    """Tokens by the launcher.

    Args:
        launcher: Its socket.
        audience: Whom tokens are made out to; the image says so, never a caller.
        kind: `OIDC` or `PKI`.
    """

    def __init__(self, launcher: LauncherSocket, audience: str, kind: str) -> None:
        self._launcher = launcher
        self._audience = audience
        self._kind = kind

    async def token(self, nonce: str) -> str:
        """Return a token; see `Attester`."""
        try:
            return (await self._launcher.token(TokenRequest(self._audience, self._kind, [nonce]))).decode()
        except LauncherRefused as error:
            raise NotAttested(str(error)) from error
        except LauncherUnavailable as error:
            raise TokenUnavailable(str(error)) from error
