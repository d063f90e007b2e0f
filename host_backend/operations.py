"""What a message asks to have signed: the one decoding table of operations, and the door to consensus messages.

- A message is decoded whole, or refused: no byte is signed whose meaning was not looked at.
- A generic message has at least one operation, and each is named as the policy names it.
- Staking is a transaction to oneself with one of four entry points; it has its own names, and `transaction` does not cover it. A
  ballot carries its vote in its name.
- Packed data is one Micheline value. It has no operations: a policy allows it as a whole or not at all.
- To add an operation is to add a row to `OPERATIONS`, with vectors in `tests/vectors`.

Source: Octez `operation_repr.ml` and the generated description of its encodings (protocol 024, see `operation_parts`); names as
`signatory-cli list-ops` prints them; `operations.json`, `forged-operations.json` and `signatory-vectors.json` in `tests/vectors`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from enclave_signer.protocol.codec import MAX_MESSAGE_BYTES
from enclave_signer.tezos import CONSENSUS_MAGIC, ConsensusKind, ConsensusMessage, MalformedMessage, parse_consensus
from host_backend.errors import MalformedRequest
from host_backend.operation_fields import (
    ENTRY_POINT_NAME_LIMIT_BYTES,
    ENTRY_POINTS,
    IMPLICIT_ACCOUNT,
    ORIGINATED_CONTRACT,
    SMART_ROLLUP,
    ZK_ROLLUP,
    BadField,
    Field,
    Reader,
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
    micheline,
    not_negative_i32,
    optional,
    optional_of_late,
    public_key,
    public_key_hash,
    record,
    script,
)
from host_backend.operation_parts import (
    attestations_aggregate,
    block_header,
    circuits_info,
    contract,
    inlined_operation,
    int31,
    pending_inputs,
    preattestations_aggregate,
    private_inputs,
    refutation,
    rollup_commitment,
    rollup_operations,
    scalars,
    shard_with_proof,
)

GENERIC_MAGIC = 0x03
PACK_MAGIC = 0x05
_GENERIC = "generic"
_PACK = "pack"
#: Names of request kinds that a policy may allow.
REQUEST_KINDS = frozenset({_GENERIC, _PACK, *ConsensusKind})
#: Protocols whose operations the table knows: 024, Tallinn. Source: Octez `proto_024_PtTALLiN/lib_protocol/TEZOS_PROTOCOL`.
PROTOCOLS = ("PtTALLiNtPec7mE7yY4m3k26J8Qukef3E3ehzhfXgFZKGtDdAXu",)
#: Source: Octez `constants_repr.ml`, `max_proposals_per_delegate`.
PROPOSALS_LIMIT = 20

_BRANCH_BYTES = 32
_BALLOTS = {0: "yay", 1: "nay", 2: "pass"}
_PVM_KINDS = {0: "arith", 1: "wasm_2_0_0", 2: "riscv"}
_STAKING = ("stake", "unstake", "finalize_unstake", "set_delegate_parameters")
_STAKING_ENTRY_POINTS = {ENTRY_POINTS.index(name): name for name in _STAKING}

Values = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class GenericMessage:
    """One or more operations under one signature.

    Attributes:
        operations: Their names as the policy knows them, in order, at least one: `transaction`, `stake`, `ballot:nay`.
    """

    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackedMessage:
    """One packed Micheline value, such as contracts check signatures of.

    Attributes:
        operations: Always empty: there is nothing in it that a policy could tell apart.
    """

    operations: ClassVar[tuple[str, ...]] = ()


Message = ConsensusMessage | GenericMessage | PackedMessage


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the decoding table.

    Attributes:
        kind: The name of the operation.
        fields: What follows its tag.
        name: Makes the policy's name from the raw bytes of the fields, where it is not the kind itself.
    """

    kind: str
    fields: tuple[tuple[str, Field], ...]
    name: Callable[[Values], str] | None = None


_MANAGER = (
    ("source", public_key_hash),
    ("fee", amount),
    ("counter", amount),
    ("gas_limit", amount),
    ("storage_limit", amount),
)


def _managed(kind: str, *fields: tuple[str, Field], name: Callable[[Values], str] | None = None) -> Operation:
    """Make the row of an operation that begins with the fields of a manager operation."""
    return Operation(kind, (*_MANAGER, *fields), name)


def _transaction_name(values: Values) -> str:
    """Name a transaction; staking is one to the source itself."""
    flag_and_entry_point = values["parameters"][:2]
    to_itself = values["destination"] == bytes([IMPLICIT_ACCOUNT]) + values["source"]
    if to_itself and len(flag_and_entry_point) == 2:
        return _STAKING_ENTRY_POINTS.get(flag_and_entry_point[1], "transaction")
    return "transaction"


def _ballot_name(values: Values) -> str:
    return f"ballot:{_BALLOTS[values['ballot'][0]]}"


# Octez 024 itself takes implicit and originated accounts only; libraries write the rollups' tags, too.
_destination = account(IMPLICIT_ACCOUNT, ORIGINATED_CONTRACT, SMART_ROLLUP, ZK_ROLLUP)
_parameters = optional(record(("entrypoint", entry_point), ("value", script)))
_proof = dynamic(fixed(96))
_rollup = ("rollup", fixed(20))
_SIGNATURE_PREFIX = "signature_prefix"

#: Tag to operation.
OPERATIONS: Mapping[int, Operation] = MappingProxyType(
    {
        1: Operation("seed_nonce_revelation", (("level", not_negative_i32), ("nonce", fixed(32)))),
        2: Operation(
            "double_consensus_operation_evidence",
            (("slot", fixed(2)), ("op1", inlined_operation), ("op2", inlined_operation)),
        ),
        3: Operation("double_baking_evidence", (("bh1", block_header), ("bh2", block_header))),
        4: Operation("activate_account", (("pkh", fixed(20)), ("secret", fixed(20)))),
        5: Operation(
            "proposals",
            (
                ("source", public_key_hash),
                ("period", not_negative_i32),
                ("proposals", many(fixed(32), PROPOSALS_LIMIT)),
            ),
        ),
        6: Operation(
            "ballot",
            (
                ("source", public_key_hash),
                ("period", not_negative_i32),
                ("proposal", fixed(32)),
                ("ballot", choice(_BALLOTS)),
            ),
            _ballot_name,
        ),
        8: Operation("vdf_revelation", (("solution", fixed(200)),)),
        9: Operation(
            "drain_delegate",
            (("consensus_key", public_key_hash), ("delegate", public_key_hash), ("destination", public_key_hash)),
        ),
        17: Operation("failing_noop", (("arbitrary", dynamic_bytes),)),
        24: Operation(
            "dal_entrapment_evidence",
            (
                ("attestation", inlined_operation),
                ("consensus_slot", fixed(2)),
                ("slot_index", fixed(1)),
                ("shard_with_proof", shard_with_proof),
            ),
        ),
        30: Operation("preattestations_aggregate", preattestations_aggregate),
        31: Operation("attestations_aggregate", attestations_aggregate),
        # Until protocol 022 it had no proof.
        107: _managed("reveal", ("public_key", public_key), ("proof", optional_of_late(_proof))),
        108: _managed(
            "transaction",
            ("amount", amount),
            ("destination", _destination),
            ("parameters", _parameters),
            name=_transaction_name,
        ),
        109: _managed(
            "origination",
            ("balance", amount),
            ("delegate", optional(public_key_hash)),
            ("code", script),
            ("storage", script),
        ),
        110: _managed("delegation", ("delegate", optional(public_key_hash))),
        111: _managed("register_global_constant", ("value", script)),
        112: _managed("set_deposits_limit", ("limit", optional(amount))),
        113: _managed("increase_paid_storage", ("amount", big_integer), ("destination", account(ORIGINATED_CONTRACT))),
        # Until protocol 021 it had no proof; recorded messages end without.
        114: _managed("update_consensus_key", ("pk", public_key), ("proof", optional_of_late(_proof))),
        115: _managed("update_companion_key", ("pk", public_key), ("proof", optional(_proof))),
        158: _managed(
            "transfer_ticket",
            ("ticket_contents", script),
            ("ticket_ty", script),
            ("ticket_ticketer", contract),
            ("ticket_amount", big_natural),
            ("destination", contract),
            ("entrypoint", limited_bytes(ENTRY_POINT_NAME_LIMIT_BYTES)),
        ),
        200: _managed(
            "smart_rollup_originate",
            ("pvm_kind", choice(_PVM_KINDS)),
            ("kernel", dynamic_bytes),
            ("parameters_ty", script),
            ("whitelist", optional(many(public_key_hash))),
        ),
        201: _managed("smart_rollup_add_messages", ("message", many(dynamic_bytes))),
        202: _managed("smart_rollup_cement", _rollup),
        203: _managed("smart_rollup_publish", _rollup, ("commitment", rollup_commitment)),
        204: _managed("smart_rollup_refute", _rollup, ("opponent", public_key_hash), ("refutation", refutation)),
        205: _managed(
            "smart_rollup_timeout",
            _rollup,
            ("stakers", record(("alice", public_key_hash), ("bob", public_key_hash))),
        ),
        206: _managed(
            "smart_rollup_execute_outbox_message",
            _rollup,
            ("cemented_commitment", fixed(32)),
            ("output_proof", dynamic_bytes),
        ),
        207: _managed("smart_rollup_recover_bond", _rollup, ("staker", public_key_hash)),
        230: _managed(
            "dal_publish_commitment",
            ("slot_index", fixed(1)),
            ("commitment", fixed(48)),
            ("commitment_proof", fixed(96)),
        ),
        250: _managed(
            "zk_rollup_origination",
            ("public_parameters", dynamic_bytes),
            ("circuits_info", circuits_info),
            ("init_state", scalars),
            ("nb_ops", int31),
        ),
        251: _managed("zk_rollup_publish", ("zk_rollup", fixed(20)), ("op", rollup_operations)),
        252: _managed(
            "zk_rollup_update",
            ("zk_rollup", fixed(20)),
            ("pending_pis", pending_inputs),
            ("private_pis", private_inputs),
            ("fee_pi", scalars),
            ("proof", dynamic_bytes),
        ),
        # No operation, but the first 32 bytes of a BLS signature, as a signed batch carries them at its end.
        255: Operation(_SIGNATURE_PREFIX, (("curve", choice({3: "BLS"})), ("prefix", fixed(32)))),
    }
)
_CONSENSUS_OPERATIONS = frozenset({20, 21, 23, 40, 41})

#: Names of operations that a message can have and a policy can allow; `ballot` stands for all three votes.
OPERATION_KINDS = frozenset(
    {*(row.kind for row in OPERATIONS.values()), *(f"ballot:{vote}" for vote in _BALLOTS.values()), *_STAKING}
)


def request_kind(message: Message) -> str:
    """Name the kind of a message as the policy does: one of `REQUEST_KINDS`."""
    if isinstance(message, ConsensusMessage):
        return message.kind.value
    return _PACK if isinstance(message, PackedMessage) else _GENERIC


def parse_message(message: bytes) -> Message:
    """Read a whole message.

    Args:
        message: What is to be signed, magic byte included; at most 32 KiB.

    Returns:
        What the policy and the watermark need to know about it.

    Raises:
        MalformedRequest: It is not exactly one message that this signer understands; the text says where it broke.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise MalformedRequest(f"message of {len(message)} bytes; a Tezos operation has at most {MAX_MESSAGE_BYTES}")
    if not message:
        raise MalformedRequest("empty message; send the bytes of an operation or a block, first byte included")
    magic = message[0]
    if magic in CONSENSUS_MAGIC:
        try:
            return parse_consensus(message)
        except MalformedMessage as error:
            raise MalformedRequest(str(error)) from error
    if magic == GENERIC_MAGIC:
        return _parse_generic(message)
    if magic == PACK_MAGIC:
        return _parse_packed(message)
    raise MalformedRequest(
        f"unknown first byte 0x{magic:02x}; expected 03 (operations), 05 (pack), 11 (block), 12 or 13"
    )


def _parse_packed(message: bytes) -> PackedMessage:
    """Read one Micheline value to the end of the message."""
    reader = Reader(message, 1)
    try:
        micheline(reader)
        reader.leave(reader.limit)
    except BadField as error:
        raise MalformedRequest(f"packed data at byte {error.offset}: {error}") from error
    return PackedMessage()


def _parse_generic(message: bytes) -> GenericMessage:
    """Read the branch and operations until the message ends."""
    reader = Reader(message, 1)
    names: list[str] = []
    try:
        reader.path.append("branch")
        reader.skip(_BRANCH_BYTES)
        reader.path.clear()
        while not reader.at_end_of_message():
            if names[-1:] == [_SIGNATURE_PREFIX]:
                reader.refuse("nothing may follow signature_prefix", 0)
            names.append(_parse_operation(reader))
    except BadField as error:
        raise MalformedRequest(f"{_place(reader.path, len(names) + 1)} at byte {error.offset}: {error}") from error
    if not names or names == [_SIGNATURE_PREFIX]:
        raise MalformedRequest("no operation after the branch; a message without operations is not signed")
    return GenericMessage(tuple(names))


def _parse_operation(reader: Reader) -> str:
    """Read one operation; returns the policy's name for it."""
    tag = reader.byte()
    operation = OPERATIONS.get(tag)
    if operation is None:
        reader.refuse(_unknown_tag_text(tag))
    reader.path.append(operation.kind)
    values: dict[str, bytes] = {}
    for name, field in operation.fields:
        start = reader.offset
        reader.path.append(name)
        field(reader)
        reader.path.pop()
        values[name] = reader.data[start : reader.offset]
    reader.path.pop()
    return operation.kind if operation.name is None else operation.name(values)


def _place(path: list[str], index: int) -> str:
    """Say where reading stopped: `operation 2 (transaction), field parameters.value`."""
    if path[:1] == ["branch"]:
        return "field branch"
    if not path:
        return f"operation {index}"
    return f"operation {index} ({path[0]}), field {'.'.join(path[1:])}"


def _unknown_tag_text(tag: int) -> str:
    if tag in _CONSENSUS_OPERATIONS:
        return f"tag {tag} is a consensus operation; its message begins with 0x12 or 0x13, not 0x03"
    return f"tag {tag} is no operation of protocol 024; are there surplus bytes?"
