"""Judging tokens as a configuration says: its policy, and whose signature counts."""

import time
from collections.abc import Callable
from pathlib import Path

from host_backend.attestation.keys import KeySource
from host_backend.attestation.policy import Policy
from host_backend.attestation.policy_file import load_policy
from host_backend.attestation.trust import PinnedRoot
from host_backend.attestation.verifier import VerifiedClaims, verify
from host_backend.errors import ConfigError, reason_of


class TokenJudge:
    """Judges tokens under one policy.

    Args:
        policy: The file of the policy.
        trust: Google's published keys, or what reads a root certificate.
        clock: Seconds since 1970.

    Raises:
        ConfigError: The policy or the root cannot be read, or is wrong.
    """

    def __init__(
        self, policy: Path, trust: KeySource | Callable[[], PinnedRoot], clock: Callable[[], float] = time.time
    ) -> None:
        self._file = policy
        self._read_trust = trust
        self._policy, self._trust = self._read()
        self._clock = clock

    def _read(self) -> tuple[Policy, KeySource | PinnedRoot]:
        trust = self._read_trust
        return load_policy(self._file), trust if isinstance(trust, KeySource) else trust()

    def reread(self) -> Callable[[], bool]:
        """Read the policy and the root again; see `Endpoint.reread`.

        Raises:
            ConfigError: One cannot be read, or is wrong.
        """
        fresh = self._read()

        def use() -> bool:
            changed = fresh != (self._policy, self._trust)
            self._policy, self._trust = fresh
            return changed

        return use

    async def verify(self, token: str, nonce: str) -> VerifiedClaims:
        """Return what a token with this nonce proves.

        Raises:
            AttestationRefused: Not what the policy asks for.
            KeysUnavailable: The keys that sign tokens cannot be had at the moment.
        """
        trust = self._trust if isinstance(self._trust, PinnedRoot) else await self._trust.keys_for(token)
        return verify(token, trust=trust, policy=self._policy, nonce=nonce, now=self._clock())


def pinned_root(file: Path | None) -> PinnedRoot:
    """Return the root certificate in a file; Google's where none is named.

    Raises:
        ConfigError: It cannot be read.
    """
    if file is None:
        return PinnedRoot()
    try:
        return PinnedRoot.from_pem(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {reason_of(error)}") from error
    except ValueError:
        raise ConfigError(f"{file}: must hold exactly one certificate, in PEM form") from None
