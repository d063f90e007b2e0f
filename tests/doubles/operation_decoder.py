"""Reads operations into the JSON form that `operation_encoder` writes from; shares nothing with the decoder under test.

It takes more than one spelling of many things, such as long forms of numbers: written again, they have other bytes.
"""

from collections.abc import Callable
from typing import Any

from tests.doubles import operation_encoder
from tests.doubles.operation_encoder import _BALLOTS, _ENTRY_POINTS, _PVM_KINDS, sized

Json = Any
_HASHES = ("tz1", "tz2", "tz3", "tz4", "tz5")
_KEYS = {0: ("edpk", 32), 1: ("sppk", 33), 2: ("p2pk", 33), 3: ("BLpk", 48), 4: ("mdpk", 1312)}
_PREFIXES = {3: 32, 4: 2356}
_SIGNATURES = (64, 96, 2420)
_INLINED = {20: "preattestation", 21: "attestation", 23: "attestation_with_dal"}


class Unreadable(Exception):
    """The bytes are no operations."""


class Bytes:
    """The rest of a message, or of a part of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise Unreadable
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def raw(self, count: int) -> str:
        return self.take(count).hex()

    def rest(self) -> str:
        return self.raw(len(self.data))

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), signed=True)

    def part(self, size: int = 4) -> "Bytes":
        return Bytes(self.take(self.unsigned(size)))

    def whole(self, read: "Callable[[Bytes], Json]") -> Json:
        part = self.part()
        value = read(part)
        part.end()
        return value

    def listed(self, read: "Callable[[Bytes], Json]") -> list[Json]:
        part, items = self.part(), []
        while part.data:
            items.append(read(part))
        return items

    def end(self) -> None:
        if self.data:
            raise Unreadable

    def n(self) -> str:
        return str(self._groups(0, 0))

    def z(self) -> str:
        first = self.unsigned(1)
        number = self._groups(first & 0x3F, 6) if first & 0x80 else first & 0x3F
        return f"{'-' if first & 0x40 else ''}{number}"

    def _groups(self, number: int, shift: int) -> int:
        while True:
            byte = self.unsigned(1)
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def flag(self) -> bool:
        return self.unsigned(1) != 0

    def among(self, names: tuple[str, ...]) -> str:
        index = self.unsigned(1)
        if index >= len(names):
            raise Unreadable
        return names[index]


def _option(b: Bytes, name: str, read: Callable[[Bytes], Json]) -> dict[str, Json]:
    return {name: read(b)} if b.flag() else {}


def _last_option(b: Bytes, name: str, read: Callable[[Bytes], Json]) -> dict[str, Json]:
    """Read an option that earlier protocols did not have; at the end of a message its flag may be missing."""
    return _option(b, name, read) if b.data else {}


def _hash(b: Bytes) -> str:
    return f"{b.among(_HASHES)}:{b.raw(20)}"


def _key(b: Bytes) -> str:
    kind, size = _KEYS.get(b.unsigned(1), ("", -1))
    if size < 0:
        raise Unreadable
    return f"{kind}:{b.raw(size)}"


def _address(b: Bytes) -> str:
    tag = b.unsigned(1)
    if tag == 0:
        return _hash(b)
    kind = {1: "KT1", 3: "sr1", 4: "epx1"}.get(tag)
    if kind is None:
        raise Unreadable
    text = f"{kind}:{b.raw(20)}"
    b.take(1)
    return text


def micheline(b: Bytes) -> Json:
    """Return one expression as it is written, with numbers in their shortest form; any primitive may stand in it."""
    return {"written": _node(b).hex()}


def _node(b: Bytes) -> bytes:
    tag = b.unsigned(1)
    head = bytes([tag])
    if tag == 0:
        return head + operation_encoder.z(b.z())
    if tag in (1, 10):
        return head + sized(b.part().data)
    if tag == 2:
        return head + sized(b"".join(b.listed(_node)))
    if tag == 9:
        return head + b.take(1) + sized(b"".join(b.listed(_node))) + sized(b.part().data)
    if tag > 10:
        raise Unreadable
    arguments, annotated = divmod(tag - 3, 2)
    written = head + b.take(1) + b"".join(_node(b) for _ in range(arguments))
    return written + sized(b.part().data) if annotated else written


def _script(b: Bytes) -> Json:
    return b.whole(micheline)


def _bytes(b: Bytes) -> str:
    return b.part().rest()


def _text(b: Bytes, size: int = 4) -> str:
    return b.part(size).data.decode(errors="surrogateescape")


def _parameters(b: Bytes) -> Json:
    tag = b.unsigned(1)
    if tag != 255 and tag >= len(_ENTRY_POINTS):
        raise Unreadable
    name = _text(b, 1) if tag == 255 else _ENTRY_POINTS[tag]
    return {"entrypoint": name, "value": _script(b)}


def _proof(b: Bytes) -> dict[str, Json]:
    return _last_option(b, "proof", _bytes)


# Evidence.


def _content(b: Bytes) -> dict[str, Json]:
    return {"level": b.signed(4), "round": b.signed(4), "block_payload_hash": b.raw(32)}


def _member(b: Bytes) -> Json:
    return {"slot": b.unsigned(2), **_option(b, "dal_attestation", Bytes.z)}


def _aggregate(b: Bytes, member: Callable[[Bytes], Json]) -> Json:
    return {"consensus_content": _content(b), "committee": b.listed(member)}


def _inlined(b: Bytes) -> Json:
    part = b.part()
    branch, tag = part.raw(32), part.unsigned(1)
    if tag in _INLINED:
        operation = {"kind": _INLINED[tag], "slot": part.unsigned(2), **_content(part)}
        if tag == 23:
            operation["dal_attestation"] = part.z()
    elif tag in (30, 31):
        kind, read = _ANONYMOUS[tag]
        operation = {"kind": kind, **read(part)}
    else:
        raise Unreadable
    return {"branch": branch, "operations": operation, "signature": _signature(part)}


def _signature(b: Bytes) -> str:
    if len(b.data) not in _SIGNATURES:
        raise Unreadable
    return b.rest()


def _header(b: Bytes) -> Json:
    part = b.part()
    header = {
        "level": part.signed(4),
        "proto": part.unsigned(1),
        "predecessor": part.raw(32),
        "timestamp": part.signed(8),
        "validation_pass": part.unsigned(1),
        "operations_hash": part.raw(32),
        "fitness": part.listed(_bytes),
        "context": part.raw(32),
        "payload_hash": part.raw(32),
        "payload_round": part.signed(4),
        "proof_of_work_nonce": part.raw(8),
        **_option(part, "seed_nonce_hash", lambda o: o.raw(32)),
    }
    return {**header, "liquidity_baking_toggle_vote": part.among(("on", "off", "pass")), "signature": _signature(part)}


def _entrapment(b: Bytes, *, has_lag: bool) -> Json:
    head = {"attestation": _inlined(b), "consensus_slot": b.unsigned(2), "slot_index": b.unsigned(1)}
    lag = {"lag_index": b.unsigned(1) if b.flag() else None} if has_lag else {}
    shard = [b.signed(4), b.listed(lambda s: s.raw(32))]
    proof = b.raw(48)
    b.end()
    return {**head, **lag, "shard_with_proof": {"shard": shard, "proof": proof}}


def _entrapment_of_any_protocol(b: Bytes) -> Json:
    before = b.data
    try:
        return _entrapment(b, has_lag=True)
    except Unreadable:
        b.data = before
        return _entrapment(b, has_lag=False)


# Rollups.


def _refutation(b: Bytes) -> Json:
    if b.among(("start", "move")) == "start":
        return {"refutation_kind": "start", "player_commitment_hash": b.raw(32), "opponent_commitment_hash": b.raw(32)}
    choice = b.n()
    if b.among(("dissection", "proof")) == "dissection":
        step: Json = b.listed(lambda c: {**_option(c, "state", lambda o: o.raw(32)), "tick": c.n()})
    else:
        step = {"pvm_step": _bytes(b), **_option(b, "input_proof", _input_proof)}
    return {"refutation_kind": "move", "choice": choice, "step": step}


def _input_proof(b: Bytes) -> Json:
    kind = b.among(("inbox_proof", "reveal_proof", "first_input"))
    if kind == "inbox_proof":
        more = {"level": b.signed(4), "message_counter": b.n(), "serialized_proof": _bytes(b)}
    else:
        more = {"reveal_proof": _reveal_proof(b)} if kind == "reveal_proof" else {}
    return {"input_proof_kind": kind, **more}


def _reveal_proof(b: Bytes) -> Json:
    kind = b.among(("raw_data_proof", "metadata_proof", "dal_page_proof", "dal_parameters_proof"))
    more: dict[str, Json] = {}
    if kind == "raw_data_proof":
        more = {"raw_data": b.part(2).rest()}
    elif kind == "dal_page_proof":
        page = {"published_level": b.signed(4), "slot_index": b.unsigned(1), "page_index": b.signed(2)}
        more = {"dal_page_id": page, "dal_proof": _bytes(b)}
    return {"reveal_proof_kind": kind, **more}


def _commitment(b: Bytes) -> Json:
    return {
        "compressed_state": b.raw(32),
        "inbox_level": b.signed(4),
        "predecessor": b.raw(32),
        "number_of_ticks": b.signed(8),
    }


def _scalars(b: Bytes) -> list[str]:
    return b.listed(lambda s: s.raw(32))


def _rollup_operation(b: Bytes) -> Json:
    operation = {
        "op_code": b.signed(4),
        "price": {"id": b.raw(32), "amount": b.z()},
        "l1_dst": _hash(b),
        "rollup_id": b.raw(20),
        "payload": _scalars(b),
    }
    if b.among(("none", "some")) == "none":
        return [operation, None]
    return [operation, {"contents": micheline(b), "ty": micheline(b), "ticketer": _address(b)}]


def _inputs(b: Bytes, *, pending: bool) -> Json:
    name, inputs = _text(b), {"new_state": _scalars(b), "fee": b.raw(32)}
    return [name, {**inputs, "exit_validity": b.flag()} if pending else inputs]


def _update(b: Bytes) -> Json:
    return {
        "pending_pis": b.listed(lambda i: _inputs(i, pending=True)),
        "private_pis": b.listed(lambda i: _inputs(i, pending=False)),
        "fee_pi": {"new_state": _scalars(b)},
        "proof": _bytes(b),
    }


def _prefix(b: Bytes) -> Json:
    size = _PREFIXES.get(b.unsigned(1))
    if size is None:
        raise Unreadable
    return {"signature_prefix": b.raw(size)}


_ANONYMOUS: dict[int, tuple[str, Callable[[Bytes], Json]]] = {
    1: ("seed_nonce_revelation", lambda b: {"level": b.signed(4), "nonce": b.raw(32)}),
    2: (
        "double_consensus_operation_evidence",
        lambda b: {"slot": b.unsigned(2), "op1": _inlined(b), "op2": _inlined(b)},
    ),
    3: ("double_baking_evidence", lambda b: {"bh1": _header(b), "bh2": _header(b)}),
    4: ("activate_account", lambda b: {"pkh": f"tz1:{b.raw(20)}", "secret": b.raw(20)}),
    5: ("proposals", lambda b: {"source": _hash(b), "period": b.signed(4), "proposals": _scalars(b)}),
    6: (
        "ballot",
        lambda b: {"source": _hash(b), "period": b.signed(4), "proposal": b.raw(32), "ballot": b.among(_BALLOTS)},
    ),
    8: ("vdf_revelation", lambda b: {"solution": [b.raw(100), b.raw(100)]}),
    9: ("drain_delegate", lambda b: {"consensus_key": _hash(b), "delegate": _hash(b), "destination": _hash(b)}),
    17: ("failing_noop", lambda b: {"arbitrary": _bytes(b)}),
    24: ("dal_entrapment_evidence", _entrapment_of_any_protocol),
    30: ("preattestations_aggregate", lambda b: _aggregate(b, lambda m: m.unsigned(2))),
    31: ("attestations_aggregate", lambda b: _aggregate(b, _member)),
    255: ("signature_prefix", _prefix),
}
_MANAGER: dict[int, tuple[str, Callable[[Bytes], Json]]] = {
    107: ("reveal", lambda b: {"public_key": _key(b), **_proof(b)}),
    108: (
        "transaction",
        lambda b: {"amount": b.n(), "destination": _address(b), **_option(b, "parameters", _parameters)},
    ),
    109: (
        "origination",
        lambda b: {
            "balance": b.n(),
            **_option(b, "delegate", _hash),
            "script": {"code": _script(b), "storage": _script(b)},
        },
    ),
    110: ("delegation", lambda b: _option(b, "delegate", _hash)),
    111: ("register_global_constant", lambda b: {"value": _script(b)}),
    112: ("set_deposits_limit", lambda b: _option(b, "limit", Bytes.n)),
    113: ("increase_paid_storage", lambda b: {"amount": b.z(), "destination": _address(b)}),
    114: ("update_consensus_key", lambda b: {"pk": _key(b), **_proof(b)}),
    115: ("update_companion_key", lambda b: {"pk": _key(b), **_proof(b)}),
    158: (
        "transfer_ticket",
        lambda b: {
            "ticket_contents": _script(b),
            "ticket_ty": _script(b),
            "ticket_ticketer": _address(b),
            "ticket_amount": b.n(),
            "destination": _address(b),
            "entrypoint": _text(b),
        },
    ),
    200: (
        "smart_rollup_originate",
        lambda b: {
            "pvm_kind": b.among(_PVM_KINDS),
            "kernel": _bytes(b),
            "parameters_ty": _script(b),
            **_option(b, "whitelist", lambda o: o.listed(_hash)),
        },
    ),
    201: ("smart_rollup_add_messages", lambda b: {"message": b.listed(_bytes)}),
    202: ("smart_rollup_cement", lambda b: {"rollup": b.raw(20)}),
    203: ("smart_rollup_publish", lambda b: {"rollup": b.raw(20), "commitment": _commitment(b)}),
    204: (
        "smart_rollup_refute",
        lambda b: {"rollup": b.raw(20), "opponent": _hash(b), "refutation": _refutation(b)},
    ),
    205: ("smart_rollup_timeout", lambda b: {"rollup": b.raw(20), "stakers": {"alice": _hash(b), "bob": _hash(b)}}),
    206: (
        "smart_rollup_execute_outbox_message",
        lambda b: {"rollup": b.raw(20), "cemented_commitment": b.raw(32), "output_proof": _bytes(b)},
    ),
    207: ("smart_rollup_recover_bond", lambda b: {"rollup": b.raw(20), "staker": _hash(b)}),
    230: (
        "dal_publish_commitment",
        lambda b: {
            "slot_header": {"slot_index": b.unsigned(1), "commitment": b.raw(48), "commitment_proof": b.raw(96)}
        },
    ),
    250: (
        "zk_rollup_origination",
        lambda b: {
            "public_parameters": _bytes(b),
            "circuits_info": b.listed(lambda c: [_text(c), c.among(("public", "private", "fee"))]),
            "init_state": _scalars(b),
            "nb_ops": b.signed(4),
        },
    ),
    251: ("zk_rollup_publish", lambda b: {"zk_rollup": b.raw(20), "op": b.listed(_rollup_operation)}),
    252: ("zk_rollup_update", lambda b: {"zk_rollup": b.raw(20), "update": _update(b)}),
}
TAGS = {*_ANONYMOUS, *_MANAGER}


def message(data: bytes) -> tuple[str, list[Json]]:
    """Return the branch and the operations of a message.

    Raises:
        Unreadable: There are none.
    """
    b = Bytes(data)
    if b.take(1) != b"\x03":
        raise Unreadable
    branch, contents = b.raw(32), []
    while b.data:
        contents.append(_operation(b))
    return branch, contents


def _operation(b: Bytes) -> Json:
    tag = b.unsigned(1)
    if tag in _ANONYMOUS:
        kind, read = _ANONYMOUS[tag]
        return {"kind": kind, **read(b)}
    if tag not in _MANAGER:
        raise Unreadable
    kind, read = _MANAGER[tag]
    head = {"source": _hash(b), "fee": b.n(), "counter": b.n(), "gas_limit": b.n(), "storage_limit": b.n()}
    return {"kind": kind, **head, **read(b)}
