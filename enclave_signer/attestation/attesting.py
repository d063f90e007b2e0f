"""What this process proves: tokens about the key that it made at its start, and signatures of that key over connections.

- Tokens are few (Google gives a project 5 a second), so each purpose of each client, by its TLS key, has a budget and room
  of its own: reports take nothing from hosts that prove their connections, and no host takes anything from another.
- A recent token is reused for the same request. It is asked for once, for all who ask for it: a client that leaves takes it
  from no other.
- Where there is no channel, none is proven.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio
from nacl.signing import SigningKey

from enclave_signer.attestation.base import Attester
from enclave_signer.errors import EnclaveSignerError, NotAttested, TokenUnavailable, again
from enclave_signer.protocol.binding import NO_CHANNEL, Channel, channel_statement, inventory_digest, token_nonce
from enclave_signer.protocol.messages import Attest, Attestation, PublicKey, Purpose

logger = logging.getLogger(__name__)

#: Seconds between two tokens of one purpose of a client, after as many at once as `BURST`.
INTERVAL_S = {Purpose.CHANNEL: 0.5, Purpose.REPORT: 1.0}
#: A host proves two or three connections at once when it starts.
BURST = {Purpose.CHANNEL: 8, Purpose.REPORT: 2}
#: Seconds for which a token is reused for the same request: for answers that were lost.
KEPT_S = 60.0
#: Tokens of one purpose that are kept for a client, some 8 KiB each: half a token a second, if it asks without end.
MAX_KEPT = 32


@dataclass(slots=True)
class _Asked:
    """A token that is asked for; or was."""

    until: float
    done: trio.Event = field(default_factory=trio.Event)
    token: str = field(default="", repr=False)
    error: Exception | None = None


class _Budget:
    """So many at once, and one more every `interval_s`."""

    def __init__(self, burst: int, interval_s: float) -> None:
        self._interval_s = interval_s
        self._burst_s = burst * interval_s
        self._spent_until = -self._burst_s

    def spend(self, now: float) -> None:
        """Take one.

        Raises:
            TokenUnavailable: There is none left.
        """
        since = max(self._spent_until, now - self._burst_s)
        if since + self._interval_s > now:
            raise TokenUnavailable("attestation unavailable: too many tokens were asked for, retry in a few seconds")
        self._spent_until = since + self._interval_s


class _Share:
    """What one client may ask for one purpose, and what it asked."""

    def __init__(self, purpose: Purpose) -> None:
        self._budget = _Budget(BURST[purpose], INTERVAL_S[purpose])
        self._asked: dict[str, _Asked] = {}

    def find(self, nonce: str, now: float) -> _Asked | None:
        """Return the token that was asked for with this nonce a moment ago."""
        for other in [other for other, asked in self._asked.items() if asked.done.is_set() and asked.until <= now]:
            del self._asked[other]
        return self._asked.get(nonce)

    def begin(self, nonce: str, now: float) -> _Asked:
        """Note that a token is asked for.

        Raises:
            TokenUnavailable: Not now: the client has asked for too many.
        """
        if len(self._asked) >= MAX_KEPT:
            raise TokenUnavailable("attestation unavailable: too many tokens are asked for, retry in a minute")
        self._budget.spend(now)
        asked = self._asked[nonce] = _Asked(now + KEPT_S)
        return asked

    def forget(self, nonce: str) -> None:
        """Let a token be asked for again: there was none."""
        del self._asked[nonce]


class Attesting:
    """The proofs of one process.

    Args:
        attester: Vouches for it.
        clock: Seconds that only go forward.
    """

    def __init__(self, attester: Attester, clock: Callable[[], float]) -> None:
        self._attester = attester
        self._clock = clock
        # Never written anywhere: a process that is started again is another one.
        self._key = SigningKey.generate()
        #: The Ed25519 key that tokens are about, 32 bytes.
        self.public_key = bytes(self._key.verify_key)
        #: By purpose and TLS key: no more than the image lists, and one for all without TLS.
        self._shares: dict[tuple[Purpose, bytes], _Share] = {}

    async def attest(self, call: Attest, channel: Channel | None, open_keys: Iterable[PublicKey]) -> Attestation:
        """Return what a client asks for.

        Args:
            call: What it is.
            channel: The client's connection; None if it is not TLS.
            open_keys: The public keys that are open in this process.

        Raises:
            NotAttested: There is nothing that could be proven.
            TokenUnavailable: There is no token at the moment.
        """
        if call.purpose is Purpose.REPORT:
            return await self._with_token(call, channel or NO_CHANNEL, open_keys, proof=None)
        if channel is None:
            raise NotAttested("not attested: this connection is not TLS, and nothing can be bound to it")
        statement = channel_statement(call.nonce, channel, self.public_key)
        proof = self._key.sign(statement).signature
        if call.purpose is Purpose.SESSION:
            return Attestation(self.public_key, channel_proof=proof)
        return await self._with_token(call, channel, open_keys, proof=proof)

    async def _with_token(
        self, call: Attest, channel: Channel, open_keys: Iterable[PublicKey], *, proof: bytes | None
    ) -> Attestation:
        inventory = inventory_digest(open_keys)
        nonce = token_nonce(call.purpose, call.nonce, channel, self.public_key, inventory)
        place = call.purpose, channel.client_key
        share = self._shares.get(place)
        if share is None:
            share = self._shares[place] = _Share(call.purpose)
        token = await self._token(share, nonce)
        return Attestation(self.public_key, token, inventory, proof)

    async def _token(self, share: _Share, nonce: str) -> str:
        now = self._clock()
        asked = share.find(nonce, now)
        if asked is None:
            asked = share.begin(nonce, now)
            trio.lowlevel.spawn_system_task(self._ask, share, nonce, asked)
        await asked.done.wait()
        if asked.error is not None:
            raise again(asked.error)
        return asked.token

    async def _ask(self, share: _Share, nonce: str, asked: _Asked) -> None:
        try:
            asked.token = await self._attester.token(nonce)
        except EnclaveSignerError as error:
            asked.error = error
        except Exception:
            # An exception that escaped here would end the daemon.
            logger.exception("a token was not made, by a bug")
            asked.error = TokenUnavailable("attestation unavailable: by a bug, see the enclave's log")
        finally:
            if not asked.token:
                share.forget(nonce)
            asked.done.set()
