"""The table of inputs in `docs/threat-model.md`: each is measured, checked or harmless, and none is missing."""

import ast
import re
import time

import pytest

from enclave_signer.config import KEY_LOG
from host_backend.attestation.policy import Policy
from host_backend.attestation.verifier import AttestationRefused, TrustedKeys, verify
from tests.contract.markdown import DOCS, rows
from tests.contract.rooms import IMPORTS, modules, within
from tests.contract.test_documents import attribute
from tests.doubles.google.tokens import AUDIENCE, DIGEST, NONCE, PROJECT, Issuer, claims

PAGE = DOCS / "threat-model.md"
ROWS = rows(PAGE)
#: Of the last table, without its head.
INPUTS = ROWS[ROWS.index(["input", "chosen by", "is", "how"]) + 1 :]
NAMED = {name for row in INPUTS for name in re.findall(r"`([^`]+)`", row[0])}
#: Another value of each claim that measures something.
OTHERS: dict[str, object] = {
    "submods.container.image_digest": "sha256:" + "00" * 32,
    "submods.container.cmd_override": ["--no-guard"],
    "submods.container.env_override": {"PYTHONPATH": "/tmp"},
    "submods.confidential_space.monitoring_enabled": {"memory": True},
    "dbgstat": "enabled",
    "hwmodel": "GCP_SHIELDED_VM",
}


def enclave_modules() -> list[tuple[str, ast.Module]]:
    return [(name, tree) for name, tree in modules() if within(name, ("enclave_signer",))]


def texts() -> set[str]:
    """Return every text in the daemon's code that may be a place or a variable."""
    return {
        node.value
        for _, tree in enclave_modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_each_is_one_of_three() -> None:
    assert len(INPUTS) > 20
    assert {row[2] for row in INPUTS} == {"measured", "checked", "harmless"}


@pytest.mark.parametrize("row", [row for row in INPUTS if row[2] == "measured"], ids=lambda row: str(row[0])[:40])
def test_what_is_measured_is_compared(row: list[str]) -> None:
    """A policy that says nothing about it beyond the image refuses another value by the claim's name."""
    claim = re.findall(r"`([^`]+)`", row[3])[0]
    issuer, now = Issuer(), time.time()
    policy = Policy(audience=AUDIENCE, image_digests=frozenset({DIGEST}), projects=frozenset({PROJECT}))
    token = issuer.token(claims(now, **{claim.replace(".", "__"): OTHERS[claim]}))
    with pytest.raises(AttestationRefused) as refused:
        verify(token, trust=TrustedKeys.from_jwks(issuer.jwks()), policy=policy, nonce=NONCE, now=now)
    assert [reason.partition(": ")[0] for reason in refused.value.reasons] == [claim]


@pytest.mark.parametrize("row", [row for row in INPUTS if row[2] == "checked"], ids=lambda row: str(row[0])[:40])
def test_what_is_checked_is_checked_by_code_that_is_there(row: list[str]) -> None:
    code = re.findall(r"`(enclave_signer[\w.]+)`", row[3])
    assert code
    for name in code:
        assert attribute(name) is not None


def test_every_place_that_the_daemon_reads_is_an_input() -> None:
    places = {text for text in texts() if re.fullmatch(r"/(run|etc|dev|sys|var)/[\w./-]+", text)}
    assert places
    assert places <= NAMED


def test_every_variable_that_the_daemon_reads_is_an_input() -> None:
    read: set[str] = set()
    for name, tree in enclave_modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                on = ast.unparse(node.func.value)
                if on in {"environment", "os.environ"}:
                    read |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
        # From there it goes to what takes it as `environment`, and nowhere else.
        assert "os.environ" not in {ast.unparse(each) for each in ast.walk(tree)} or name == "enclave_signer.__main__"
    assert read
    assert {*read, KEY_LOG} <= NAMED


def test_the_metadata_server_is_never_asked() -> None:
    assert not [text for text in texts() if "169.254" in text or "metadata.google" in text]
    assert not [
        name for name, imported in IMPORTS.items() if within(name, ("enclave_signer",)) and "google.auth" in imported
    ]


def test_the_daemon_takes_no_randomness_but_the_system_s() -> None:
    """Where keys and nonces are made."""
    for name, imported in IMPORTS.items():
        if within(name, ("enclave_signer.curves", "enclave_signer.sealing", "enclave_signer.session")):
            assert not [other for other in imported if other == "random" or other.startswith("random.")], name
