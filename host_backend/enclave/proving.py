"""Whether a connection ends in an enclave that the policy trusts. Nothing but `Attest` goes out before that is known.

- A token is asked for with a nonce made up here, and is about a key of the enclave's process. That key signs this very
  connection; so a genuine token that someone relays is of no use to them.
- While the token is good, and the policy is still the one that judged it, further connections to the same process are
  proven by that key's signature alone.
- *Refused* is final: all proven connections are closed, and the token proves nothing more. *Unavailable* is not: a
  connection that was proven signs on up to `max_age_s`, if its proof cannot be renewed; a new one without a proof is never
  used.
- Times of tokens are those of the wall clock.
"""

import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from enclave_signer.protocol.binding import Channel, channel_statement, token_nonce
from enclave_signer.protocol.messages import NONCE_BYTES, Attest, Attestation, Purpose
from host_backend.enclave.connection import EnclaveConnection
from host_backend.errors import AttestationRefused, EnclaveRefused, KeysUnavailable, NoLongerTrusted

logger = logging.getLogger(__name__)

#: Seconds for a token: the enclave gives the launcher 10.
TOKEN_S = 15.0
#: Parts of a token's life after which its proof is renewed: at a moment of its own for each host.
_RENEWED_FROM, _RENEWED_TO = 0.5, 0.75


class VerifiedClaims(Protocol):
    """What a verified token says, as far as connections need it."""

    @property
    def expires_at(self) -> float:
        """When it ends, in seconds since 1970."""
        ...


#: Returns what a token says that has this nonce; raises `AttestationRefused` or `KeysUnavailable`.
VerifyToken = Callable[[str, str], Awaitable[VerifiedClaims]]


@dataclass(slots=True)
class PolicyInForce:
    """What proofs are judged by; one for each time that the policy is read.

    Attributes:
        doubted: Whether there may be another one by now.
    """

    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """For how long connections are proven, in seconds since 1970.

    Attributes:
        renew_at: When another proof should be asked for.
        expires_at: When the token ends.
        outlasts_to: Until when the connection may go on if no other proof can be had.
        policy: By what it was judged.
    """

    renew_at: float
    expires_at: float
    outlasts_to: float
    policy: PolicyInForce


@dataclass(frozen=True, slots=True)
class _Enclave:
    """A process that a token, which was made for a nonce, has proven."""

    attested_key: bytes
    proof: Proof
    token: str = field(repr=False)
    nonce: str


class Proving:
    """The proofs of one enclave's connections. All methods belong to one event loop.

    Args:
        verify: Judges tokens, by the policy.
        max_age_s: Seconds after a proof for which its connection may go on without another one.
        clock: Seconds since 1970.
        jitter: Returns a number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        verify: VerifyToken,
        max_age_s: float,
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._verify = verify
        self._max_age_s = max_age_s
        self._jitter = jitter
        #: What proves further connections.
        self._enclave: _Enclave | None = None
        #: By what each connection was proven.
        self._proven: WeakKeyDictionary[EnclaveConnection, _Enclave] = WeakKeyDictionary()
        self._policy = PolicyInForce()
        #: Seconds since 1970.
        self.clock = clock

    async def prove(self, connection: EnclaveConnection, *, by_new_token: bool) -> Proof:
        """Return for how long a connection is proven; nothing else was asked on it.

        Args:
            connection: A new one.
            by_new_token: Whether an earlier token does not count.

        Raises:
            AttestationRefused: It does not end in an enclave that the policy trusts; all that were proven before are closed.
            EnclaveUnavailable: There was no answer, or that cannot be known at the moment.
        """
        try:
            channel = _channel_of(connection)
            known = None if by_new_token else await self._proven_before(connection, channel)
            known = known or await self._proven_now(connection, channel)
        except AttestationRefused as error:
            self._refuse(error)
            raise
        self._proven[connection] = known
        return known.proof

    async def judge_again(self) -> bool:
        """Return whether the tokens of all connections still prove something, as the policy may be another one.

        If not, all connections are closed. If so, each is still to be proven by another token.
        """
        self._policy.doubted = True
        self._policy = PolicyInForce()
        in_use = {known.token: known for connection, known in list(self._proven.items()) if connection.alive}
        for known in in_use.values():
            # A token that has ended would be refused for that, whatever the policy; nor are its keys published for ever.
            if self.clock() >= known.proof.expires_at:
                continue
            try:
                await self._verify(known.token, known.nonce)
            except AttestationRefused as error:
                self._refuse(error)
                return False
            except KeysUnavailable:
                logger.warning("the last token could not be judged again, another one is asked for")
        return True

    def _refuse(self, reason: AttestationRefused) -> None:
        """Close all connections: an enclave that is reached where theirs was is not to be trusted."""
        self._enclave = None
        for connection in list(self._proven):
            connection.close(NoLongerTrusted(str(reason)))

    def _reusable(self) -> _Enclave | None:
        """Return the process that a token proves which is good now, by the policy in force."""
        known = self._enclave
        if known is None or known.proof.policy.doubted or self.clock() >= known.proof.expires_at:
            return None
        return known

    async def _proven_before(self, connection: EnclaveConnection, channel: Channel) -> _Enclave | None:
        """Return the process that another connection led to, if this one does, too."""
        if self._reusable() is None:
            return None
        attestation = await self._attested(connection, channel, Purpose.SESSION, None)
        # The policy may have changed, or the enclave been refused, meanwhile.
        known = self._reusable()
        return known if known is not None and attestation.attested_key == known.attested_key else None

    async def _proven_now(self, connection: EnclaveConnection, channel: Channel) -> _Enclave:
        nonce = secrets.token_bytes(NONCE_BYTES)
        asked_at, policy = self.clock(), self._policy
        attestation = await self._attested(connection, channel, Purpose.CHANNEL, nonce)
        if attestation.token is None or attestation.inventory is None:
            raise AttestationRefused(["the enclave showed no token"])
        bound = token_nonce(Purpose.CHANNEL, nonce, channel, attestation.attested_key, attestation.inventory)
        claims = await self._judged(attestation.token, bound)
        life_s = claims.expires_at - asked_at
        part = _RENEWED_FROM + (_RENEWED_TO - _RENEWED_FROM) * self._jitter()
        outlasts_to = max(claims.expires_at, asked_at + self._max_age_s)
        proof = Proof(asked_at + part * life_s, claims.expires_at, outlasts_to, policy)
        self._enclave = _Enclave(attestation.attested_key, proof, attestation.token, bound)
        return self._enclave

    async def _judged(self, token: str, nonce: str) -> VerifiedClaims:
        """Return what a token says by the policy that is in force at the end."""
        while True:
            policy = self._policy
            claims = await self._verify(token, nonce)
            if policy is self._policy:
                return claims

    async def _attested(
        self, connection: EnclaveConnection, channel: Channel, purpose: Purpose, nonce: bytes | None
    ) -> Attestation:
        """Return an answer whose signature over this connection is good."""
        nonce = nonce or secrets.token_bytes(NONCE_BYTES)
        limit_s = TOKEN_S if purpose is Purpose.CHANNEL else None
        try:
            attestation = await connection.ask(Attest(nonce, purpose), limit_s)
        except AttestationRefused:
            raise
        except EnclaveRefused as error:
            raise AttestationRefused([str(error)]) from error
        if not isinstance(attestation, Attestation) or attestation.channel_proof is None:
            raise AttestationRefused(["the enclave did not prove this connection"])
        statement = channel_statement(nonce, channel, attestation.attested_key)
        try:
            Ed25519PublicKey.from_public_bytes(attestation.attested_key).verify(attestation.channel_proof, statement)
        except (InvalidSignature, ValueError):
            raise AttestationRefused(
                ["the connection does not end at the enclave that signed the proof: someone is in between"]
            ) from None
        return attestation


def _channel_of(connection: EnclaveConnection) -> Channel:
    if connection.channel is None:
        raise AttestationRefused(["the connection is not TLS, and nothing can be bound to it"])
    return connection.channel
