"""From the JSON of Octez' RPCs to what `operation_encoder` takes: base58 becomes hex, dates become seconds."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import base58

from tests.doubles import operation_encoder

Json = Any
MAINNET = bytes.fromhex("7a06a770")
#: How a text begins, and how many bytes of content it ends with. Of these the kind is kept, for it stands in the message.
_NAMED = {"tz1": 20, "tz2": 20, "tz3": 20, "tz4": 20, "tz5": 20, "KT1": 20, "sr1": 20, "epx1": 20}
_NAMED |= {"edpk": 32, "sppk": 33, "p2pk": 33, "BLpk": 48, "mdpk": 1312}
_BARE = {"B": 32, "vh": 32, "Co": 32, "LLo": 32, "P": 32, "nce": 32, "src1": 32, "srs1": 32, "sh": 48}
_BARE |= {"BLsig": 96, "sig": 64}
_PREFIX_BYTES = range(2, 6)


_VOTES: Mapping[str, tuple[int, int, Callable[[Mapping[str, Json]], bytes]]] = {
    "preattestation": (0x12, 20, operation_encoder.vote),
    "attestation": (0x13, 21, operation_encoder.vote),
    "attestation_with_dal": (0x13, 23, lambda c: operation_encoder.vote(c) + operation_encoder.z(c["dal_attestation"])),
    "bls_mode_preattestation": (0x12, 40, operation_encoder.consensus_content),
    "bls_mode_attestation": (0x13, 41, operation_encoder.consensus_content),
}


def _vote(chain: bytes, branch: str, contents: Mapping[str, Json]) -> bytes:
    """Write a vote as a baker signs it."""
    magic, tag, encode = _VOTES[contents["kind"]]
    return bytes([magic]) + chain + operation_encoder.raw(branch) + bytes([tag]) + encode(contents)


def _block(chain: bytes, header: Json) -> bytes:
    """Write a block header as a baker signs it."""
    return b"\x11" + chain + operation_encoder.unsigned_header(header)


def encoded(item: Mapping[str, Json]) -> bytes:
    """Write the message of a vector of `protocols.json` from its JSON form."""
    decoded = item["decoded"]
    if item["kind"] == "block":
        return _block(MAINNET, _plain(decoded))
    contents = _plain(decoded["contents"])
    branch = _plain(decoded["branch"])
    if item["kind"] != "generic":
        return _vote(MAINNET, branch, contents[0])
    if contents[0]["kind"] == "dal_entrapment_evidence" and "024" not in item["protocols"]:
        contents[0].setdefault("lag_index", None)
    return operation_encoder.message(branch, contents)


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> Json:
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+Z", text):
        return int(datetime.fromisoformat(text).timestamp())
    try:
        data = base58.b58decode_check(text)
    except ValueError:
        return text
    for kinds in (_NAMED, _BARE):
        for begin, size in kinds.items():
            if text.startswith(begin) and len(data) - size in _PREFIX_BYTES:
                return f"{begin}:{data[-size:].hex()}" if kinds is _NAMED else data[-size:].hex()
    raise AssertionError(f"unknown kind of base58: {text}")
