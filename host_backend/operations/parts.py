"""The larger fields of operations: evidence with whole operations and block headers in it, games about rollups, proofs.

- Nested parts are read as strictly as others: an inlined operation to its signature, a block header like the header that a
  baker signs, with the signature behind it.
- The shape of a proof is read, its contents are not: curve points, scalars and serialized proofs are bytes here.

Source: Octez' own description of the encodings, `client-libs/kaitai-struct-files/files/id_024__pttallin__operation__unsigned.ksy`
(generated; it shows a flag before the signature of an inlined operation, which `varopt` of `data-encoding` does not write and
no recorded message has), and `operation_repr.ml`, `sc_rollup_proof_repr.ml`, `zk_rollup_operation_repr.ml`, of 024 and of 025.
"""

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.tezos.protocols import MAX_DAL_BITSET_BYTES, MAX_RAW_DATA_BYTES
from host_backend.operations.fields import (
    IMPLICIT_ACCOUNT,
    ORIGINATED_CONTRACT,
    BadField,
    Field,
    Reader,
    account,
    big_integer,
    big_natural,
    choice,
    dynamic,
    dynamic_bytes,
    fixed,
    limited_bytes,
    many,
    micheline,
    not_negative_i32,
    not_negative_integer,
    optional,
    public_key_hash,
    record,
)

#: Signed parts inside an operation: consensus messages, all of them.
_SIGNATURE_BYTES = sorted({key_type.facts.signature_bytes for key_type in KeyType if key_type.facts.bakes})
_SIGNATURE_SIZES = " or ".join(map(str, _SIGNATURE_BYTES))
#: A signed operation ends in 64 bytes; a longer one begins in front of them, as an operation of its own.
_PREFIX_BYTES = {
    key_type.facts.tag: key_type.facts.signature_bytes - 64
    for key_type in KeyType
    if key_type.facts.signature_bytes > 64
}
_TENDERBAKE_FITNESS = {2: "Tenderbake"}
_PER_BLOCK_VOTES = {0: "on", 1: "off", 2: "pass"}
_CIRCUIT_KINDS = {0: "public", 1: "private", 2: "fee"}
_BOOLEANS = {0x00: "false", 0xFF: "true"}
#: Where the level of the fitness stands in a block header whose fitness begins like one of Tenderbake.
_FITNESS_LEVEL_OFFSET = 91


def nothing(reader: Reader) -> None:
    """Read nothing: the field of a variant that its tag alone says all about."""


def not_negative_i64(reader: Reader) -> None:
    """Read a signed 8-byte integer of which only 0 and above make sense: a number of ticks."""
    if reader.unsigned(8) >= 1 << 63:
        reader.refuse("negative number", 8)


def int31(reader: Reader) -> None:
    """Read 4 bytes that hold what Octez calls int31: -2**30 to 2**30 - 1."""
    if 1 << 30 <= reader.unsigned(4) < (1 << 32) - (1 << 30):
        reader.refuse("number of more than 31 bits", 4)


def variant(*cases: tuple[int, str, Field]) -> Field:
    """Make a field whose first byte says what follows.

    Args:
        cases: The byte, its name, and the field that follows it.
    """
    fields = {tag: (name, field) for tag, name, field in cases}
    known = ", ".join(f"{tag} {name}" for tag, name, _ in cases)

    def read(reader: Reader) -> None:
        tag = reader.byte()
        if tag not in fields:
            reader.refuse(f"unknown tag {tag}; known are {known}")
        name, field = fields[tag]
        reader.path.append(name)
        field(reader)
        reader.path.pop()

    return read


def last_of_layouts(*layouts: Field) -> Field:
    """Make a field for the end of a message that protocols lay out differently, and that does not say how.

    The layout is the first that ends exactly where the message ends; where none does, the first one gives the error.

    Args:
        layouts: Those of the latest protocol first.
    """

    def read(reader: Reader) -> None:
        start, limit, depth = reader.offset, reader.limit, len(reader.path)
        for layout in layouts:
            try:
                layout(reader)
            except BadField:
                pass
            else:
                if reader.at_end_of_message():
                    return
            reader.offset, reader.limit = start, limit
            del reader.path[depth:]
        layouts[0](reader)

    return read


def signature(reader: Reader) -> None:
    """Read the signature that fills the rest of a part: as many bytes as one curve or another that bakes has."""
    size = reader.limit - reader.offset
    if size not in _SIGNATURE_BYTES:
        raise BadField(f"{size} byte(s) where a signature has {_SIGNATURE_SIZES}", reader.offset)
    reader.skip(size)


prefix_curve = choice(
    {key_type.facts.tag: key_type.name for key_type in KeyType if key_type.facts.tag in _PREFIX_BYTES}
)


def signature_prefix(reader: Reader) -> None:
    """Read all of a signature but its last 64 bytes; the byte before, `prefix_curve`, says of which curve it is."""
    reader.skip(_PREFIX_BYTES[reader.data[reader.offset - 1]])


contract = account(IMPLICIT_ACCOUNT, ORIGINATED_CONTRACT)

# Consensus operations. They are signed on their own and here only occur in evidence, or aggregated.
_dal_attestation = not_negative_integer(MAX_DAL_BITSET_BYTES)
_consensus_content = (("level", not_negative_i32), ("round", not_negative_i32), ("block_payload_hash", fixed(32)))
_vote = (("slot", fixed(2)), *_consensus_content)
_committee_member = record(("slot", fixed(2)), ("dal_attestation", optional(_dal_attestation)))

preattestations_aggregate = (
    ("consensus_content", record(*_consensus_content)),
    ("committee", many(fixed(2))),
)
attestations_aggregate = (
    ("consensus_content", record(*_consensus_content)),
    ("committee", many(_committee_member)),
)
inlined_operation = dynamic(
    record(
        ("branch", fixed(32)),
        (
            "operations",
            variant(
                (20, "preattestation", record(*_vote)),
                (21, "attestation", record(*_vote)),
                (23, "attestation_with_dal", record(*_vote, ("dal_attestation", _dal_attestation))),
                (30, "preattestations_aggregate", record(*preattestations_aggregate)),
                (31, "attestations_aggregate", record(*attestations_aggregate)),
            ),
        ),
        ("signature", signature),
    )
)


def _rest(field: Field) -> Field:
    """Make a field of another one, or of nothing when the part ends here."""

    def read(reader: Reader) -> None:
        if reader.offset < reader.limit:
            field(reader)

    return read


_fitness = record(
    ("version", dynamic(choice(_TENDERBAKE_FITNESS))),
    ("level", dynamic(not_negative_i32)),
    ("locked_round", dynamic(_rest(not_negative_i32))),
    # Bakers write -(round + 1), and 0 is on record, too.
    ("predecessor_round", dynamic(fixed(4))),
    ("round", dynamic(not_negative_i32)),
)
_header_fields = record(
    ("level", not_negative_i32),
    ("proto", fixed(1)),
    ("predecessor", fixed(32)),
    ("timestamp", fixed(8)),
    ("validation_pass", fixed(1)),
    ("operations_hash", fixed(32)),
    ("fitness", dynamic(_fitness)),
    ("context", fixed(32)),
    ("payload_hash", fixed(32)),
    ("payload_round", not_negative_i32),
    ("proof_of_work_nonce", fixed(8)),
    ("seed_nonce_hash", optional(fixed(32))),
    ("per_block_votes", choice(_PER_BLOCK_VOTES)),
    ("signature", signature),
)


def _block_header(reader: Reader) -> None:
    """Read a signed header whose fitness has the same level."""
    start = reader.offset
    _header_fields(reader)
    level, fitness_level = (
        int.from_bytes(reader.data[place : place + 4], "big") for place in (start, start + _FITNESS_LEVEL_OFFSET)
    )
    if level != fitness_level:
        raise BadField(f"level {level} in the header, {fitness_level} in the fitness", start)


block_header = dynamic(_block_header)

_shard_with_proof = (("shard", record(("index", int31), ("share", many(fixed(32))))), ("proof", fixed(48)))
# Until protocol 024 there was no lag to name.
shard_with_proof = last_of_layouts(
    record(("lag_index", optional(fixed(1))), *_shard_with_proof), record(*_shard_with_proof)
)

# Smart rollups: commitments, and the games that refute them.
rollup_commitment = record(
    ("compressed_state", fixed(32)),
    ("inbox_level", not_negative_i32),
    ("predecessor", fixed(32)),
    ("number_of_ticks", not_negative_i64),
)
_dal_page = record(
    ("published_level", not_negative_i32),
    ("slot_index", fixed(1)),
    ("page_index", fixed(2)),
    ("dal_proof", dynamic_bytes),
)
_reveal_proof = variant(
    (0, "raw_data", limited_bytes(MAX_RAW_DATA_BYTES, length_bytes=2)),
    (1, "metadata", nothing),
    (2, "dal_page", _dal_page),
    (3, "dal_parameters", nothing),
)
_input_proof = variant(
    (
        0,
        "inbox_proof",
        record(("level", not_negative_i32), ("message_counter", big_natural), ("serialized_proof", dynamic_bytes)),
    ),
    (1, "reveal_proof", _reveal_proof),
    (2, "first_input", nothing),
)
_step = variant(
    (0, "dissection", many(record(("state", optional(fixed(32))), ("tick", big_natural)))),
    (1, "proof", record(("pvm_step", dynamic_bytes), ("input_proof", optional(_input_proof)))),
)
refutation = variant(
    (0, "start", record(("player_commitment_hash", fixed(32)), ("opponent_commitment_hash", fixed(32)))),
    (1, "move", record(("choice", big_natural), ("step", _step))),
)

# Validity rollups.
scalars = many(fixed(32))
circuits_info = many(record(("name", dynamic_bytes), ("kind", choice(_CIRCUIT_KINDS))))
_rollup_operation = record(
    ("op_code", int31),
    ("price", record(("id", fixed(32)), ("amount", big_integer))),
    ("l1_dst", public_key_hash),
    ("rollup_id", fixed(20)),
    ("payload", scalars),
)
_ticket = record(("contents", micheline), ("ty", micheline), ("ticketer", contract))
rollup_operations = many(
    record(("operation", _rollup_operation), ("ticket", variant((0, "none", nothing), (1, "some", _ticket))))
)
_circuit_inputs = (("new_state", scalars), ("fee", fixed(32)))
pending_inputs = many(
    record(("name", dynamic_bytes), ("inputs", record(*_circuit_inputs, ("exit_validity", choice(_BOOLEANS)))))
)
private_inputs = many(record(("name", dynamic_bytes), ("inputs", record(*_circuit_inputs))))
