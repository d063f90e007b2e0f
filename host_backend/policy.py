"""What a key may sign: request kinds, and operation kinds within `generic`. Everything else is denied.

Source: Signatory's `allow` (its names, its default for a key without a policy, its texts).
"""

from dataclasses import dataclass

from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import PolicyDenied
from host_backend.operations import Message, request_kind

#: Kinds of request that a policy may allow; `pack` is one of Signatory's that this version does not have.
REQUEST_KINDS = ("attestation", "attestation_with_dal", "block", "generic", "preattestation")

#: Kinds of operation that a policy may allow, also those that this version cannot read yet and so refuses.
#: Source: Signatory's `list-ops`.
OPERATION_KINDS = frozenset(
    {
        "activate_account",
        "attestations_aggregate",
        "ballot",
        "dal_entrapment_evidence",
        "dal_publish_commitment",
        "delegation",
        "double_baking_evidence",
        "double_consensus_operation_evidence",
        "drain_delegate",
        "failing_noop",
        "finalize_unstake",
        "increase_paid_storage",
        "origination",
        "preattestations_aggregate",
        "proposals",
        "register_global_constant",
        "reveal",
        "seed_nonce_revelation",
        "set_delegate_parameters",
        "set_deposits_limit",
        "signature_prefix",
        "smart_rollup_add_messages",
        "smart_rollup_cement",
        "smart_rollup_execute_outbox_message",
        "smart_rollup_originate",
        "smart_rollup_publish",
        "smart_rollup_recover_bond",
        "smart_rollup_refute",
        "smart_rollup_timeout",
        "stake",
        "transaction",
        "transfer_ticket",
        "unstake",
        "update_companion_key",
        "update_consensus_key",
        "vdf_revelation",
        "zk_rollup_origination",
        "zk_rollup_publish",
        "zk_rollup_update",
    }
)
#: `ballot` alone allows all three.
BALLOT_KINDS = frozenset({"ballot:yay", "ballot:nay", "ballot:pass"})


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
