"""What a key may sign: chains, request kinds, and operation kinds within `generic`. Everything else is denied.

Source: Signatory's `allow` and `allowed_chains` (its names, its default for a key without a policy, its texts).
"""

from dataclasses import dataclass

from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import PolicyDenied
from host_backend.operations import Message, request_kind


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What one key may sign."""

    requests: frozenset[str]
    operations: frozenset[str] = frozenset()
    #: Chains (`Net…`) of consensus messages; None: any. Other messages name no chain.
    chains: frozenset[str] | None = None

    def check(self, message: Message) -> None:
        """Pass, or raise.

        Raises:
            PolicyDenied: The chain, the kind of request, or the first operation kind, that is not allowed.
        """
        if isinstance(message, ConsensusMessage) and self.chains is not None and message.chain_id not in self.chains:
            raise PolicyDenied(f"chain `{message.chain_id}' is not allowed")
        kind = request_kind(message)
        if kind not in self.requests:
            raise PolicyDenied(f"request kind `{kind}' is not allowed")
        if isinstance(message, ConsensusMessage):
            return
        for operation in message.operations:
            if operation not in self.operations and operation.partition(":")[0] not in self.operations:
                raise PolicyDenied(f"operation `{operation}' is not allowed")


#: What a key without a policy of its own may sign: consensus without DAL. Source: Signatory.
DEFAULT_POLICY = KeyPolicy(frozenset({"block", "preattestation", "attestation"}))
