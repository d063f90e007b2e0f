"""What tee-signer answered to 215 fixed requests, against the daemon; each wanted difference is named and counted."""

import json
from collections import Counter
from pathlib import Path

import cbor2
import pytest

from tests.doubles.processes import Enclave
from tests.doubles.wire import WireClient

TRANSCRIPTS = json.loads((Path(__file__).parents[1] / "vectors" / "enclave-transcripts.json").read_text())

#: Why an answer is of another outcome than tee-signer's, and in how many steps.
DIFFERENCES = {
    "absent version means the latest": 16,
    "messages of up to 32 KiB are signed": 2,
    "unknown fields are refused": 1,
    "bytes after the item are refused": 1,
    "what was refused made no handle": 1,
}
#: Steps at which tee-signer's handler died and dropped the connection: BLS with version 0. Ours answers `Err`.
DROPPED_BY_TEE_SIGNER = 1


def plain(value: object) -> object:
    """Return a reply so that two enclaves' can be compared: no blobs, integer arrays as bytes."""
    if isinstance(value, list) and value:
        return bytes(value)
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items() if name != "encrypted_private_key"}
    return value


def reason(session: str, request: object, request_hex: str) -> str:
    """Name the difference that an answer of another outcome stands for."""
    if session == "trailing bytes, then a good call":
        return "what was refused made no handle" if request == {"PublicKey": 0} else "bytes after the item are refused"
    if session == "unknown field in Sign":
        return "unknown fields are refused"
    if len(request_hex) > 2 * 4096:
        return "messages of up to 32 KiB are signed"
    assert isinstance(request, dict)
    (call,) = request.values()
    assert "version" not in call
    return "absent version means the latest"


def test_answers_equal_tee_signers_but_for_the_named_differences(enclave: Enclave) -> None:
    seen: Counter[str] = Counter()
    dropped = steps = 0
    for session in TRANSCRIPTS["sessions"]:
        with WireClient(enclave.address, initialize=False) as client:
            for step in session["steps"]:
                steps += 1
                client.send_frame(bytes.fromhex(step["request_hex"]))
                ours = client.receive()
                if "reply_hex" not in step:
                    assert "Err" in ours
                    dropped += 1
                    continue
                theirs = cbor2.loads(bytes.fromhex(step["reply_hex"]))
                if theirs.keys() != ours.keys():
                    seen[reason(session["name"], step["request"], step["request_hex"])] += 1
                elif "Ok" in ours:
                    assert plain(ours) == plain(theirs), f"{session['name']}: {step['request']}"
    assert steps == sum(len(session["steps"]) for session in TRANSCRIPTS["sessions"]) == 215
    assert seen == DIFFERENCES
    assert dropped == DROPPED_BY_TEE_SIGNER


def test_texts_that_peers_rely_on(enclave: Enclave) -> None:
    with WireClient(enclave.address, initialize=False) as client:
        assert client.call({"PublicKey": 0}) == {"Err": {"message": "uninitialized", "source": None}}
        assert client.call({"Initialize": {}}) == {"Ok": None}
        assert client.call({"Initialize": {}}) == {"Err": {"message": "already initialized", "source": None}}


def test_arrays_in_place_of_maps_are_refused(enclave: Enclave) -> None:
    with WireClient(enclave.address) as client:
        client.call({"GenerateAndImport": "Ed25519"})
        assert "Ok" in client.call({"Sign": {"handle": 0, "message": b"m", "version": 2}})
        reply = client.call({"Sign": [0, b"m", 2]})
        assert reply == {"Err": {"message": "Sign must be a map, not an array", "source": None}}


def test_bls_with_version_0_is_refused_and_the_session_goes_on(enclave: Enclave) -> None:
    with WireClient(enclave.address) as client:
        client.call({"GenerateAndImport": "Bls"})
        assert "Err" in client.call({"Sign": {"handle": 0, "message": b"m", "version": 0}})
        assert "Ok" in client.call({"Sign": {"handle": 0, "message": b"m", "version": 2}})


def test_signatures_are_byte_strings(enclave: Enclave) -> None:
    with WireClient(enclave.address) as client:
        client.call({"GenerateAndImport": "Ed25519"})
        match client.call({"Sign": {"handle": 0, "message": b"m", "version": 2}}):
            case {"Ok": {"Ed25519": bytes(signature)}}:
                assert len(signature) == 64
            case other:
                pytest.fail(f"unexpected reply {other}")
