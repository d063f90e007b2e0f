"""The record of one request: its log line, and its metrics.

- One line a request, with Signatory's words and names of fields, the outcome, and milliseconds per stage.
- A message stands in the log only if its key's policy says `log_payloads`, whether it is signed or refused.
"""

import logging
import time
from collections import Counter
from functools import partial
from typing import Literal

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import ConsensusMessage, encode_public_key
from host_backend.errors import HostError
from host_backend.log import fields, fields_later
from host_backend.operations.messages import GenericMessage, Message, request_kind
from host_backend.policy import Caller

logger = logging.getLogger(__name__)

#: The name that Signatory gives the vaults of this driver, wherever it shows one.
VAULT_DRIVER = "ConfidentialSpace"

#: The stages of a request, in order: until the policy was asked; the policy hook; waiting for the
#: link to the enclave; the mark; the enclave.
Stage = Literal["check", "hook", "ready", "watermark", "sign"]


class Record:
    """One request for a signature or a proof, from its beginning to its end."""

    __slots__ = (
        *("_since", "caller", "error", "kind", "message", "pkh", "proof_for", "raw", "stages", "started", "vault_name"),
    )

    def __init__(self, pkh: str, caller: Caller) -> None:
        self.pkh = pkh
        self.caller = caller
        self.kind = "request"
        self.message: Message | None = None
        #: The message as it came, where it may stand in the log.
        self.raw: bytes | None = None
        self.vault_name = ""
        #: The key that a proof is for, if it is another one.
        self.proof_for: PublicKey | None = None
        #: Seconds that each stage took, as far as the request came.
        self.stages: list[tuple[Stage, float]] = []
        self.error: HostError | None = None
        self.started = self._since = time.perf_counter()

    def note(self, message: Message) -> None:
        """Note the message to sign."""
        self.message = message
        self.kind = request_kind(message)

    def end(self, stage: Stage) -> None:
        """Take note that a stage has ended, and the next one begins."""
        now = time.perf_counter()
        self.stages.append((stage, now - self._since))
        self._since = now

    @property
    def seconds_in_stage(self) -> float:
        """Seconds since the present stage began."""
        return time.perf_counter() - self._since

    @property
    def chain_id(self) -> str:
        """The chain of a consensus message; empty for others, which name none."""
        return self.message.chain_id if isinstance(self.message, ConsensusMessage) else ""

    def log(self, done: str) -> None:
        """Write the line of a request that was granted."""
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", done, extra=self._extra(200))

    def log_refusal(self, error: HostError) -> None:
        """Write the line of a request that was refused, or failed."""
        if logger.isEnabledFor(error.log_level):
            logger.log(error.log_level, "%s", error, extra=self._extra(error.http_status))

    def _extra(self, status: int) -> dict[str, object]:
        # Bakers' lines are made by the thread of the log. What waits for it must be small: no payload, no traceback.
        if self.error is None and self.raw is None and isinstance(self.message, ConsensusMessage):
            return fields_later(partial(self._fields, status))
        return fields(**self._fields(status))

    def _fields(self, status: int) -> dict[str, object]:
        values: dict[str, object] = {"pkh": self.pkh, "status": status}
        if self.vault_name:
            values["vault"] = VAULT_DRIVER
            values["vault_name"] = self.vault_name
        if self.caller.client is not None:
            values["client_pkh"] = self.caller.client
        if self.caller.user is not None:
            values["user"] = self.caller.user
        if self.proof_for is not None:
            values["proof_for"] = encode_public_key(self.proof_for)
        message = self.message
        if message is not None:
            values |= {"request": self.kind, **_operations(message)}
        if isinstance(message, ConsensusMessage):
            values |= {"chain_id": message.chain_id, "lvl": message.level, "round": message.round}
        if self.raw is not None:
            values["raw"] = self.raw.hex()
        for stage, seconds in self.stages:
            values[f"{stage}_ms"] = round(seconds * 1e3, 2)
        return values


def _operations(message: Message) -> dict[str, object]:
    """Return how often a message has each kind of operation, and how many in all."""
    if not isinstance(message, GenericMessage):
        return {"ops": {request_kind(message): 1}, "ops_total": 1}
    counts = Counter(name.partition(":")[0] for name in message.operations)
    return {"ops": dict(counts), "ops_total": counts.total()}
