"""What a key may sign, and for whom: clients, chains, request kinds, and operation kinds within `generic`.

- Everything that is not allowed is denied, and a key that is not listed signs nothing.
- A list that is absent allows any client, user or chain; an empty one allows none.

Source: Signatory's policies (its names, its default for a key without a policy, its texts, its order of questions).
"""

from dataclasses import dataclass
from typing import Final, Literal

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import ConsensusMessage
from host_backend.errors import PolicyDenied, ProofDenied
from host_backend.operations.messages import GenericMessage, Message, request_kind


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as the server knows.

    Attributes:
        client: Hash of the key that signed the request; None when none did.
        user: Whose token came with it; None when there was none.
        source: The network address; empty when there is none.
    """

    client: str | None = None
    user: str | None = None
    source: str = ""


#: In `proofs_for`: every public key.
ANY: Final = "any"
#: Public keys for which a key gives proofs of possession, beside its own.
ProofKeys = frozenset[PublicKey] | Literal["any"]

#: An unknown caller, as on a server without authentication.
ANYONE = Caller()


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What one key may sign, and for whom."""

    requests: frozenset[str]
    operations: frozenset[str] = frozenset()
    #: Chains (`Net…`) of consensus messages; None: any. Other messages name no chain.
    chains: frozenset[str] | None = None
    #: Hashes of keys whose requests are taken; None: any.
    clients: frozenset[str] | None = None
    #: Users whose tokens are taken; None: any.
    users: frozenset[str] | None = None
    allow_proof_of_possession: bool = False
    #: Whether a request for a proof need not be signed, where other requests must be.
    unsigned_proofs: bool = False
    #: Public keys other than its own for which it gives a proof.
    proofs_for: ProofKeys = frozenset()
    #: Whether its messages may stand in the log.
    log_payloads: bool = False

    @property
    def allows_nothing(self) -> bool:
        """Whether every request for this key is denied."""
        return not self.requests and not self.allow_proof_of_possession

    def check_user(self, pkh: str, caller: Caller) -> None:
        """Pass when this user may use the key.

        Raises:
            PolicyDenied: Not this one.
        """
        if self.users is not None and caller.user not in self.users:
            raise PolicyDenied(f"user `{caller.user or ''}' is not authorized to access {pkh}", violation="jwt_user")

    def check(self, message: Message, caller: Caller = ANYONE) -> None:
        """Pass when this client may have this message signed.

        Raises:
            PolicyDenied: The chain, the client, the kind of request, or the first operation kind, that is not allowed.
        """
        if isinstance(message, ConsensusMessage) and self.chains is not None and message.chain_id not in self.chains:
            raise PolicyDenied(f"chain `{message.chain_id}' is not allowed", violation="chain")
        self.check_kind(request_kind(message), caller)
        if isinstance(message, GenericMessage):
            self._check_operations(message)

    def check_kind(self, kind: str, caller: Caller = ANYONE) -> None:
        """Pass when this client may have messages of a kind signed, as far as nothing else in them forbids it.

        Raises:
            PolicyDenied: The client, or the kind, that is not allowed.
        """
        self._check_client(caller)
        if kind not in self.requests:
            raise PolicyDenied(f"request kind `{kind}' is not allowed", violation=kind)

    def check_proof(self, caller: Caller, other: PublicKey | None = None) -> None:
        """Pass when this client may have possession of the key proved.

        Args:
            caller: Who asks.
            other: The key that the proof is for; None: this one itself.

        Raises:
            PolicyDenied: Not by this client.
            ProofDenied: Not at all, or not for that key.
        """
        if caller.client is not None or not self.unsigned_proofs:
            self._check_client(caller)
        if not self.allow_proof_of_possession:
            raise ProofDenied("proof of possession is not allowed", violation="proof_of_possession")
        if other is not None and self.proofs_for != ANY and other not in self.proofs_for:
            raise ProofDenied(
                "proof of possession for another key is not allowed: name it in `allow_proof_of_possession: {others: […]}`",
                violation="proof_of_possession",
            )

    def _check_client(self, caller: Caller) -> None:
        if self.clients is None:
            return
        if caller.client is None:
            raise PolicyDenied("authentication required", violation="authentication")
        if caller.client not in self.clients:
            raise PolicyDenied(f"client `{caller.client}' is not allowed", violation="authentication")

    def _check_operations(self, message: GenericMessage) -> None:
        for operation in message.operations:
            if operation not in self.operations and operation.partition(":")[0] not in self.operations:
                raise PolicyDenied(f"operation `{operation}' is not allowed", violation=operation)


#: What a key without a policy of its own may sign: consensus without DAL. Source: Signatory.
DEFAULT_POLICY = KeyPolicy(frozenset({"block", "preattestation", "attestation"}))
