"""What this process proves: tokens about the key that it made at its start, and signatures of that key over connections.

- Tokens are few (Google gives a project 5 a second), so each purpose has a budget and room of its own: requests for
  reports take nothing from hosts that prove their connections.
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

#: Seconds between two tokens of one purpose, after as many at once as `BURST`.
INTERVAL_S = {Purpose.CHANNEL: 0.5, Purpose.REPORT: 1.0}
#: A host proves two or three connections at once when it starts.
BURST = {Purpose.CHANNEL: 8, Purpose.REPORT: 2}
#: Seconds for which a token is reused for the same request: for answers that were lost.
KEPT_S = 60.0
#: Tokens of one purpose that are kept, some 8 KiB each.
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
        self._budgets = {each: _Budget(BURST[each], INTERVAL_S[each]) for each in BURST}
        self._asked: dict[Purpose, dict[str, _Asked]] = {each: {} for each in BURST}

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
        token = await self._token(call.purpose, nonce)
        return Attestation(self.public_key, token, inventory, proof)

    async def _token(self, purpose: Purpose, nonce: str) -> str:
        now = self._clock()
        kept = self._asked[purpose]
        for other in [other for other, asked in kept.items() if asked.done.is_set() and asked.until <= now]:
            del kept[other]
        asked = kept.get(nonce)
        if asked is None:
            if len(kept) >= MAX_KEPT:
                raise TokenUnavailable("attestation unavailable: too many tokens are asked for, retry in a minute")
            self._budgets[purpose].spend(now)
            asked = kept[nonce] = _Asked(now + KEPT_S)
            trio.lowlevel.spawn_system_task(self._ask, kept, nonce, asked)
        await asked.done.wait()
        if asked.error is not None:
            raise again(asked.error)
        return asked.token

    async def _ask(self, kept: dict[str, _Asked], nonce: str, asked: _Asked) -> None:
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
                del kept[nonce]
            asked.done.set()
