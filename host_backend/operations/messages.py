"""What a message asks to have signed: generic messages by the table of operations, and the door to consensus messages.

- A message is decoded whole, or refused: no byte is signed whose meaning was not looked at.
- A generic message has at least one operation, and each is named as the policy names it.
- It has several only if all are manager operations: Octez' own encoding has no other lists.
- Packed data is one Micheline value. It has no operations: a policy allows it as a whole or not at all.

`table` has the operations and their names.
"""

from dataclasses import dataclass

from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES
from enclave_signer.tezos import (
    CONSENSUS_MAGIC,
    PROTOCOLS,
    ConsensusKind,
    ConsensusMessage,
    MalformedMessage,
    parse_consensus,
)
from host_backend.errors import MalformedRequest
from host_backend.operations.fields import BadField, Reader, micheline
from host_backend.operations.table import OPERATIONS, SIGNATURE_PREFIX, Operation

GENERIC_MAGIC = 0x03
PACK_MAGIC = 0x05
_GENERIC = "generic"
_PACK = "pack"
#: Names of request kinds that move marks: what a baker signs.
CONSENSUS_KINDS = frozenset(map(str, ConsensusKind))
#: Names of request kinds that a policy may allow.
REQUEST_KINDS = CONSENSUS_KINDS | {_GENERIC, _PACK}

#: Any consensus message of today: blocks have up to 234 bytes, attestations with DAL 213. Hostile messages take 0.4 µs a
#: byte to read, and twice that on a slower core.
SMALL_MESSAGE_BYTES = 256
#: What the first byte alone says of messages that may take long to read.
_KINDS = {GENERIC_MAGIC: _GENERIC, PACK_MAGIC: _PACK}

_BRANCH_BYTES = 32
_PROTOCOL_NAMES = ", ".join(protocol.name for protocol in PROTOCOLS)
_CONSENSUS_OPERATIONS = frozenset({20, 21, 23, 40, 41})


@dataclass(frozen=True, slots=True)
class GenericMessage:
    """One or more operations under one signature.

    Attributes:
        operations: Their names as the policy knows them, in order, at least one: `transaction`, `stake`, `ballot:nay`.
    """

    operations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackedMessage:
    """One packed Micheline value, such as contracts check signatures of."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Always empty: there is nothing in it that a policy could tell apart."""
        return ()


Message = ConsensusMessage | GenericMessage | PackedMessage


def request_kind(message: Message) -> str:
    """Name the kind of a message as the policy does: one of `REQUEST_KINDS`."""
    if isinstance(message, ConsensusMessage):
        return message.kind.value
    return _PACK if isinstance(message, PackedMessage) else _GENERIC


def kind_of_large(message: bytes) -> str | None:
    """Name the kind of a message by its first byte, as `request_kind` does; None if it is read or refused at once."""
    return _KINDS.get(message[0]) if len(message) > SMALL_MESSAGE_BYTES else None


def parse_message(message: bytes) -> Message:
    """Read a whole message.

    Args:
        message: The bytes to sign, magic byte included; at most 32 KiB.

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
    before: Operation | None = None
    try:
        reader.path.append("branch")
        reader.skip(_BRANCH_BYTES)
        reader.path.clear()
        while not reader.at_end_of_message():
            operation = _parse_tag(reader, before)
            names.append(_parse_fields(reader, operation))
            before = operation
    except BadField as error:
        raise MalformedRequest(f"{_place(reader.path, len(names) + 1)} at byte {error.offset}: {error}") from error
    if not names or names == [SIGNATURE_PREFIX]:
        raise MalformedRequest("no operation after the branch; a message without operations is not signed")
    return GenericMessage(tuple(names))


def _parse_tag(reader: Reader, before: Operation | None) -> Operation:
    """Read the tag of an operation that may stand behind another."""
    tag = reader.byte()
    if before is not None and before.kind == SIGNATURE_PREFIX:
        reader.refuse("nothing may follow signature_prefix")
    operation = OPERATIONS.get(tag)
    if operation is None:
        reader.refuse(_unknown_tag_text(tag))
    if before is None or operation.kind == SIGNATURE_PREFIX:
        return operation
    for each in (before, operation):
        if not each.managed:
            reader.refuse(f"{each.kind} stands alone: only manager operations share a message")
    return operation


def _parse_fields(reader: Reader, operation: Operation) -> str:
    """Read what follows a tag; returns the policy's name for the operation."""
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
    return f"tag {tag} is not an operation of the protocols {_PROTOCOL_NAMES}; are there surplus bytes?"
