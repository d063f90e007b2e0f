"""What a key may sign: request kinds, and operation kinds within `generic`. Everything else is denied.

Source: Signatory's `allow` (its names, its default for a key without a policy, its texts).
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

    def check(self, message: Message) -> None:
        """Pass, or raise.

        Raises:
            PolicyDenied: The kind of request, or the first operation kind, that is not allowed.
        """
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
