"""What a key may sign; everything else is denied."""

from dataclasses import replace

import pytest

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import ConsensusKind, ConsensusMessage
from host_backend.errors import PolicyDenied, ProofDenied
from host_backend.operations.messages import REQUEST_KINDS, GenericMessage, Message, PackedMessage
from host_backend.operations.table import OPERATION_KINDS
from host_backend.policy import ANY, ANYONE, DEFAULT_POLICY, Caller, KeyPolicy


def names(text: str) -> list[str]:
    return text.split()


#: What `signatory-cli list-ops` prints.
SIGNATORY_OPERATIONS = names(
    """
    activate_account attestations_aggregate ballot dal_entrapment_evidence dal_publish_commitment delegation
    double_baking_evidence double_consensus_operation_evidence drain_delegate failing_noop finalize_unstake
    increase_paid_storage origination preattestations_aggregate proposals register_global_constant reveal
    seed_nonce_revelation set_delegate_parameters set_deposits_limit signature_prefix smart_rollup_add_messages
    smart_rollup_cement smart_rollup_execute_outbox_message smart_rollup_originate smart_rollup_publish
    smart_rollup_recover_bond smart_rollup_refute smart_rollup_timeout stake transaction transfer_ticket unstake
    update_companion_key update_consensus_key vdf_revelation zk_rollup_origination zk_rollup_publish zk_rollup_update
    """
)
#: What `signatory-cli list-requests` prints.
SIGNATORY_REQUESTS = names("attestation attestation_with_dal block generic pack preattestation")
BALLOTS = {"ballot:yay", "ballot:nay", "ballot:pass"}


def consensus(kind: ConsensusKind) -> ConsensusMessage:
    return ConsensusMessage(kind, "NetXo5iVw1vBoxM", 1, 0)


def denied(policy: KeyPolicy, message: Message, caller: Caller = ANYONE) -> str:
    with pytest.raises(PolicyDenied) as refusal:
        policy.check(message, caller)
    return str(refusal.value)


def test_the_names_are_signatory_s() -> None:
    assert len(SIGNATORY_OPERATIONS) == len(set(SIGNATORY_OPERATIONS)) == 39
    assert set(SIGNATORY_OPERATIONS) == OPERATION_KINDS - BALLOTS
    assert OPERATION_KINDS >= BALLOTS
    assert set(SIGNATORY_REQUESTS) == REQUEST_KINDS


def test_an_empty_policy_denies_everything() -> None:
    policy = KeyPolicy(frozenset())
    for kind in ConsensusKind:
        assert denied(policy, consensus(kind)) == f"request kind `{kind}' is not allowed"
    assert denied(policy, GenericMessage(("reveal",))) == "request kind `generic' is not allowed"


def test_the_default_policy_is_consensus_without_dal() -> None:
    for kind in (ConsensusKind.BLOCK, ConsensusKind.PREATTESTATION, ConsensusKind.ATTESTATION):
        DEFAULT_POLICY.check(consensus(kind))
    assert denied(DEFAULT_POLICY, consensus(ConsensusKind.ATTESTATION_WITH_DAL)) == (
        "request kind `attestation_with_dal' is not allowed"
    )
    assert denied(DEFAULT_POLICY, GenericMessage(("reveal",))) == "request kind `generic' is not allowed"


@pytest.mark.parametrize("kind", ConsensusKind)
def test_each_kind_is_allowed_by_its_own_name_only(kind: ConsensusKind) -> None:
    KeyPolicy(frozenset({kind.value})).check(consensus(kind))
    others = frozenset(REQUEST_KINDS - {kind.value})
    assert denied(KeyPolicy(others, OPERATION_KINDS), consensus(kind)) == f"request kind `{kind}' is not allowed"


def test_every_operation_of_a_batch_must_be_allowed_and_the_first_denied_is_named() -> None:
    policy = KeyPolicy(frozenset({"generic"}), frozenset({"reveal", "transaction"}))
    policy.check(GenericMessage(("reveal", "transaction", "transaction")))
    batch = GenericMessage(("reveal", "delegation", "origination", "transaction"))
    assert denied(policy, batch) == "operation `delegation' is not allowed"
    assert denied(KeyPolicy(frozenset({"generic"})), batch) == "operation `reveal' is not allowed"


def test_operations_without_the_kind_generic_mean_nothing() -> None:
    policy = KeyPolicy(frozenset({"block"}), frozenset({"transaction"}))
    assert denied(policy, GenericMessage(("transaction",))) == "request kind `generic' is not allowed"


def test_packed_data_is_all_or_nothing() -> None:
    packed = PackedMessage()
    KeyPolicy(frozenset({"pack"})).check(packed)
    others = frozenset(REQUEST_KINDS - {"pack"})
    assert denied(KeyPolicy(others, OPERATION_KINDS), packed) == "request kind `pack' is not allowed"


def test_ballots() -> None:
    every = KeyPolicy(frozenset({"generic"}), frozenset({"ballot"}))
    one = KeyPolicy(frozenset({"generic"}), frozenset({"ballot:nay"}))
    for ballot in BALLOTS:
        every.check(GenericMessage((ballot,)))
    one.check(GenericMessage(("ballot:nay",)))
    assert denied(one, GenericMessage(("ballot:nay", "ballot:yay"))) == "operation `ballot:yay' is not allowed"


@pytest.mark.parametrize("name", ["stake", "unstake", "finalize_unstake", "set_delegate_parameters"])
def test_staking_and_transactions_do_not_cover_each_other(name: str) -> None:
    transactions = KeyPolicy(frozenset({"generic"}), frozenset({"transaction"}))
    staking = KeyPolicy(frozenset({"generic"}), frozenset({name}))
    assert denied(transactions, GenericMessage((name,))) == f"operation `{name}' is not allowed"
    assert denied(staking, GenericMessage(("transaction",))) == "operation `transaction' is not allowed"
    staking.check(GenericMessage((name,)))


def test_only_known_clients_of_the_list_may_ask() -> None:
    policy = KeyPolicy(frozenset({"block"}), clients=frozenset({"tz1a"}))
    message = consensus(ConsensusKind.BLOCK)
    policy.check(message, Caller(client="tz1a"))
    assert denied(policy, message) == "authentication required"
    assert denied(policy, message, Caller(client="tz1b")) == "client `tz1b' is not allowed"
    nobody = KeyPolicy(frozenset({"block"}), clients=frozenset())
    assert denied(nobody, message) == "authentication required"
    assert denied(nobody, message, Caller(client="tz1a")) == "client `tz1a' is not allowed"


def test_proofs_are_for_clients_of_the_list_as_well() -> None:
    policy = KeyPolicy(frozenset(), clients=frozenset({"tz1a"}), allow_proof_of_possession=True)
    policy.check_proof(Caller(client="tz1a"))
    for caller in (ANYONE, Caller(client="tz1b")):
        with pytest.raises(PolicyDenied) as refusal:
            policy.check_proof(caller)
        assert refusal.value.http_status == 403
    with pytest.raises(PolicyDenied, match=r"^proof of possession is not allowed$") as refusal:
        KeyPolicy(frozenset()).check_proof(ANYONE)
    assert refusal.value.http_status == 400


def test_proofs_for_other_keys_are_named() -> None:
    named, stranger = (PublicKey(KeyType.BLS, bytes([number]) * 48) for number in (1, 2))
    own = KeyPolicy(frozenset(), allow_proof_of_possession=True)
    some = replace(own, proofs_for=frozenset({named}))
    for policy in (own, some, replace(own, proofs_for=ANY)):
        policy.check_proof(ANYONE)
    some.check_proof(ANYONE, named)
    replace(own, proofs_for=ANY).check_proof(ANYONE, stranger)
    for policy in (own, some):
        with pytest.raises(ProofDenied, match="for another key is not allowed: name it in"):
            policy.check_proof(ANYONE, stranger)
    with pytest.raises(ProofDenied, match=r"is not allowed$"):
        replace(some, allow_proof_of_possession=False).check_proof(ANYONE, named)


def test_unsigned_requests_for_proofs_are_nobody_s_in_particular() -> None:
    policy = KeyPolicy(frozenset(), clients=frozenset({"tz1a"}), allow_proof_of_possession=True, unsigned_proofs=True)
    policy.check_proof(ANYONE)
    policy.check_proof(Caller(client="tz1a"))
    with pytest.raises(PolicyDenied, match="client `tz1b' is not allowed"):
        policy.check_proof(Caller(client="tz1b"))
    # Nothing else is for anybody.
    with pytest.raises(PolicyDenied, match="authentication required"):
        policy.check_kind("block", ANYONE)


def test_only_users_of_the_list_may_ask() -> None:
    policy = KeyPolicy(frozenset(), users=frozenset({"alice"}))
    policy.check_user("tz1k", Caller(user="alice"))
    for user, name in (("bob", "bob"), (None, "")):
        with pytest.raises(PolicyDenied) as refusal:
            policy.check_user("tz1k", Caller(user=user))
        assert str(refusal.value) == f"user `{name}' is not authorized to access tz1k"
    for caller in (ANYONE, Caller(user="bob")):
        KeyPolicy(frozenset()).check_user("tz1k", caller)
        with pytest.raises(PolicyDenied):
            KeyPolicy(frozenset(), users=frozenset()).check_user("tz1k", caller)


def test_the_order_of_questions_is_signatory_s() -> None:
    policy = KeyPolicy(frozenset(), chains=frozenset(), clients=frozenset())
    message = consensus(ConsensusKind.BLOCK)
    assert denied(policy, message) == "chain `NetXo5iVw1vBoxM' is not allowed"
    assert denied(KeyPolicy(frozenset(), clients=frozenset()), message) == "authentication required"
