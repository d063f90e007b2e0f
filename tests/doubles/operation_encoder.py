"""Writes operations from their JSON form, by the field table of Octez' documentation; knows nothing of the decoder under test.

The JSON form is that of Octez' RPCs, except that base58 there is hex here, and that addresses and keys name their kind:
`tz4:<hex>`, `KT1:<hex>`, `BLpk:<hex>`.

Source: Octez, the generated descriptions of its encodings for protocol 024, its sources for 025, and `data-encoding` for numbers
and options.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Json = Any
Contents = Mapping[str, Json]

_TAGS = {"tz1": 0, "tz2": 1, "tz3": 2, "tz4": 3, "tz5": 4, "edpk": 0, "sppk": 1, "p2pk": 2, "BLpk": 3, "mdpk": 4}
_ROLLUPS = {"sr1": 3, "epx1": 4}
#: In the order of their tags.
_ENTRY_POINTS = (
    *("default", "root", "do", "set_delegate", "remove_delegate", "deposit"),
    *("stake", "unstake", "finalize_unstake", "set_delegate_parameters"),
)
_PRIMITIVES = (
    {"parameter": 0, "storage": 1, "code": 2, "Elt": 4, "Pair": 7, "True": 10, "Unit": 11}
    | {"CAR": 22, "CDR": 23, "NIL": 61, "PAIR": 66, "SOME": 70, "UNIT": 79}
    | {"nat": 98, "option": 99, "string": 104, "bytes": 105, "unit": 108, "operation": 109}
    | {"IS_IMPLICIT_ACCOUNT": 158, "INDEX_ADDRESS": 159, "GET_ADDRESS_INDEX": 160}
)


def message(branch: str, contents: Sequence[Contents]) -> bytes:
    """Write operations as they are signed: the magic byte, the branch, each operation with its tag."""
    return b"\x03" + raw(branch) + b"".join(operation(item) for item in contents)


def packed(expression: Json) -> bytes:
    """Write packed data as it is signed."""
    return b"\x05" + micheline(expression)


def operation(contents: Contents) -> bytes:
    tag, managed, encode = _OPERATIONS[contents["kind"]]
    head = manager(contents) if managed else b""
    return bytes([tag]) + head + encode(contents)


# What data-encoding writes.


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def unsigned(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big")


def signed(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big", signed=True)


def sized(data: bytes, size: int = 4) -> bytes:
    return unsigned(len(data), size) + data


def n(text: str) -> bytes:
    number = int(text)
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def z(text: str) -> bytes:
    number = int(text)
    first = abs(number) & 0x3F | (0x40 if number < 0 else 0)
    rest = abs(number) >> 6
    return bytes([first | 0x80]) + n(str(rest)) if rest else bytes([first])


def option(contents: Contents, name: str, encode: Callable[[Json], bytes]) -> bytes:
    return b"\xff" + encode(contents[name]) if name in contents else b"\x00"


def listed(items: Sequence[Json], encode: Callable[[Json], bytes]) -> bytes:
    return sized(b"".join(encode(item) for item in items))


# Addresses, keys, scripts.


def key(text: str) -> bytes:
    """Write a public key, or the hash of one."""
    kind, _, digits = text.partition(":")
    return bytes([_TAGS[kind]]) + raw(digits)


def address(text: str) -> bytes:
    kind, _, digits = text.partition(":")
    if kind in _TAGS:
        return b"\x00" + key(text)
    return bytes([1 if kind == "KT1" else _ROLLUPS[kind]]) + raw(digits) + b"\x00"


def micheline(node: Json) -> bytes:
    if "written" in node:
        # As `operation_decoder` found it.
        return raw(node["written"])
    if isinstance(node, list):
        return b"\x02" + listed(node, micheline)
    if "int" in node:
        return b"\x00" + z(node["int"])
    if "string" in node:
        return b"\x01" + sized(node["string"].encode(errors="surrogateescape"))
    if "bytes" in node:
        return b"\x0a" + sized(raw(node["bytes"]))
    primitive = bytes([_PRIMITIVES[node["prim"]]])
    args, annots = node.get("args", []), node.get("annots", [])
    text = sized(" ".join(annots).encode(errors="surrogateescape"))
    if len(args) > 2:
        return b"\x09" + primitive + listed(args, micheline) + text
    tag = bytes([3 + 2 * len(args) + bool(annots)])
    return tag + primitive + b"".join(micheline(arg) for arg in args) + (text if annots else b"")


def script(node: Json) -> bytes:
    return sized(micheline(node))


def entry_point(name: str) -> bytes:
    if name in _ENTRY_POINTS:
        return bytes([_ENTRY_POINTS.index(name)])
    return b"\xff" + sized(name.encode(errors="surrogateescape"), 1)


def parameters(value: Json) -> bytes:
    return entry_point(value["entrypoint"]) + script(value["value"])


def manager(c: Contents) -> bytes:
    return key(c["source"]) + n(c["fee"]) + n(c["counter"]) + n(c["gas_limit"]) + n(c["storage_limit"])


# Consensus operations and blocks, as they occur in evidence.


def consensus_content(c: Contents) -> bytes:
    return signed(c["level"], 4) + signed(c["round"], 4) + raw(c["block_payload_hash"])


def vote(c: Contents) -> bytes:
    return unsigned(c["slot"], 2) + consensus_content(c)


def committee_member(member: Json) -> bytes:
    return unsigned(member["slot"], 2) + option(member, "dal_attestation", z)


def preattestations_aggregate(c: Contents) -> bytes:
    return consensus_content(c["consensus_content"]) + listed(c["committee"], lambda slot: unsigned(slot, 2))


def attestations_aggregate(c: Contents) -> bytes:
    return consensus_content(c["consensus_content"]) + listed(c["committee"], committee_member)


_INLINED: Mapping[str, tuple[int, Callable[[Contents], bytes]]] = {
    "preattestation": (20, vote),
    "attestation": (21, vote),
    "attestation_with_dal": (23, lambda c: vote(c) + z(c["dal_attestation"])),
    "preattestations_aggregate": (30, preattestations_aggregate),
    "attestations_aggregate": (31, attestations_aggregate),
}


def inlined(op: Json) -> bytes:
    tag, encode = _INLINED[op["operations"]["kind"]]
    return sized(raw(op["branch"]) + bytes([tag]) + encode(op["operations"]) + raw(op["signature"]))


def unsigned_header(header: Json) -> bytes:
    votes = {"on": 0, "off": 1, "pass": 2}[header["liquidity_baking_toggle_vote"]]
    return (
        signed(header["level"], 4)
        + unsigned(header["proto"], 1)
        + raw(header["predecessor"])
        + signed(header["timestamp"], 8)
        + unsigned(header["validation_pass"], 1)
        + raw(header["operations_hash"])
        + listed(header["fitness"], lambda part: sized(raw(part)))
        + raw(header["context"])
        + raw(header["payload_hash"])
        + signed(header["payload_round"], 4)
        + raw(header["proof_of_work_nonce"])
        + option(header, "seed_nonce_hash", raw)
        + bytes([votes])
    )


def block_header(header: Json) -> bytes:
    return sized(unsigned_header(header) + raw(header["signature"]))


def entrapment(c: Contents) -> bytes:
    """Write evidence; `lag_index` is null for none, and left out altogether in the layout of 024."""
    lag = b"" if "lag_index" not in c else b"\x00" if c["lag_index"] is None else b"\xff" + unsigned(c["lag_index"], 1)
    index, share = c["shard_with_proof"]["shard"]
    proven = signed(index, 4) + listed(share, raw) + raw(c["shard_with_proof"]["proof"])
    return inlined(c["attestation"]) + unsigned(c["consensus_slot"], 2) + unsigned(c["slot_index"], 1) + lag + proven


# Rollups.


def rollup(c: Contents) -> bytes:
    return raw(c["rollup"].removeprefix("sr1:"))


def validity_rollup(text: str) -> bytes:
    return raw(text.removeprefix("epx1:"))


def commitment(c: Contents) -> bytes:
    head = raw(c["compressed_state"]) + signed(c["inbox_level"], 4)
    return head + raw(c["predecessor"]) + signed(int(c["number_of_ticks"]), 8)


def refutation(c: Contents) -> bytes:
    if c["refutation_kind"] == "start":
        return b"\x00" + raw(c["player_commitment_hash"]) + raw(c["opponent_commitment_hash"])
    step = c["step"]
    if isinstance(step, list):
        return (
            b"\x01"
            + n(c["choice"])
            + b"\x00"
            + listed(step, lambda chunk: option(chunk, "state", raw) + n(chunk["tick"]))
        )
    return b"\x01" + n(c["choice"]) + b"\x01" + sized(raw(step["pvm_step"])) + option(step, "input_proof", input_proof)


def input_proof(c: Contents) -> bytes:
    if c["input_proof_kind"] == "inbox_proof":
        return b"\x00" + signed(c["level"], 4) + n(c["message_counter"]) + sized(raw(c["serialized_proof"]))
    return b"\x01" + reveal_proof(c["reveal_proof"]) if c["input_proof_kind"] == "reveal_proof" else b"\x02"


def reveal_proof(c: Contents) -> bytes:
    kind = c["reveal_proof_kind"]
    if kind == "raw_data_proof":
        return b"\x00" + sized(raw(c["raw_data"]), 2)
    if kind == "dal_page_proof":
        page = c["dal_page_id"]
        place = signed(page["published_level"], 4) + unsigned(page["slot_index"], 1) + signed(page["page_index"], 2)
        return b"\x02" + place + sized(raw(c["dal_proof"]))
    return {"metadata_proof": b"\x01", "dal_parameters_proof": b"\x03"}[kind]


def circuit(item: Json) -> bytes:
    name, kind = item
    return sized(name.encode(errors="surrogateescape")) + bytes([("public", "private", "fee").index(kind)])


def rollup_operation(item: Json) -> bytes:
    op, ticket = item
    price = raw(op["price"]["id"]) + z(op["price"]["amount"])
    head = signed(op["op_code"], 4) + price + key(op["l1_dst"]) + validity_rollup(op["rollup_id"])
    tail = b"\x00"
    if ticket is not None:
        tail = b"\x01" + micheline(ticket["contents"]) + micheline(ticket["ty"]) + address(ticket["ticketer"])
    return head + listed(op["payload"], raw) + tail


def circuit_inputs(item: Json) -> bytes:
    name, inputs = item
    validity = {True: b"\xff", False: b"\x00", None: b""}[inputs.get("exit_validity")]
    return (
        sized(name.encode(errors="surrogateescape")) + listed(inputs["new_state"], raw) + raw(inputs["fee"]) + validity
    )


def update(c: Contents) -> bytes:
    return (
        listed(c["pending_pis"], circuit_inputs)
        + listed(c["private_pis"], circuit_inputs)
        + listed(c["fee_pi"]["new_state"], raw)
        + sized(raw(c["proof"]))
    )


def proof_of_possession(c: Contents) -> bytes:
    return option(c, "proof", lambda proof: sized(raw(proof)))


def signature_prefix(data: bytes) -> bytes:
    return bytes([{32: 3, 2356: 4}[len(data)]]) + data


_BALLOTS = ("yay", "nay", "pass")
_PVM_KINDS = ("arith", "wasm_2_0_0", "riscv")

#: Kind to tag, whether the fields of a manager operation come first, and the fields after them.
_OPERATIONS: Mapping[str, tuple[int, bool, Callable[[Contents], bytes]]] = {
    "seed_nonce_revelation": (1, False, lambda c: signed(c["level"], 4) + raw(c["nonce"])),
    "double_consensus_operation_evidence": (
        2,
        False,
        lambda c: unsigned(c["slot"], 2) + inlined(c["op1"]) + inlined(c["op2"]),
    ),
    "double_baking_evidence": (3, False, lambda c: block_header(c["bh1"]) + block_header(c["bh2"])),
    "activate_account": (4, False, lambda c: raw(c["pkh"].removeprefix("tz1:")) + raw(c["secret"])),
    "proposals": (5, False, lambda c: key(c["source"]) + signed(c["period"], 4) + listed(c["proposals"], raw)),
    "ballot": (
        6,
        False,
        lambda c: key(c["source"]) + signed(c["period"], 4) + raw(c["proposal"]) + bytes([_BALLOTS.index(c["ballot"])]),
    ),
    "vdf_revelation": (8, False, lambda c: raw(c["solution"][0]) + raw(c["solution"][1])),
    "drain_delegate": (9, False, lambda c: key(c["consensus_key"]) + key(c["delegate"]) + key(c["destination"])),
    "failing_noop": (17, False, lambda c: sized(raw(c["arbitrary"]))),
    "dal_entrapment_evidence": (24, False, entrapment),
    "preattestations_aggregate": (30, False, preattestations_aggregate),
    "attestations_aggregate": (31, False, attestations_aggregate),
    "reveal": (107, True, lambda c: key(c["public_key"]) + proof_of_possession(c)),
    "transaction": (
        108,
        True,
        lambda c: n(c["amount"]) + address(c["destination"]) + option(c, "parameters", parameters),
    ),
    "origination": (
        109,
        True,
        lambda c: (
            n(c["balance"]) + option(c, "delegate", key) + script(c["script"]["code"]) + script(c["script"]["storage"])
        ),
    ),
    "delegation": (110, True, lambda c: option(c, "delegate", key)),
    "register_global_constant": (111, True, lambda c: script(c["value"])),
    "set_deposits_limit": (112, True, lambda c: option(c, "limit", n)),
    "increase_paid_storage": (113, True, lambda c: z(c["amount"]) + address(c["destination"])),
    "update_consensus_key": (114, True, lambda c: key(c["pk"]) + proof_of_possession(c)),
    "update_companion_key": (115, True, lambda c: key(c["pk"]) + proof_of_possession(c)),
    "transfer_ticket": (
        158,
        True,
        lambda c: (
            script(c["ticket_contents"])
            + script(c["ticket_ty"])
            + address(c["ticket_ticketer"])
            + n(c["ticket_amount"])
            + address(c["destination"])
            + sized(c["entrypoint"].encode(errors="surrogateescape"))
        ),
    ),
    "smart_rollup_originate": (
        200,
        True,
        lambda c: (
            bytes([_PVM_KINDS.index(c["pvm_kind"])])
            + sized(raw(c["kernel"]))
            + script(c["parameters_ty"])
            + option(c, "whitelist", lambda keys: listed(keys, key))
        ),
    ),
    "smart_rollup_add_messages": (201, True, lambda c: listed(c["message"], lambda item: sized(raw(item)))),
    "smart_rollup_cement": (202, True, rollup),
    "smart_rollup_publish": (203, True, lambda c: rollup(c) + commitment(c["commitment"])),
    "smart_rollup_refute": (204, True, lambda c: rollup(c) + key(c["opponent"]) + refutation(c["refutation"])),
    "smart_rollup_timeout": (205, True, lambda c: rollup(c) + key(c["stakers"]["alice"]) + key(c["stakers"]["bob"])),
    "smart_rollup_execute_outbox_message": (
        206,
        True,
        lambda c: rollup(c) + raw(c["cemented_commitment"]) + sized(raw(c["output_proof"])),
    ),
    "smart_rollup_recover_bond": (207, True, lambda c: rollup(c) + key(c["staker"])),
    "dal_publish_commitment": (
        230,
        True,
        lambda c: (
            unsigned(c["slot_header"]["slot_index"], 1)
            + raw(c["slot_header"]["commitment"])
            + raw(c["slot_header"]["commitment_proof"])
        ),
    ),
    "zk_rollup_origination": (
        250,
        True,
        lambda c: (
            sized(raw(c["public_parameters"]))
            + listed(c["circuits_info"], circuit)
            + listed(c["init_state"], raw)
            + signed(c["nb_ops"], 4)
        ),
    ),
    "zk_rollup_publish": (251, True, lambda c: validity_rollup(c["zk_rollup"]) + listed(c["op"], rollup_operation)),
    "zk_rollup_update": (252, True, lambda c: validity_rollup(c["zk_rollup"]) + update(c["update"])),
    "signature_prefix": (255, False, lambda c: signature_prefix(raw(c["signature_prefix"]))),
}
KINDS = frozenset(_OPERATIONS)
