"""The double of the launcher's socket keeps the rules of the real one, so that what passes here passes there."""

import http.client
import json
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_backend.attestation.policy import Policy
from host_backend.attestation.verifier import PinnedRoot, Trust, TrustedKeys, verify
from tests.doubles.google.launcher import LauncherDouble, token
from tests.doubles.google.tokens import AUDIENCE, DIGEST, NONCE, PROJECT, Chain

POLICY = Policy(audience=AUDIENCE, image_digests=frozenset({DIGEST}), projects=frozenset({PROJECT}))
WANTED = {"audience": AUDIENCE, "token_type": "OIDC", "nonces": [NONCE]}


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LauncherDouble]:
    with LauncherDouble(tmp_path).serving() as double:
        yield double


def ask(launcher: LauncherDouble, body: object, method: str = "POST", path: str = "/v1/token") -> tuple[int, str]:
    connection = http.client.HTTPConnection("launcher")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(launcher.socket))
    text = body if isinstance(body, str) else json.dumps(body)
    connection.request(method, path, text)
    answer = connection.getresponse()
    assert answer.headers["content-type"] == "text/html"
    said = answer.status, answer.read().decode()
    connection.close()
    return said


def verified(token: str, trust: Trust) -> object:
    return verify(token, trust=trust, policy=POLICY, nonce=NONCE, now=time.time()).claims["eat_nonce"]


def test_tokens_of_both_types_are_what_the_verifier_wants(launcher: LauncherDouble) -> None:
    keys = TrustedKeys.from_jwks(launcher.issuer.jwks())
    assert verified(ask(launcher, WANTED)[1], keys) == NONCE
    both = ["another nonce", NONCE]
    assert verified(ask(launcher, {**WANTED, "nonces": both})[1], keys) == both
    # What it does not know is passed on as unspecified, and trailing bytes are not read.
    assert verified(ask(launcher, {**WANTED, "token_type": "JPEG"})[1], keys) == NONCE
    assert ask(launcher, json.dumps(WANTED) + "{")[0] == 200
    launcher.chain = Chain("another")
    root = PinnedRoot.from_pem(launcher.chain.root_pem)
    assert verified(ask(launcher, {**WANTED, "token_type": "PKI"})[1], root) == NONCE
    launcher.issuer.rotate()
    assert verified(ask(launcher, WANTED)[1], TrustedKeys.from_jwks(launcher.issuer.jwks())) == NONCE


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("", 400, "failed to parse"),
        ("{", 400, "failed to parse"),
        ([], 400, "failed to parse"),
        ({**WANTED, "eat_nonce": NONCE}, 400, "unknown field"),
        ({"token_type": "OIDC"}, 400, "use GET request"),
        ({"audience": AUDIENCE}, 400, "token_type"),
        ({**WANTED, "nonces": ["n" * 9]}, 400, "InvalidArgument"),
        ({**WANTED, "nonces": ["n" * 75]}, 400, "InvalidArgument"),
        ({**WANTED, "nonces": [NONCE] * 7}, 400, "InvalidArgument"),
        ({**WANTED, "audience": "a" * 513}, 400, "InvalidArgument"),
    ],
)
def test_what_is_refused(launcher: LauncherDouble, body: object, status: int, text: str) -> None:
    found = ask(launcher, body)
    assert found[0] == status
    assert text in found[1]


@pytest.mark.parametrize(
    ("code", "status"),
    [("PermissionDenied", 400), ("ResourceExhausted", 500), ("Unavailable", 500), ("DeadlineExceeded", 500)],
)
def test_what_the_service_fails_at(launcher: LauncherDouble, code: str, status: int) -> None:
    launcher.failing = code
    assert ask(launcher, WANTED) == (
        status,
        f"failed to retrieve custom attestation service token: rpc error: code = {code} desc = …",
    )


def test_other_methods_and_paths(launcher: LauncherDouble) -> None:
    assert ask(launcher, WANTED, "PUT")[0] == 400
    assert ask(launcher, WANTED, path="/v1/tokens")[0] == 404
    assert ask(launcher, WANTED, path="/v1/intel/token")[0] == 500
    status, made = ask(launcher, "", "GET")
    assert status == 200
    assert made.count(".") == token().count(".")


def test_the_mode_of_the_socket(tmp_path: Path) -> None:
    launcher = LauncherDouble(tmp_path)
    for mode in (0o777, 0o755):
        launcher.mode = mode
        with launcher.serving():
            assert stat.S_IMODE(launcher.socket.stat().st_mode) == mode
        launcher.socket.unlink()
