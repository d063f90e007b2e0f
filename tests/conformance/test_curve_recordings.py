"""Our keys and signatures are those of the reference enclave, byte for byte.

Source: tee-signer 4f91388, recorded.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from enclave_signer.curves import InvalidPrivateKey, ProofNotSupported, SigningKey, VersionNotSupported, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion
from enclave_signer.protocol.values import key_type as key_type_named

Item = dict[str, object]

VECTORS = Path(__file__).parents[1] / "vectors" / "enclave-transcripts.json"


@dataclass(frozen=True, slots=True)
class Session:
    """A recorded connection; each step is a request and its reply."""

    name: str
    steps: tuple[tuple[Item, Item | str], ...]


def sessions(part_of_name: str) -> list[Session]:
    recorded = json.loads(VECTORS.read_text())["sessions"]
    found = [
        Session(item["name"], tuple((step["request"], step["reply"]) for step in item["steps"]))
        for item in recorded
        if part_of_name in item["name"]
    ]
    assert len(found) == len(set(KeyType) - {KeyType.ML_DSA_44}), "tee-signer has all but our own"
    return found


def curve_bytes(item: object) -> tuple[KeyType, bytes]:
    """Read `{"Ed25519": "h'00ff'"}`, or `{"Ed25519": "[00ff as array of integers]"}`."""
    ((name, text),) = cast("dict[str, str]", item).items()
    return key_type_named(name), recorded_bytes(text)


def recorded_bytes(text: str) -> bytes:
    if text.startswith("["):
        return bytes.fromhex(text.removeprefix("[").partition(" ")[0])
    return bytes.fromhex(text.removeprefix("h'").removesuffix("'"))


def calls(session: Session, name: str) -> Iterator[tuple[object, Item]]:
    """Yield argument and reply of every call of a name that was answered."""
    for request, reply in session.steps:
        if name in request and isinstance(reply, dict):
            yield request[name], reply


def imported(session: Session) -> SigningKey:
    """Open the key that the session imports first, and check its public key."""
    argument, reply = next(calls(session, "ImportUnencrypted"))
    key = curve(curve_bytes(argument)[0]).open(PrivateKey(*curve_bytes(argument)))
    answer = cast("Item", reply["Ok"])
    assert (key.public_key.key_type, key.public_key.data) == curve_bytes(answer["public_key"])
    return key


@pytest.mark.parametrize("session", sessions("sign with every version"), ids=lambda session: session.name)
def test_every_recorded_signature(session: Session) -> None:
    key = imported(session)
    verifying = curve(key.public_key.key_type).parse_public_key(key.public_key.data)
    checked = 0
    for argument, reply in calls(session, "Sign"):
        if "Ok" not in reply:
            continue  # versions that the codec refuses
        arguments = cast("Item", argument)
        message = recorded_bytes(cast("str", arguments["message"]))
        version = SigningVersion(cast("int", arguments["version"]))
        expected = Signature(*curve_bytes(reply["Ok"]))
        assert key.sign(message, version) == expected
        verifying.verify(expected, message, version)
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("session", sessions("sign with every version"), ids=lambda session: session.name)
def test_every_recorded_proof(session: Session) -> None:
    key = imported(session)
    for _, reply in calls(session, "ProvePossession"):
        if "Ok" in reply:
            assert key.prove_possession() == Signature(*curve_bytes(reply["Ok"]))
        else:
            with pytest.raises(ProofNotSupported):
                key.prove_possession()


def test_where_the_reference_breaks_the_connection_we_refuse() -> None:
    (session,) = (session for session in sessions("sign with every version") if session.name.startswith("Bls"))
    request, reply = session.steps[-1]
    assert reply == "connection closed"
    assert cast("Item", request["Sign"])["version"] == SigningVersion.V0
    with pytest.raises(VersionNotSupported):
        imported(session).sign(b"", SigningVersion.V0)


@pytest.mark.parametrize("session", sessions("at and beyond the edge"), ids=lambda session: session.name)
def test_private_keys_at_and_beyond_the_edge(session: Session) -> None:
    for argument, reply in calls(session, "ImportUnencrypted"):
        private_key = PrivateKey(*curve_bytes(argument))
        if "Ok" not in reply:
            with pytest.raises(InvalidPrivateKey):
                curve(private_key.key_type).open(private_key)
            continue
        public_key = curve(private_key.key_type).open(private_key).public_key
        answer = cast("Item", reply["Ok"])
        assert (public_key.key_type, public_key.data) == curve_bytes(answer["public_key"])
