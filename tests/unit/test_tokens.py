"""Logging in, tokens, and texts that are not tokens."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Mapping

import jwt
import pytest
from starlette.types import ASGIApp

from host_backend.api import login
from host_backend.api.login import HELD_ANSWERS, HELD_PER_ADDRESS, Login
from host_backend.api.signing import signing_app
from host_backend.api.tokens import Tokens
from host_backend.config import JwtCredentials, JwtUser
from host_backend.errors import NotAuthenticated
from host_backend.metrics import Metrics
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask, ask_app
from tests.doubles.host_process import Answer
from tests.doubles.known_keys import FOUR, SIGNATORY, transaction

EXAMPLE = SIGNATORY["jwt_token_example"]
USER, PASSWORD, SECRET = EXAMPLE["user"], EXAMPLE["password"], EXAMPLE["secret"]
OLD = JwtCredentials("an old Password 1", "an old Secret that is long enough 1", 5)
OTHER = JwtCredentials("another Password 2", "another Secret that is long enough 2")
PKH = FOUR[0].pkh


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    users = {
        USER: JwtUser(JwtCredentials(PASSWORD, SECRET, 30), OLD, clock.now + 1000),
        "other": JwtUser(OTHER),
    }
    return Tokens(users, clock)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def token(claims: object, secret: str = SECRET, algorithm: str = "HS256", head: object = None) -> str:
    """Return a token made without the library; `head` takes the place of the usual one."""
    signed = f"{segment({'alg': algorithm, 'typ': 'JWT'} if head is None else head)}.{segment(claims)}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(algorithm)
    signature = b"" if digest is None else hmac.new(secret.encode(), signed.encode(), digest).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def refusal(tokens: Tokens, text: str, user: str = USER) -> str:
    with pytest.raises(NotAuthenticated) as refused:
        tokens.check(text, user)
    return str(refused.value)


def test_the_recorded_token_is_taken(tokens: Tokens) -> None:
    assert tokens.check(f"Bearer {EXAMPLE['token']}", USER) == USER
    assert tokens.check(EXAMPLE["token"], USER) == USER
    assert token(EXAMPLE["claims"]) == EXAMPLE["token"]


def test_a_login_gives_a_token_that_expires(tokens: Tokens, clock: Clock) -> None:
    text = tokens.login(USER, PASSWORD)
    assert jwt.get_unverified_header(text) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "==")) == {"exp": clock.now + 1800, "user": USER}
    assert tokens.check(text, USER) == USER
    clock.now += 1799.9
    assert tokens.check(text, USER) == USER
    clock.now += 0.1
    assert refusal(tokens, text) == "token has invalid claims: token is expired"


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"user": USER}, "token has invalid claims: exp, in seconds since 1970, is required"),
        ({"user": USER, "exp": "4102444800"}, "token has invalid claims: exp, in seconds since 1970, is required"),
        ({"user": USER, "exp": True}, "token has invalid claims: exp, in seconds since 1970, is required"),
        ({"user": USER, "exp": float("nan")}, "token has invalid claims: exp, in seconds since 1970, is required"),
        ({"user": USER, "exp": float("inf")}, "token has invalid claims: exp, in seconds since 1970, is required"),
        ({"user": USER, "exp": -1}, "token has invalid claims: token is expired"),
        ({"user": USER, "exp": 4102444800, "nbf": 4102444799}, "token has invalid claims: token is not valid yet"),
        (
            {"user": USER, "exp": 4102444800, "nbf": []},
            "token has invalid claims: exp, in seconds since 1970, is required",
        ),
        ({"exp": 4102444800}, "JWT: invalid token"),
        ({"user": "other", "exp": 4102444800}, "JWT: invalid token"),
        ({"user": [USER], "exp": 4102444800}, "JWT: invalid token"),
        ({"user": None, "exp": 4102444800}, "JWT: invalid token"),
        ([USER], "token is malformed: not a JSON web token"),
        ("text", "token is malformed: not a JSON web token"),
    ],
)
def test_claims_that_are_refused(tokens: Tokens, claims: object, text: str) -> None:
    assert refusal(tokens, token(claims)) == text


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "HS512", "RS256", ""])
def test_other_algorithms(tokens: Tokens, algorithm: str) -> None:
    text = token(EXAMPLE["claims"], algorithm=algorithm)
    assert refusal(tokens, text) == "token signature is invalid: the signing method must be HS256"


@pytest.mark.parametrize(
    "head",
    [
        *({"alg": alg} for alg in ("hs256", None, ["HS256"], {"HS256": 1}, 1)),
        *({"alg": "HS256", "crit": crit} for crit in (["x"], ["b64"], "x")),
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        *({}, [], "HS256", 1),
    ],
    ids=str,
)
def test_heads_that_are_refused(tokens: Tokens, head: object) -> None:
    assert refusal(tokens, token(EXAMPLE["claims"], head=head)).startswith("token ")


@pytest.mark.parametrize(
    "more", [{"jwk": {"kty": "oct", "k": "AA"}}, {"kid": "../../dev/null"}, {"x5u": "http://127.0.0.1:1/"}], ids=str
)
def test_a_key_that_the_head_names_is_not_looked_at(tokens: Tokens, more: dict[str, object]) -> None:
    head = {"alg": "HS256", **more}
    assert tokens.check(token(EXAMPLE["claims"], head=head), USER) == USER
    for secret in ("", "\0", OTHER.secret):
        assert "signature is invalid" in refusal(tokens, token(EXAMPLE["claims"], secret, head=head))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "token required"),
        ("Bearer", "token is malformed: token contains an invalid number of segments"),
        ("Bearer x", "token is malformed: token contains an invalid number of segments"),
        ("a.b", "token is malformed: token contains an invalid number of segments"),
        ("a.b.c.d", "token is malformed: token contains an invalid number of segments"),
        ("..", "token is malformed: not a JSON web token"),
        ("a.b.c", "token is malformed: not a JSON web token"),
        ("é.é.é", "token is malformed: not a JSON web token"),
        ("\udcff.\udcff.\udcff", "token is malformed: not a JSON web token"),
        ("x" * 5000, "token is malformed: it is over 4096 characters"),
        (token(EXAMPLE["claims"], OTHER.secret), "token signature is invalid: signature is invalid"),
    ],
)
def test_what_is_no_token(tokens: Tokens, text: str, why: str) -> None:
    assert refusal(tokens, text) == why


def test_users_of_tokens(tokens: Tokens) -> None:
    assert refusal(tokens, EXAMPLE["token"], "nobody") == "JWT: user not found"
    assert refusal(tokens, EXAMPLE["token"], "") == "JWT: user not found"
    assert refusal(tokens, EXAMPLE["token"], "other") == "token signature is invalid: signature is invalid"


def test_while_credentials_change_the_old_ones_are_good(tokens: Tokens, clock: Clock) -> None:
    old = tokens.login(USER, OLD.password)
    assert tokens.check(old, USER) == USER
    assert tokens.check(tokens.login(USER, PASSWORD), USER) == USER
    clock.now += 1000
    with pytest.raises(NotAuthenticated, match=r"^Access denied$"):
        tokens.login(USER, OLD.password)
    assert refusal(tokens, old) == "token signature is invalid: signature is invalid"
    assert tokens.check(tokens.login(USER, PASSWORD), USER) == USER


def test_logins_that_are_refused(tokens: Tokens) -> None:
    for user, password in (("", PASSWORD), (USER, ""), ("", "")):
        with pytest.raises(NotAuthenticated, match=r"^username and password required$"):
            tokens.login(user, password)
    for user, password in ((USER, "wrong"), ("nobody", PASSWORD), ("other", PASSWORD), (USER, "\udcff")):
        with pytest.raises(NotAuthenticated, match=r"^Access denied$"):
            tokens.login(user, password)


@pytest.fixture
def app(tokens: Tokens) -> tuple[Metrics, "AskLogin"]:
    metrics = Metrics(dict, "memory")
    signer = Signer(
        {PKH: KeyPolicy(frozenset({"generic"}), users=frozenset({"other"}))},
        [],
        MemoryWatermarkStore(),
        observer=metrics,
    )
    return metrics, AskLogin(signing_app(signer, metrics, login=Login(tokens, metrics)))


class AskLogin:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return ask_app(self._app, method, path, body, headers=headers)


def test_login_over_http(app: tuple[Metrics, AskLogin]) -> None:
    metrics, ask = app
    answer = ask("POST", "/login", headers={"username": USER, "password": PASSWORD})
    assert (answer.status, answer.headers["content-type"]) == (201, "text/plain; charset=utf-8")
    headers = {"authorization": f"Bearer {answer.body.decode()}", "username": USER}
    assert ask("GET", "/authorized_keys", headers=headers).body == b"{}\n"
    assert ask("GET", f"/keys/{PKH}", headers=headers).status == 404
    assert ask("GET", "/known_keys", headers=headers).status == 200

    answer = ask("POST", "/login", headers={"username": USER, "password": "wrong"})
    assert (answer.status, answer.body) == (401, b"Access denied")
    assert ask("GET", "/login").status == 405
    for path in ("/authorized_keys", f"/keys/{PKH}", "/known_keys", "/mode", f"/bls_prove_possession/{PKH}"):
        answer = ask("GET", path)
        assert (answer.status, answer.body) == (401, b"token required")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert ask("GET", "/nope").status == 404
    assert metrics.authentications.values == {("401", "login"): 1, ("401", "jwt"): 5}


def test_wrong_passwords_are_answered_slowly_and_the_right_one_at_once(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[asyncio.Future[None]] = []

    async def sleep(seconds: float) -> None:
        assert seconds == login.WRONG_PASSWORD_S
        held.append(asyncio.get_running_loop().create_future())
        await held[-1]

    app = signing_app(
        Signer({}, [], MemoryWatermarkStore()), Metrics(dict, "memory"), login=Login(tokens, Metrics(dict, "memory"))
    )

    async def ask_login(password: str, address: str) -> int:
        headers = {"username": USER, "password": password}
        return (await ask(app, "POST", "/login", headers=headers, address=address)).status

    async def run() -> None:
        waiting = [
            asyncio.create_task(ask_login("wrong", f"192.0.2.{number % 9}")) for number in range(HELD_ANSWERS + 8)
        ]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(held) == HELD_ANSWERS
        assert await ask_login(PASSWORD, "192.0.2.1") == 201
        # More are not held back, of one address or of all.
        assert await ask_login("wrong", "198.51.100.1") == 429
        for future in held:
            future.set_result(None)
        assert Counter(await asyncio.gather(*waiting)) == {401: HELD_ANSWERS, 429: 8}
        held.clear()
        one = [asyncio.create_task(ask_login("wrong", "192.0.2.1")) for _ in range(HELD_PER_ADDRESS + 1)]
        assert await one[-1] == 429
        assert await ask_login(PASSWORD, "192.0.2.1") == 201
        for future in held:
            future.set_result(None)
        assert Counter(await asyncio.gather(*one)) == {401: HELD_PER_ADDRESS, 429: 1}

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(run())


def test_a_key_for_some_users(app: tuple[Metrics, AskLogin]) -> None:
    _, ask = app
    body = json.dumps(transaction(1).hex()).encode()
    for user, credentials, status in ((USER, PASSWORD, 403), ("other", OTHER.password, 404)):
        text = ask("POST", "/login", headers={"username": user, "password": credentials}).body.decode()
        answer = ask("POST", f"/keys/{PKH}", body, {"authorization": text, "username": user})
        assert answer.status == status
        if status == 403:
            assert answer.message == f"user `{USER}' is not authorized to access {PKH}"
