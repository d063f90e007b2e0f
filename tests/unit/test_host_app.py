"""Addresses to listen on, folders that cannot be had, and bugs that are reported as bugs."""

import gc
import json
import logging
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import PublicKey, Signature, SigningVersion
from enclave_signer.tezos import parse_public_key
from host_backend.addresses import Address
from host_backend.api.access_log import client_address
from host_backend.api.auth import RequestKeys
from host_backend.api.health import NOTHING_ALLOWED
from host_backend.api.listeners import bind
from host_backend.api.signing import signing_app
from host_backend.api.utility import utility_app
from host_backend.app import freeze_objects
from host_backend.authentication import authentication_bytes
from host_backend.cli import commands
from host_backend.cli.answer import Answer
from host_backend.config import load_config
from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.exposition import page
from host_backend.metrics import Metrics
from host_backend.policy import ANYONE, DEFAULT_POLICY, Caller, KeyPolicy
from host_backend.signer import Signer
from host_backend.steps import Steps
from host_backend.stores import marks_admin
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.octez_client import signature_by
from tests.doubles.watermarks import KEY

PKH = FOUR[0].pkh
AUTH = KEYS["auth"]


def reachable(listener: socket.socket, host: str) -> bool:
    try:
        socket.create_connection((host, listener.getsockname()[1]), timeout=60).close()
    except OSError:
        return False
    return True


def test_an_address_without_host_is_all_interfaces() -> None:
    with bind(Address("", 0)) as listener:
        assert reachable(listener, "127.0.0.1")
        assert reachable(listener, "127.0.0.2")


def test_an_address_is_itself_only() -> None:
    with bind(Address("127.0.0.1", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not reachable(listener, "127.0.0.2")
    with bind(Address("localhost", 0)) as listener:
        assert reachable(listener, "127.0.0.1")


def test_addresses_that_cannot_be_had() -> None:
    # 192.0.2.0/24 is for documents, and no machine's own.
    with pytest.raises(ConfigError, match=r"^cannot listen on 192\.0\.2\.1:0: Cannot assign requested address$"):
        bind(Address("192.0.2.1", 0))
    with pytest.raises(ConfigError, match=r"^cannot listen on \[2001:db8::1\]:0: "):
        bind(Address("2001:db8::1", 0))
    with bind(Address("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"^cannot listen on {address}: Address already in use$"):
            bind(address)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "s.yaml").write_text(f"base_dir: {tmp_path}/file/folder\n")
    with pytest.raises(StoreUnavailable, match=rf"base_dir {tmp_path}/file/folder cannot be made: "):
        marks_admin(load_config(tmp_path / "s.yaml")).create()


class BuggySigner(Signer):
    """A signer that fails as no signer should."""

    def __init__(self, error: Exception) -> None:
        super().__init__({}, [], MemoryWatermarkStore())
        self._error = error

    async def sign(
        self,
        pkh: str,
        message: bytes,
        version: SigningVersion = SigningVersion.LATEST,
        caller: Caller = ANYONE,
    ) -> Signature:
        del pkh, message, version, caller
        raise self._error

    async def prove_possession(
        self, pkh: str, caller: Caller = ANYONE, *, bound_to: PublicKey | None = None
    ) -> Signature:
        del pkh, caller, bound_to
        raise self._error


def test_a_bug_is_answered_without_its_text_and_logged_with_it(caplog: pytest.LogCaptureFixture) -> None:
    app = signing_app(BuggySigner(KeyError("what nobody outside should read")), Metrics(dict, "memory"))
    answer = ask_app(app, "POST", f"/keys/{PKH}", b'"03"')
    assert (answer.status, answer.message) == (500, "internal error")
    assert "a request failed because of a bug" in caplog.text
    assert "what nobody outside should read" in caplog.text


PAGE = {"origin": "https://example.com", "sec-fetch-site": "cross-site", "content-type": "text/plain"}


@pytest.mark.parametrize(("method", "path"), [("POST", f"/keys/{PKH}"), ("GET", f"/bls_prove_possession/{PKH}")])
@pytest.mark.parametrize("headers", [PAGE, {"origin": "null"}, {"sec-fetch-site": "cross-site"}])
def test_a_web_page_has_nothing_signed(method: str, path: str, headers: dict[str, str]) -> None:
    app = signing_app(BuggySigner(WatermarkRejected("reached")), Metrics(dict, "memory"))
    answer = ask_app(app, method, path, b'"03"', headers=headers)
    assert answer.status == 403
    assert answer.message.startswith("a web page asks")
    assert (
        ask_app(app, method, path, b'"03"', headers={"host": "h", "sec-fetch-site": "none"}).message != answer.message
    )


def test_a_web_page_that_signs_its_requests_is_a_client() -> None:
    keys = RequestKeys([parse_public_key(AUTH.public_key)])
    signer = BuggySigner(WatermarkRejected("reached"))
    app = signing_app(signer, Metrics(dict, "memory"), request_keys=keys)
    query = b"authentication=" + signature_by(AUTH, authentication_bytes(PKH, b"\3")).encode()
    assert ask_app(app, "POST", f"/keys/{PKH}", b'"03"', query, headers=PAGE).message == "reached"
    assert ask_app(app, "POST", f"/keys/{PKH}", b'"03"', headers=PAGE).status == 401


def test_an_ipv4_client_is_told_of_as_such_on_any_socket() -> None:
    with bind(Address("", 0)) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        client, peer = listener.accept()
        client.close()
    assert client_address({"client": peer[:2]}) == "127.0.0.1"
    assert client_address({"client": ("::1", 1)}) == "::1"
    assert client_address({"client": None}) == ""


def test_a_damaged_mark_is_told_by_the_health_of_the_host_which_is_ready() -> None:
    store = MemoryWatermarkStore()
    app = utility_app([SomeVault("a")], store, lambda: {"a": DEFAULT_POLICY}, lambda: False, lambda: page(()), Steps())
    assert json.loads(ask_app(app, "GET", "/healthz").body) == {"ready": True}
    store.refused = {KEY: "the mark is damaged"}
    answer = ask_app(app, "GET", "/healthz")
    assert (answer.status, json.loads(answer.body)) == (200, {"ready": True, "degraded": ["the mark is damaged"]})
    store.problem = "the disk"
    answer = ask_app(app, "GET", "/healthz")
    assert answer.status == 503
    assert json.loads(answer.body) == {"ready": False, "reasons": ["the disk"], "degraded": ["the mark is damaged"]}


class SomeVault(Vault):
    """A vault as health sees it."""

    def __init__(
        self,
        serving: Iterable[str] = (),
        stored: Iterable[str] = (),
        out: Iterable[str] = (),
        problem: str | None = None,
    ) -> None:
        self.name = "v"
        self._serving, self._all, self._out = {*serving}, {*serving, *stored}, dict.fromkeys(out, "broken")
        self._problem = problem

    @property
    def out_of_service(self) -> dict[str, str]:
        return self._out

    @property
    def unreleased(self) -> dict[str, str]:
        return {}

    @property
    def problem(self) -> str | None:
        return self._problem

    @property
    def degraded(self) -> list[str]:
        return [f"{pkh}: {reason}" for pkh, reason in self._out.items()]

    def serves(self, pkh: str) -> bool:
        return pkh in self._serving

    def holds(self, pkh: str) -> bool:
        assert pkh not in self._out
        return pkh in self._all


@pytest.mark.parametrize(
    ("listed", "vaults", "reasons", "degraded"),
    [
        ("", [], [NOTHING_ALLOWED], []),
        ("", [SomeVault(out="a")], [NOTHING_ALLOWED], ["a: broken"]),
        ("a", [SomeVault("a")], [], []),
        ("ab", [SomeVault("b")], [], ["a: in no vault"]),
        ("ab", [SomeVault("b", stored="a")], [], ["a: not in service yet"]),
        ("ab", [SomeVault("b", out="a")], [], ["a: broken"]),
        ("a", [SomeVault(out="a"), SomeVault("a")], [], ["a: broken"]),
        ("a", [SomeVault("b")], ["no key …, a: in no vault"], ["a: in no vault"]),
        ("ab", [SomeVault(out="ba")], ["no key …, a: broken"], ["b: broken", "a: broken"]),
        ("ab", [SomeVault(out="a")], ["no key …, a: broken"], ["a: broken", "b: in no vault"]),
        # A stored key of an enclave that is away is not named beside that.
        ("ab", [SomeVault(stored="ab", problem="away")], ["v: away"], []),
        ("ab", [SomeVault("b"), SomeVault(stored="a", problem="away")], ["v: away"], []),
        (
            "ab",
            [SomeVault(out="a"), SomeVault(stored="a", problem="away")],
            ["v: away"],
            ["a: broken", "b: in no vault"],
        ),
        ("a", [SomeVault(out="a", problem="away")], ["v: away", "no key …, a: broken"], ["a: broken"]),
    ],
)
def test_health_is_that_of_the_keys_that_are_listed(
    listed: str, vaults: list[Vault], reasons: list[str], degraded: list[str]
) -> None:
    policies = dict.fromkeys(listed, DEFAULT_POLICY)
    app = utility_app(vaults, MemoryWatermarkStore(), lambda: policies, lambda: False, lambda: page(()), Steps())
    answer = ask_app(app, "GET", "/healthz")
    body = json.loads(answer.body)
    assert (answer.status, body["ready"]) == (503 if reasons else 200, not reasons)
    whole = [each.replace("…", "under `tezos` can sign; the first of them") for each in reasons]
    assert (body.get("reasons", []), body.get("degraded", [])) == (whole, degraded)


@pytest.mark.parametrize(
    ("of_b", "reasons"),
    [
        (KeyPolicy(frozenset()), [NOTHING_ALLOWED]),
        (KeyPolicy(frozenset(), allow_proof_of_possession=True), []),
        (DEFAULT_POLICY, []),
    ],
)
def test_a_key_that_may_sign_nothing_makes_no_host_ready(of_b: KeyPolicy, reasons: list[str]) -> None:
    policies = {"a": KeyPolicy(frozenset()), "b": of_b}
    vaults = [SomeVault("ab")]
    app = utility_app(vaults, MemoryWatermarkStore(), lambda: policies, lambda: False, lambda: page(()), Steps())
    assert json.loads(ask_app(app, "GET", "/healthz").body).get("reasons", []) == reasons


def test_a_refusal_is_answered_with_its_text() -> None:
    text = 'watermark validation failed: <"é">'
    answer = ask_app(
        signing_app(BuggySigner(WatermarkRejected(text)), Metrics(dict, "memory")), "POST", f"/keys/{PKH}", b'"03"'
    )
    assert (answer.status, answer.message) == (409, text)


def test_what_is_there_at_the_start_is_not_looked_through_for_garbage_again() -> None:
    there: list[list[int]] = [[] for _ in range(1000)]
    try:
        freeze_objects()
        assert gc.get_freeze_count() > len(there)
        looked_through = {id(each) for each in gc.get_objects()}
        assert not looked_through & {id(each) for each in there}
    finally:
        gc.unfreeze()


def test_a_bug_of_a_command_has_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert commands._failed(RuntimeError("what happened"), Answer()) == 70
    assert capsys.readouterr().err == "Error: internal error: see the log above\n"
    assert "RuntimeError: what happened" in caplog.text
    assert commands._failed(StoreUnavailable("the disk"), Answer()) == 1
    assert commands._failed(ConfigError("the file"), Answer()) == 2
    assert capsys.readouterr().err == "Error: the disk\nError: the file\n"
