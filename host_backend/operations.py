"""What a message asks to have signed: the one decoding table of operations, and the door to consensus messages.

- A message is decoded whole, or refused: no byte is signed whose meaning was not looked at.
- A generic message has at least one operation, and each is named as the policy names it.
- Staking is a transaction to oneself with one of four entry points; it has its own names, and `transaction` does not cover it. A
  ballot carries its vote in its name.
- To add an operation is to add a row to `OPERATIONS`, with a vector in `tests/vectors`.

Source: Octez `operation_repr.ml` (protocol 024); names as `signatory-cli list-ops` prints them;
`tests/vectors/signatory-vectors.json`, `tests/vectors/forged-operations.json`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from enclave_signer.protocol.codec import MAX_MESSAGE_BYTES
from enclave_signer.tezos import CONSENSUS_MAGIC, ConsensusKind, ConsensusMessage, MalformedMessage, parse_consensus
from host_backend.errors import MalformedRequest
from host_backend.operation_fields import (
    ENTRY_POINT_NAME_LIMIT_BYTES,
    ENTRY_POINTS,
    IMPLICIT_ACCOUNT,
    ORIGINATED_CONTRACT,
    SMART_ROLLUP,
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
    many,
    not_negative_i32,
    optional,
    public_key,
    public_key_hash,
    record,
    script,
    text,
)

GENERIC_MAGIC = 0x03
PACK_MAGIC = 0x05
_GENERIC = "generic"
#: Names of request kinds that a policy may allow. `pack` may be configured, but packed data is not decoded yet.
REQUEST_KINDS = frozenset({_GENERIC, "pack", *ConsensusKind})

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


Message = ConsensusMessage | GenericMessage


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


def _transaction_name(values: Values) -> str:
    """Name a transaction; staking is one to the source itself."""
    flag_and_entry_point = values["parameters"][:2]
    to_itself = values["destination"] == bytes([IMPLICIT_ACCOUNT]) + values["source"]
    if to_itself and len(flag_and_entry_point) == 2:
        return _STAKING_ENTRY_POINTS.get(flag_and_entry_point[1], "transaction")
    return "transaction"


def _ballot_name(values: Values) -> str:
    return f"ballot:{_BALLOTS[values['ballot'][0]]}"


_contract = account(IMPLICIT_ACCOUNT, ORIGINATED_CONTRACT)
_destination = account(IMPLICIT_ACCOUNT, ORIGINATED_CONTRACT, SMART_ROLLUP)
_parameters = optional(record(("entrypoint", entry_point), ("value", script)))
_proof_of_possession = optional(dynamic(fixed(96)))
_manager = (
    ("source", public_key_hash),
    ("fee", amount),
    ("counter", amount),
    ("gas_limit", amount),
    ("storage_limit", amount),
)
_key_update = (*_manager, ("public_key", public_key), ("proof", _proof_of_possession))

#: Tag to operation. An operation without a vector has no row.
OPERATIONS: Mapping[int, Operation] = MappingProxyType(
    {
        1: Operation("seed_nonce_revelation", (("level", not_negative_i32), ("nonce", fixed(32)))),
        4: Operation("activate_account", (("pkh", fixed(20)), ("secret", fixed(20)))),
        5: Operation(
            "proposals",
            (("source", public_key_hash), ("period", not_negative_i32), ("proposals", many(fixed(32)))),
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
        107: Operation("reveal", _key_update),
        108: Operation(
            "transaction",
            (*_manager, ("amount", amount), ("destination", _destination), ("parameters", _parameters)),
            _transaction_name,
        ),
        109: Operation(
            "origination",
            (
                *_manager,
                ("balance", amount),
                ("delegate", optional(public_key_hash)),
                ("code", script),
                ("storage", script),
            ),
        ),
        110: Operation("delegation", (*_manager, ("delegate", optional(public_key_hash)))),
        111: Operation("register_global_constant", (*_manager, ("value", script))),
        112: Operation("set_deposits_limit", (*_manager, ("limit", optional(amount)))),
        113: Operation(
            "increase_paid_storage",
            (*_manager, ("amount", big_integer), ("destination", account(ORIGINATED_CONTRACT))),
        ),
        114: Operation("update_consensus_key", _key_update),
        115: Operation("update_companion_key", _key_update),
        158: Operation(
            "transfer_ticket",
            (
                *_manager,
                ("ticket_contents", script),
                ("ticket_ty", script),
                ("ticket_ticketer", _contract),
                ("ticket_amount", big_natural),
                ("destination", _contract),
                ("entrypoint", text(ENTRY_POINT_NAME_LIMIT_BYTES)),
            ),
        ),
        200: Operation(
            "smart_rollup_originate",
            (
                *_manager,
                ("pvm_kind", choice(_PVM_KINDS)),
                ("kernel", dynamic_bytes),
                ("parameters_ty", script),
                ("whitelist", optional(many(public_key_hash))),
            ),
        ),
        201: Operation("smart_rollup_add_messages", (*_manager, ("message", many(dynamic_bytes)))),
        206: Operation(
            "smart_rollup_execute_outbox_message",
            (*_manager, ("rollup", fixed(20)), ("cemented_commitment", fixed(32)), ("output_proof", dynamic_bytes)),
        ),
    }
)

#: Tag to name of operations that exist, but that this signer cannot decode yet.
UNSUPPORTED_OPERATIONS: Mapping[int, str] = MappingProxyType(
    {
        2: "double_consensus_operation_evidence",
        3: "double_baking_evidence",
        24: "dal_entrapment_evidence",
        30: "preattestations_aggregate",
        31: "attestations_aggregate",
        202: "smart_rollup_cement",
        203: "smart_rollup_publish",
        204: "smart_rollup_refute",
        205: "smart_rollup_timeout",
        207: "smart_rollup_recover_bond",
        230: "dal_publish_commitment",
        250: "zk_rollup_origination",
        251: "zk_rollup_publish",
        252: "zk_rollup_update",
        255: "signature_prefix",
    }
)
_CONSENSUS_OPERATIONS = frozenset({20, 21, 23, 40, 41})

#: Names of operations that a message can have and a policy can allow; `ballot` stands for all three votes.
OPERATION_KINDS = frozenset(
    {*(row.kind for row in OPERATIONS.values()), *(f"ballot:{vote}" for vote in _BALLOTS.values()), *_STAKING}
)


def request_kind(message: Message) -> str:
    """Name the kind of a message as the policy does: one of `REQUEST_KINDS`."""
    return _GENERIC if isinstance(message, GenericMessage) else message.kind.value


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
        raise MalformedRequest("packed data is not supported yet (first byte 0x05)")
    raise MalformedRequest(f"unknown first byte 0x{magic:02x}; expected 03 (operations), 11 (block), 12 or 13")


def _parse_generic(message: bytes) -> GenericMessage:
    """Read the branch and operations until the message ends."""
    reader = Reader(message, 1)
    names: list[str] = []
    try:
        reader.path.append("branch")
        reader.skip(_BRANCH_BYTES)
        reader.path.clear()
        while not reader.at_end_of_message():
            names.append(_parse_operation(reader))
    except BadField as error:
        raise MalformedRequest(f"{_place(reader.path, len(names) + 1)} at byte {error.offset}: {error}") from error
    if not names:
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
    if tag in UNSUPPORTED_OPERATIONS:
        return f"tag {tag} ({UNSUPPORTED_OPERATIONS[tag]}) is not known to this signer yet"
    return f"tag {tag} is not an operation that this signer knows yet; are there surplus bytes?"
