"""The pipeline of one signing request. The only file that decides order.

    listed → parse → find → policy → ready → mark, durably → sign, verified → log

What stops a request raises; nothing is signed after a raise, and nothing is sent to the enclave before the mark of a
consensus message is durable.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from enclave_signer.protocol.messages import PublicKey, Signature, SigningVersion
from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import HostError, PolicyDenied, StoreUnavailable
from host_backend.log import fields
from host_backend.operations import Message, parse_message, request_kind
from host_backend.policy import ANYONE, Caller, KeyPolicy
from host_backend.vault import Vault
from host_backend.vaults import find_vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.rule import Mark, MarkKey

logger = logging.getLogger(__name__)

#: Seconds for a mark to be durable: a disk that takes longer has no answer in time for a block either.
MARK_S = 5.0


class Signer:
    """Decides what is signed, and has it signed.

    Attributes:
        policies: By public-key hash; may be replaced as a whole between two requests.
    """

    def __init__(self, policies: Mapping[str, KeyPolicy], vaults: Sequence[Vault], watermark: WatermarkStore) -> None:
        self.policies = policies
        self._vaults = vaults
        self._watermark = watermark

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
        record = _Record(pkh)
        try:
            signature = await self._sign(record, pkh, message, version, caller)
        except HostError as error:
            record.log_refusal(error)
            raise
        record.log_signature()
        return signature

    async def _sign(
        self, record: "_Record", pkh: str, message: bytes, version: SigningVersion, caller: Caller
    ) -> Signature:
        policy = self.policies.get(pkh)
        if policy is None:
            raise PolicyDenied(f"{pkh} is not listed in config")
        policy.check_user(pkh, caller)
        request = parse_message(message)
        record.note(request)
        vault = await find_vault(self._vaults, pkh)
        policy.check(request, caller)
        key = await vault.ready_key(pkh, version)
        if isinstance(request, ConsensusMessage):
            await self._mark(pkh, request, message)
        record.marked()
        return await vault.sign_with(key, message, version)

    async def _mark(self, pkh: str, request: ConsensusMessage, message: bytes) -> None:
        mark = Mark(request.level, request.round, blake2b(message, digest_size=32).digest())
        try:
            async with asyncio.timeout(MARK_S):
                await self._watermark.advance(MarkKey(request.chain_id, pkh, request.kind.right), mark)
        except TimeoutError:
            raise StoreUnavailable(f"the watermark was not stored within {MARK_S:g} s: look at the disk") from None

    async def public_key(self, pkh: str) -> PublicKey:
        """Return the public key of any key in a vault, listed or not.

        Raises:
            KeyNotFound: No vault holds it.
            EnclaveRefused: It is out of service.
            EnclaveUnavailable: It was never opened here, and the enclave cannot be reached.
        """
        vault = await find_vault(self._vaults, pkh)
        return (await vault.opened_key(pkh)).public_key


class _Record:
    """The one log line of a request."""

    __slots__ = ("_fields", "_kind", "_marked", "_started")

    def __init__(self, pkh: str) -> None:
        self._started = time.perf_counter()
        self._marked = self._started
        self._kind = "request"
        self._fields: dict[str, object] = {"pkh": pkh}

    def note(self, request: Message) -> None:
        self._kind = request_kind(request)
        self._fields["request"] = self._kind
        if isinstance(request, ConsensusMessage):
            self._fields.update(chain_id=request.chain_id, lvl=request.level, round=request.round)
        else:
            self._fields["ops"] = ",".join(request.operations[:20])
            self._fields["ops_total"] = len(request.operations)

    def marked(self) -> None:
        self._marked = time.perf_counter()

    def log_signature(self) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        now = time.perf_counter()
        checked_ms, signed_ms = (self._marked - self._started) * 1e3, (now - self._marked) * 1e3
        extra = fields(**self._fields, checked_ms=f"{checked_ms:.2f}", signed_ms=f"{signed_ms:.2f}")
        logger.info("Signed %s successfully", self._kind, extra=extra)

    def log_refusal(self, error: HostError) -> None:
        logger.log(error.log_level, "%s", error, extra=fields(**self._fields, status=error.http_status))
