"""The launcher's socket, for tokens that are made to order."""

import json
from pathlib import Path

import pytest
import trio

from enclave_signer.attestation.confidential_space import ConfidentialSpace
from enclave_signer.errors import NotAttested, TokenUnavailable
from enclave_signer.launcher import LauncherSocket
from tests.doubles.google.http_service import Answered, Asked, http_service

NONCE = "5e" * 32
JWT = b"eyJh.eyJi.c2ln"


def ask(socket: Path, limit_s: float = 60.0) -> str:
    attester = ConfidentialSpace(LauncherSocket(socket, limit_s), "https://signer.example", "PKI")
    return trio.run(attester.token, NONCE)


def served(folder: Path, answer: Answered | None, limit_s: float = 60.0) -> str:
    socket = folder / "s"
    with http_service(lambda _: answer, socket):
        return ask(socket, limit_s)


def test_what_is_asked_for(tmp_path: Path) -> None:
    asked: list[Asked] = []

    def answer(request: Asked) -> Answered:
        asked.append(request)
        return Answered(200, JWT, "text/html")

    with http_service(answer, tmp_path / "s"):
        assert ask(tmp_path / "s") == JWT.decode()
    (request,) = asked
    assert (request.method, request.path) == ("POST", "/v1/token")
    wanted = {"audience": "https://signer.example", "token_type": "PKI", "nonces": [NONCE]}
    assert json.loads(request.body) == wanted


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (Answered(400, b"rpc error: code = PermissionDenied"), NotAttested, "gives this image no token: rpc error"),
        (Answered(500, b"code = ResourceExhausted"), TokenUnavailable, "HTTP status 500: code = ResourceExhausted"),
        (Answered(200, b"{}"), TokenUnavailable, "holds no token"),
        (Answered(200, b"a.b." + b"c" * 40000), TokenUnavailable, "holds no token"),
        (Answered(200, b"x" * 70000), TokenUnavailable, "more than 65536 bytes"),
        (Answered(raw=b"not http\r\n\r\n"), TokenUnavailable, "not HTTP"),
        (Answered(500, b"see eyJhbGciOi.eyJzdWIi.c2ln"), TokenUnavailable, r"see \(token\)$"),
    ],
    ids=["denied", "quota", "no token", "too long", "far too long", "no http", "a token in an error"],
)
def test_what_comes_instead(tmp_path: Path, answer: Answered, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        served(tmp_path, answer)


def test_an_answer_has_a_time_limit(tmp_path: Path) -> None:
    with pytest.raises(TokenUnavailable, match=r"no answer within 0\.05 s"):
        served(tmp_path, None, 0.05)


def test_no_launcher(tmp_path: Path) -> None:
    with pytest.raises(TokenUnavailable, match="No such file or directory"):
        ask(tmp_path / "absent")


def test_a_socket_that_is_closed_to_this_user_has_a_message_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(_: str) -> trio.SocketStream:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trio, "open_unix_socket", denied)
    with pytest.raises(NotAttested, match="the Confidential Space image is too old for a workload that is not root"):
        ask(tmp_path / "s")
