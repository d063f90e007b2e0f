"""Recorded decisions of Signatory's policy, configuration and routes: ours are the same, except where they differ on purpose.

Every difference is listed with its reason, and none may be stale: the listed cases must really differ.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion
from host_backend.api.signing import signing_app
from host_backend.config import load_config
from host_backend.errors import ConfigError, HostError
from host_backend.metrics import Metrics
from host_backend.operations.messages import parse_message
from host_backend.policy import ANYONE, Caller, KeyPolicy
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app
from tests.doubles.host_process import Answer
from tests.doubles.known_keys import KEYS, PAYLOADS, SIGNATORY

PKH = KEYS["tz1alias"].pkh
_JSON_TEXT = "Go's text of a JSON error; the status is the same"
_HEX_TEXT = "Go's text of a hex error; the status is the same"
_PLACE = "the text names file, line and dotted path, not Go's structure; refused all the same"

DELIBERATE_DIFFERENCES = {
    "config error 0": _PLACE,
    "config error 1": _PLACE,
    "config error 2": _PLACE,
    "config error 3": _PLACE,
    "config error 4": _PLACE,
    "http 0": _JSON_TEXT,
    "http 1": _JSON_TEXT,
    "http 2": _HEX_TEXT,
}


def check(case: str, ours: object, theirs: object) -> None:
    """Compare, or see that the case differs as listed."""
    if case in DELIBERATE_DIFFERENCES:
        assert ours != theirs, f"{case} does not differ any more: remove it from DELIBERATE_DIFFERENCES"
    else:
        assert ours == theirs


def numbered(member: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("number", "item"), list(enumerate(SIGNATORY[member])))


def load(folder: Path, *lines: str) -> KeyPolicy | None:
    """Return the policy of the key in a configuration; None when that has no such key."""
    file = folder / "signatory.yaml"
    file.write_text("\n".join(lines) + "\n")
    return load_config(file).policies.get(PKH)


def decision(policy: KeyPolicy, payload: str) -> tuple[int, str | None]:
    """Return status and text of a policy's decision on a payload."""
    try:
        policy.check(parse_message(PAYLOADS[payload]))
    except HostError as error:
        return error.http_status, str(error)
    return 200, None


@numbered("policy_cases")
def test_policy(tmp_path: Path, number: int, item: dict[str, Any]) -> None:
    theirs = item["http_status"], item["expected_error"]
    policy = KeyPolicy(frozenset(item["allowed_requests"]), frozenset(item["allowed_ops"]))
    if "allowed_chains" in item:
        configured = load(tmp_path, f"tezos: {{{PKH}: {{allow: {{}}, allowed_chains: {item['allowed_chains']}}}}}")
        assert configured is not None
        policy = replace(policy, chains=configured.chains)
    ours = decision(policy, item["payload"])
    check(f"policy {number} {item['title']}", ours, theirs)


@numbered("ballot_subkind_cases")
def test_ballots(tmp_path: Path, number: int, item: dict[str, Any]) -> None:
    policy = load(tmp_path, f"tezos: {{{PKH}: {{allow: {json.dumps(item['allow'])}}}}}")
    assert policy is not None
    check(f"ballot {number}", decision(policy, item["payload"])[1], item["expected_error"])


@numbered("policy_config_cases")
def test_policy_configuration(tmp_path: Path, number: int, item: dict[str, Any]) -> None:
    error: str | None = None
    try:
        load(tmp_path, f"tezos: {{{PKH}: {{allow: {json.dumps(item['allow'])}}}}}")
    except ConfigError as refusal:
        # Ours goes on with the known ones, after a comma.
        error = str(refusal).partition(f"{PKH}.allow.")[2].partition(": ")[2].partition(",")[0]
    assert (error is None) == (item["error"] is None)
    check(f"policy config {number}", error, item["error"])


CONFIG_ERRORS = [
    (("tezos: {111111111111111111111111111111111111: }",), "tezos.1111…: not a public key hash: invalid checksum"),
    (
        ("tezos: {edpkv45regue1bWtuHnCgLU8xWKLwa9qRqv4gimgJKro4LSc3C5VjV: }",),
        "tezos.edpk…: not a public key hash: wrong kind: got a public key",
    ),
    (("base_dir: ''",), "base_dir: must not be empty"),
    (("server: {address: localhost}",), "server.address: must be host:port"),
    (("vaults: {kms: }",), "vaults.kms: must name a driver"),
]


@numbered("config_errors")
def test_configuration_errors(tmp_path: Path, number: int, item: dict[str, Any]) -> None:
    lines, text = CONFIG_ERRORS[number]
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/signatory\.yaml:1: {text}") as refusal:
        load(tmp_path, *lines)
    check(f"config error {number}", str(refusal.value), item["error"])


class FakeSigner(Signer):
    """A signer whose only key is three bytes and zeroes, and so is its signature, as in Signatory's test."""

    def __init__(self) -> None:
        super().__init__({}, [], MemoryWatermarkStore())

    async def sign(
        self,
        pkh: str,
        message: bytes,
        version: SigningVersion = SigningVersion.LATEST,
        caller: Caller = ANYONE,
    ) -> Signature:
        del pkh, message, version, caller
        return Signature(KeyType.ED25519, b"\1\2\3" + bytes(61))

    async def public_key(self, pkh: str) -> PublicKey:
        del pkh
        return PublicKey(KeyType.ED25519, b"\1\2\3" + bytes(29))


REQUESTS = [("POST", b""), ("POST", b"\3"), ("POST", b'"03ZZZZ"'), ("POST", b'"03"'), ("GET", b"")]


@numbered("http_responses")
def test_http_responses(number: int, item: dict[str, Any]) -> None:
    method, body = REQUESTS[number]
    assert item["request"].startswith(method)
    answer: Answer = ask_app(signing_app(FakeSigner(), Metrics(dict, "memory")), method, f"/keys/{PKH}", body)
    assert answer.status == item["status"]
    if answer.status != 200:
        assert answer.message
    check(f"http {number}", answer.body.decode(), item["body"])


def test_no_difference_is_listed_without_a_case() -> None:
    members = {"policy_cases": "policy", "ballot_subkind_cases": "ballot", "policy_config_cases": "policy config"}
    members |= {"config_errors": "config error", "http_responses": "http"}
    cases = set()
    for member, name in members.items():
        for number, item in enumerate(SIGNATORY[member]):
            cases.add(" ".join(filter(None, (name, str(number), item.get("title")))))
    assert set(DELIBERATE_DIFFERENCES) <= cases
