"""The one decoding table of operations: what follows each tag, and what a policy calls it.

- Staking is a transaction to oneself with one of four entry points; it has its own names, and `transaction` does not cover it. A
  ballot carries its vote in its name.
- To add an operation is to add a row to `OPERATIONS`, what it can do to the funds included, with vectors in
  `tests/vectors`.

Source: Octez `operation_repr.ml` of the protocols of `enclave_signer.tezos.protocols`, and the generated description of its
encodings (see `parts`); names as `signatory-cli list-ops` prints them; `operations.json`, `protocols.json`,
`forged-operations.json` and `signatory-vectors.json` in `tests/vectors`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from enclave_signer.tezos.protocols import MAX_ENTRY_POINT_BYTES, MAX_PROPOSALS
from host_backend.operations.fields import (
    ENTRY_POINTS,
    IMPLICIT_ACCOUNT,
    ORIGINATED_CONTRACT,
    SMART_ROLLUP,
    ZK_ROLLUP,
    Field,
    account,
    amount,
    big_integer,
    big_natural,
    choice,
    dynamic,
    dynamic_bytes,
    entry_point,
    fixed,
    limited_bytes,
    many,
    not_negative_i32,
    optional,
    optional_of_late,
    public_key,
    public_key_hash,
    record,
    script,
)
from host_backend.operations.parts import (
    attestations_aggregate,
    block_header,
    circuits_info,
    contract,
    inlined_operation,
    int31,
    pending_inputs,
    preattestations_aggregate,
    prefix_curve,
    private_inputs,
    refutation,
    rollup_commitment,
    rollup_operations,
    scalars,
    shard_with_proof,
    signature_prefix,
)
from host_backend.operations.risks import Risk

_BALLOTS = {0: "yay", 1: "nay", 2: "pass"}
_PVM_KINDS = {0: "arith", 1: "wasm_2_0_0", 2: "riscv"}
_STAKING = {
    "stake": Risk.MOVES_FUNDS,
    "unstake": Risk.MOVES_FUNDS,
    "finalize_unstake": Risk.NONE,
    "set_delegate_parameters": Risk.MOVES_FUNDS,
}
_STAKING_ENTRY_POINTS = {ENTRY_POINTS.index(name): name for name in _STAKING}

Values = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the decoding table.

    Attributes:
        kind: The name of the operation.
        risk: What it can do to the funds of its signer.
        fields: What follows its tag.
        name: Makes the policy's name from the raw bytes of the fields, where it is not the kind itself.
        managed: Whether it is a manager operation, of which one message may have several.
    """

    kind: str
    risk: Risk
    fields: tuple[tuple[str, Field], ...]
    name: Callable[[Values], str] | None = None
    managed: bool = False


_MANAGER = (
    ("source", public_key_hash),
    ("fee", amount),
    ("counter", amount),
    ("gas_limit", amount),
    ("storage_limit", amount),
)


def _managed(
    kind: str, risk: Risk, *fields: tuple[str, Field], name: Callable[[Values], str] | None = None
) -> Operation:
    """Make the row of an operation that begins with the fields of a manager operation."""
    return Operation(kind, risk, (*_MANAGER, *fields), name, managed=True)


def _transaction_name(values: Values) -> str:
    """Name a transaction; staking is one to the source itself."""
    flag_and_entry_point = values["parameters"][:2]
    to_itself = values["destination"] == bytes([IMPLICIT_ACCOUNT]) + values["source"]
    if to_itself and len(flag_and_entry_point) == 2:
        return _STAKING_ENTRY_POINTS.get(flag_and_entry_point[1], "transaction")
    return "transaction"


def _ballot_name(values: Values) -> str:
    return f"ballot:{_BALLOTS[values['ballot'][0]]}"


# Octez itself takes implicit and originated accounts only; libraries write the rollups' tags, too.
_destination = account(IMPLICIT_ACCOUNT, ORIGINATED_CONTRACT, SMART_ROLLUP, ZK_ROLLUP)
_parameters = optional(record(("entrypoint", entry_point), ("value", script)))
_proof = dynamic(fixed(96))
_rollup = ("rollup", fixed(20))
SIGNATURE_PREFIX = "signature_prefix"

#: Tag to operation.
OPERATIONS: Mapping[int, Operation] = MappingProxyType(
    {
        1: Operation("seed_nonce_revelation", Risk.NONE, (("level", not_negative_i32), ("nonce", fixed(32)))),
        2: Operation(
            "double_consensus_operation_evidence",
            Risk.NONE,
            (("slot", fixed(2)), ("op1", inlined_operation), ("op2", inlined_operation)),
        ),
        3: Operation("double_baking_evidence", Risk.NONE, (("bh1", block_header), ("bh2", block_header))),
        4: Operation("activate_account", Risk.NONE, (("pkh", fixed(20)), ("secret", fixed(20)))),
        5: Operation(
            "proposals",
            Risk.NONE,
            (
                ("source", public_key_hash),
                ("period", not_negative_i32),
                ("proposals", many(fixed(32), MAX_PROPOSALS)),
            ),
        ),
        6: Operation(
            "ballot",
            Risk.NONE,
            (
                ("source", public_key_hash),
                ("period", not_negative_i32),
                ("proposal", fixed(32)),
                ("ballot", choice(_BALLOTS)),
            ),
            _ballot_name,
        ),
        8: Operation("vdf_revelation", Risk.NONE, (("solution", fixed(200)),)),
        9: Operation(
            "drain_delegate",
            Risk.HANDS_OVER,
            (("consensus_key", public_key_hash), ("delegate", public_key_hash), ("destination", public_key_hash)),
        ),
        17: Operation("failing_noop", Risk.NONE, (("arbitrary", dynamic_bytes),)),
        24: Operation(
            "dal_entrapment_evidence",
            Risk.NONE,
            (
                ("attestation", inlined_operation),
                ("consensus_slot", fixed(2)),
                ("slot_index", fixed(1)),
                ("shard_with_proof", shard_with_proof),
            ),
        ),
        30: Operation("preattestations_aggregate", Risk.NONE, preattestations_aggregate),
        31: Operation("attestations_aggregate", Risk.NONE, attestations_aggregate),
        # Until protocol 022 it had no proof.
        107: _managed("reveal", Risk.NONE, ("public_key", public_key), ("proof", optional_of_late(_proof))),
        108: _managed(
            "transaction",
            Risk.MOVES_FUNDS,
            ("amount", amount),
            ("destination", _destination),
            ("parameters", _parameters),
            name=_transaction_name,
        ),
        109: _managed(
            "origination",
            Risk.MOVES_FUNDS,
            ("balance", amount),
            ("delegate", optional(public_key_hash)),
            ("code", script),
            ("storage", script),
        ),
        110: _managed("delegation", Risk.MOVES_FUNDS, ("delegate", optional(public_key_hash))),
        111: _managed("register_global_constant", Risk.MOVES_FUNDS, ("value", script)),
        112: _managed("set_deposits_limit", Risk.NONE, ("limit", optional(amount))),
        113: _managed(
            "increase_paid_storage",
            Risk.MOVES_FUNDS,
            ("amount", big_integer),
            ("destination", account(ORIGINATED_CONTRACT)),
        ),
        # Until protocol 021 it had no proof; recorded messages end without.
        114: _managed("update_consensus_key", Risk.HANDS_OVER, ("pk", public_key), ("proof", optional_of_late(_proof))),
        115: _managed("update_companion_key", Risk.MOVES_FUNDS, ("pk", public_key), ("proof", optional(_proof))),
        158: _managed(
            "transfer_ticket",
            Risk.MOVES_FUNDS,
            ("ticket_contents", script),
            ("ticket_ty", script),
            ("ticket_ticketer", contract),
            ("ticket_amount", big_natural),
            ("destination", contract),
            ("entrypoint", limited_bytes(MAX_ENTRY_POINT_BYTES)),
        ),
        200: _managed(
            "smart_rollup_originate",
            Risk.NONE,
            ("pvm_kind", choice(_PVM_KINDS)),
            ("kernel", dynamic_bytes),
            ("parameters_ty", script),
            ("whitelist", optional(many(public_key_hash))),
        ),
        201: _managed("smart_rollup_add_messages", Risk.NONE, ("message", many(dynamic_bytes))),
        202: _managed("smart_rollup_cement", Risk.NONE, _rollup),
        203: _managed("smart_rollup_publish", Risk.NONE, _rollup, ("commitment", rollup_commitment)),
        204: _managed(
            "smart_rollup_refute", Risk.NONE, _rollup, ("opponent", public_key_hash), ("refutation", refutation)
        ),
        205: _managed(
            "smart_rollup_timeout",
            Risk.NONE,
            _rollup,
            ("stakers", record(("alice", public_key_hash), ("bob", public_key_hash))),
        ),
        206: _managed(
            "smart_rollup_execute_outbox_message",
            Risk.MOVES_FUNDS,
            _rollup,
            ("cemented_commitment", fixed(32)),
            ("output_proof", dynamic_bytes),
        ),
        207: _managed("smart_rollup_recover_bond", Risk.NONE, _rollup, ("staker", public_key_hash)),
        230: _managed(
            "dal_publish_commitment",
            Risk.NONE,
            ("slot_index", fixed(1)),
            ("commitment", fixed(48)),
            ("commitment_proof", fixed(96)),
        ),
        250: _managed(
            "zk_rollup_origination",
            Risk.NONE,
            ("public_parameters", dynamic_bytes),
            ("circuits_info", circuits_info),
            ("init_state", scalars),
            ("nb_ops", int31),
        ),
        251: _managed("zk_rollup_publish", Risk.NONE, ("zk_rollup", fixed(20)), ("op", rollup_operations)),
        252: _managed(
            "zk_rollup_update",
            Risk.NONE,
            ("zk_rollup", fixed(20)),
            ("pending_pis", pending_inputs),
            ("private_pis", private_inputs),
            ("fee_pi", scalars),
            ("proof", dynamic_bytes),
        ),
        # No operation, but the beginning of a long signature, as a signed batch carries it at its end.
        255: Operation(SIGNATURE_PREFIX, Risk.NONE, (("curve", prefix_curve), ("prefix", signature_prefix))),
    }
)

#: Names of operations that a message can have and a policy can allow, and what each can do; `ballot` stands for all
#: three votes.
RISKS: Mapping[str, Risk] = MappingProxyType(
    {
        **{row.kind: row.risk for row in OPERATIONS.values()},
        **{f"ballot:{vote}": Risk.NONE for vote in _BALLOTS.values()},
        **_STAKING,
    }
)
OPERATION_KINDS = frozenset(RISKS)
