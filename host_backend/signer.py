"""The pipeline of one signing request. The only file that decides order.

    listed → user → parse → find → policy → hook → ready → mark, durably → sign, verified → log
    listed → user → find → can prove → policy → hook → prove, verified → log

A large message is parsed only if its key may sign any of its kind, which the first byte tells; then it waits for its turn.
What stops a request raises; nothing is signed after a raise, and nothing is sent to the enclave before the mark of a
consensus message is durable.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion
from enclave_signer.tezos import ConsensusMessage, check_public_key_hash, mark_of, public_key_hash
from host_backend.errors import HostError, MalformedRequest, PolicyDenied, StoreUnavailable
from host_backend.operations.messages import Message, kind_of_large, parse_message
from host_backend.policy import ANYONE, Caller, KeyPolicy
from host_backend.record import Record
from host_backend.time_limit import TimeLimit
from host_backend.turns import Turns
from host_backend.vault.choice import find_vault
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.rule import MarkKey

logger = logging.getLogger(__name__)

#: Seconds for a mark to be durable: a store that takes longer has no answer in time for a block either.
MARK_S = 5.0
#: Large messages that may wait until they are parsed, up to 25 ms each: the last one of an address waits less than 2 s.
MAX_LARGE_MESSAGES = 256
#: Of one address.
MAX_LARGE_MESSAGES_OF_ADDRESS = 64


class Hook(Protocol):
    """A service that is asked about every request that the policy allows."""

    async def check(self, pkh: str, message: bytes | None, caller: Caller) -> None:
        """Return when it allows the request, too.

        Args:
            pkh: The key's hash.
            message: The bytes to sign; None for a proof of possession.
            caller: Who asks.

        Raises:
            PolicyDenied: It does not.
            HookUnavailable: It did not answer, or not as it should.
        """
        ...


class Observer(Protocol):
    """Counts requests."""

    def ended(self, record: Record) -> None:
        """Count a request that has ended; `record.error` says how."""
        ...


class Signer:
    """Decides about requests to sign, and has them signed.

    Attributes:
        policies: By public-key hash; may be replaced as a whole between two requests.
    """

    def __init__(
        self,
        policies: Mapping[str, KeyPolicy],
        vaults: Sequence[Vault],
        watermark: WatermarkStore,
        *,
        hook: Hook | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.policies = policies
        self._vaults = vaults
        self._watermark = watermark
        self._hook = hook
        self._observer = observer
        self._mark_limit = TimeLimit(MARK_S)
        self._large = Turns("large messages", share=MAX_LARGE_MESSAGES_OF_ADDRESS, limit=MAX_LARGE_MESSAGES)

    async def sign(
        self,
        pkh: str,
        message: bytes,
        version: SigningVersion = SigningVersion.LATEST,
        caller: Caller = ANYONE,
    ) -> Signature:
        """Return a verified signature.

        Args:
            pkh: The key's hash, as text.
            message: The whole message, magic byte first.
            version: How a BLS key signs.
            caller: Who asks, as far as that is known.

        Raises:
            HostError: Why not; its family says what the caller should do.
        """
        record = Record(pkh, caller)
        try:
            signature = await self._sign(record, message, version)
        except HostError as error:
            self._refused(record, error)
            raise
        record.log(f"Signed {record.kind} successfully")
        self._ended(record)
        return signature

    async def _sign(self, record: Record, message: bytes, version: SigningVersion) -> Signature:
        pkh, caller = record.pkh, record.caller
        policy = self._policy(pkh, caller)
        if policy.log_payloads:
            record.raw = message
        kind = kind_of_large(message)
        request = parse_message(message) if kind is None else await self._parse_large(kind, message, record, policy)
        record.note(request)
        vault = await find_vault(self._vaults, pkh)
        record.vault_name = vault.name
        policy.check(request, caller)
        record.end("check")
        await self._ask_hook(record, message)
        key = await vault.ready_key(pkh, version)
        record.end("ready")
        if isinstance(request, ConsensusMessage):
            _check_bakes(pkh, key.public_key.key_type)
            await self._mark(pkh, request, message)
            record.end("watermark")
        signature = await vault.sign_with(key, message, version)
        record.end("sign")
        return signature

    async def _parse_large(self, kind: str, message: bytes, record: Record, policy: KeyPolicy) -> Message:
        record.kind = kind
        record.vault_name = (await find_vault(self._vaults, record.pkh)).name
        policy.check_kind(kind, record.caller)
        return await self._large.compute(record.caller.source, len(message), parse_message, message)

    async def prove_possession(
        self, pkh: str, caller: Caller = ANYONE, *, bound_to: PublicKey | None = None
    ) -> Signature:
        """Return a verified proof that a tz4 key is held here.

        Args:
            pkh: The key's hash, as text.
            caller: Who asks, as far as that is known.
            bound_to: The key that the proof is for; None: the key itself. For another one, the policy must name it.

        Raises:
            HostError: Why not; its family says what the caller should do.
        """
        record = Record(pkh, caller)
        try:
            proof = await self._prove(record, bound_to)
        except HostError as error:
            self._refused(record, error)
            raise
        record.log("Possession proved successfully")
        self._ended(record)
        return proof

    async def _prove(self, record: Record, bound_to: PublicKey | None) -> Signature:
        pkh, caller = record.pkh, record.caller
        record.kind = "proof_of_possession"
        policy = self._policy(pkh, caller)
        vault = await find_vault(self._vaults, pkh)
        record.vault_name = vault.name
        if not check_public_key_hash(pkh).facts.proves_possession:
            raise MalformedRequest("proof of possession is not supported: only tz4 keys have it")
        record.proof_for = other = None if bound_to is None or public_key_hash(bound_to) == pkh else bound_to
        policy.check_proof(caller, other)
        record.end("check")
        await self._ask_hook(record, None)
        proof = await vault.prove_possession(pkh, other)
        record.end("sign")
        return proof

    def _policy(self, pkh: str, caller: Caller) -> KeyPolicy:
        policy = self.policies.get(pkh)
        if policy is None:
            raise PolicyDenied(f"{pkh} is not listed in config", violation="not_listed")
        policy.check_user(pkh, caller)
        return policy

    async def _ask_hook(self, record: Record, message: bytes | None) -> None:
        if self._hook is not None:
            await self._hook.check(record.pkh, message, record.caller)
            record.end("hook")

    def _refused(self, record: Record, error: HostError) -> None:
        record.error = error
        record.log_refusal(error)
        self._ended(record)

    def _ended(self, record: Record) -> None:
        if self._observer is not None:
            self._observer.ended(record)

    async def _mark(self, pkh: str, request: ConsensusMessage, message: bytes) -> None:
        mark = mark_of(request, message)
        try:
            with self._mark_limit.wait():
                await self._watermark.advance(MarkKey(request.chain_id, pkh, request.kind.right), mark)
        except TimeoutError:
            late = f"the watermark was not stored within {MARK_S:g} s: look at what keeps it (`watermark` in the configuration)"
            raise StoreUnavailable(late) from None

    async def public_key(self, pkh: str) -> PublicKey:
        """Return the public key of any key in a vault, listed or not.

        Raises:
            KeyNotFound: No vault holds it.
            EnclaveRefused: It is out of service.
            EnclaveUnavailable: It was never opened here, and the enclave cannot be reached.
        """
        vault = await find_vault(self._vaults, pkh)
        return (await vault.opened_key(pkh)).public_key

    def known_keys(self) -> Iterator[str | None]:
        """Yield the hashes of the keys that are listed and in service, in the order of the configuration.

        None stands for a key that is not; there may be thousands, and somebody else may have a turn after each.
        """
        # Replaced as a whole, and never changed.
        for pkh in self.policies:
            yield pkh if any(vault.opened(pkh) for vault in self._vaults) else None


def _check_bakes(pkh: str, key_type: KeyType) -> None:
    """Return when a key may sign consensus messages, whatever its policy says.

    Raises:
        PolicyDenied: No key of its curve may.
    """
    if not key_type.facts.bakes:
        raise PolicyDenied(
            f"{key_type.facts.address} keys never bake: {pkh} signs operations only", violation="never_bakes"
        )
