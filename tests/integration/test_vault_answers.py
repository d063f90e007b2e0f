"""What a server that is not what it should be answers: bounded, understood or refused, and no secret is shown."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enclave_signer.errors import BlobCorrupt, ConfigError, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.sealing.vault_client import MAX_ANSWER_BYTES
from enclave_signer.sealing.vault_transit import VaultTimes, VaultTransit
from tests.doubles.certificates import Authority
from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.vault.openbao import token_login
from tests.doubles.vault.sealing import AT_ONCE, PUBLIC, opened, sealed, vault_config

KEY = "vault_transit:vault.example/transit/tezos"
TOKEN = "hvs.CAESIGsecretTokenOfAServer"
CIPHERTEXT = "vault:v1:AAAA"
BLOB = BlobHeader("vault_transit", KEY, PUBLIC).encode() + CIPHERTEXT.encode()
GOOD_KEY = {"type": "aes256-gcm96", "derived": False, "exportable": False, "allow_plaintext_backup": False}


def as_json(value: object, status: int = 200) -> Answered:
    return Answered(status, json.dumps(value).encode())


class Server:
    """Answers each request as `answer` says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer: Callable[[Asked], Answered | None] = lambda _: as_json({})
        (folder / "token").write_text(TOKEN)
        self.asked: list[str] = []
        self.image = ""

    def listen_at(self, scheme: str, port: int, more: str = "") -> None:
        self.image = (
            f'development = true\nsealers = ["vault_transit"]\n[vault_transit]\naddress = "{scheme}://127.0.0.1:{port}"\n'
            f'server = "vault.example"\nseal_keys = ["{KEY}"]\n{more}\n[vault_transit.login]\n'
            + token_login(self.folder / "token")
        )

    def answers(self, asked: Asked) -> Answered | None:
        self.asked.append(asked.path)
        return self.answer(asked)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    with http_service(running.answers) as (_, port):
        running.listen_at("http", port)
        yield running


DECRYPTING: dict[str, tuple[Answered | None, str]] = {
    "silence": (None, r"gave no answer within 0\.3 s"),
    "too long": (Answered(200, b" " * (MAX_ANSWER_BYTES + 1)), "has more than 262144 bytes"),
    "no http": (Answered(raw=b"hello\r\n\r\n"), "gave no answer"),
    "cut short": (Answered(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "gave no answer"),
    "no json": (Answered(200, b"<html>"), "HTTP status 200 and no JSON"),
    "a list": (as_json([]), "no JSON"),
    "too deep": (Answered(200, b"[" * 100_000), "no JSON"),
    "nothing": (as_json({}), "no answer that means anything"),
    "no results": (as_json({"data": {}}), "no answer that means anything"),
    "too few": (as_json({"data": {"batch_results": []}}), "another number of items than the 1 asked"),
    "too many": (as_json({"data": {"batch_results": [{}, {}]}}), "another number of items"),
    "no item": (as_json({"data": {"batch_results": [7]}}), "neither a result nor an error"),
    "no text": (as_json({"data": {"batch_results": [{"plaintext": 7}]}}), "neither a result nor an error"),
    "no base64": (as_json({"data": {"batch_results": [{"plaintext": "%%"}]}}), "not in base64"),
    "no ascii": (as_json({"data": {"batch_results": [{"plaintext": "\ud800"}]}}), "neither a result nor an error"),
    "elsewhere": (Answered(307, headers={"Location": "http://127.0.0.1:1/"}), "sends requests elsewhere"),
    "nowhere": (Answered(307, headers={"Location": "http://[::1"}), "sends requests elsewhere"),
    "sealed": (
        as_json({"errors": ["Vault is sealed"]}, 503),
        r"sealed, or not ready: unseal it \(503: Vault is sealed",
    ),
    "many": (as_json({"errors": ["request path kept"]}, 429), "rate limit quota is used up"),
    "broken": (as_json({"errors": []}, 500), r"means anything \(500: nothing said\)"),
}


@pytest.mark.parametrize("name", DECRYPTING)
def test_what_is_no_answer_is_unavailable(server: Server, name: str) -> None:
    answered, match = DECRYPTING[name]
    server.answer = lambda _: answered
    with pytest.raises(SealingUnavailable, match=match):
        opened(server.image, BLOB, AT_ONCE if answered is not None else VaultTimes(call_s=0.3))


@pytest.mark.parametrize(
    ("answered", "match"),
    [
        (as_json({"errors": ["unsupported operation"]}, 405), r"refuses to use .* \(405: unsupported operation"),
        (as_json({"errors": ["too large"]}, 413), "refuses to use"),
        (as_json({"errors": ["refused JSON input due to high complexity"]}, 400), "raise max_request_json_strings"),
        (as_json({"data": {"batch_results": [{"plaintext": "AAAA"}]}}), "it holds no private key"),
        (as_json({"errors": ["invalid ciphertext"]}, 400), "blob corrupt: .* does not open it"),
    ],
)
def test_these_are_final(server: Server, answered: Answered, match: str) -> None:
    server.answer = lambda _: answered
    with pytest.raises(SealingError, match=match) as raised:
        opened(server.image, BLOB)
    assert not isinstance(raised.value, SealingUnavailable)


@pytest.mark.parametrize("ciphertext", ["vault:v0:AAAA", "AAAA", "vault:v1:AAAB=="])
def test_what_would_not_open_is_not_given_out(server: Server, ciphertext: str) -> None:
    sealing = as_json({"data": {"batch_results": [{"ciphertext": ciphertext}]}})
    server.answer = lambda asked: as_json({"data": GOOD_KEY}) if asked.method == "GET" else sealing
    with pytest.raises(SealingUnavailable, match="answered no ciphertext"):
        sealed(server.image)


def test_nothing_is_encrypted_under_a_key_that_says_nothing_of_itself(server: Server) -> None:
    for flag in ("type", "derived", "exportable", "allow_plaintext_backup"):
        server.answer = lambda _, left_out=flag: as_json({"data": {**GOOD_KEY, left_out: None}})  # type: ignore[misc]
        with pytest.raises(SealingRefused, match=r"it must be|must not be used to seal"):
            sealed(server.image)
    assert {path.partition("/transit/")[2] for path in server.asked} == {"keys/tezos"}


@pytest.mark.parametrize("of_item", [False, True])
def test_errors_that_quote_what_was_sent_show_no_secret(server: Server, *, of_item: bool) -> None:
    def quoting(asked: Asked) -> Answered:
        if asked.method == "GET":
            return as_json({"data": GOOD_KEY})
        (item,) = json.loads(asked.body)["batch_input"]
        said = f"bad {item['plaintext']} by {TOKEN}"
        return as_json({"data": {"batch_results": [{"error": said}]}} if of_item else {"errors": [said]}, 400)

    server.answer = quoting
    with pytest.raises(SealingRefused, match=r"bad \(secret\) by \(secret\)"):
        sealed(server.image)


def test_the_type_of_a_key_shows_no_secret(server: Server) -> None:
    server.answer = lambda _: as_json({"data": {**GOOD_KEY, "type": TOKEN}})
    with pytest.raises(SealingRefused, match=r"is of type '\(secret\)'"):
        sealed(server.image)


def test_a_request_that_broke_off_is_made_again(server: Server) -> None:
    cut = Answered(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    server.answer = lambda _: cut if len(server.asked) == 1 else as_json({"errors": ["permission denied"]}, 403)
    with pytest.raises(SealingRefused, match="denies update on transit/decrypt/tezos"):
        opened(server.image, BLOB)


@pytest.mark.parametrize(
    ("text", "logins"), [("permission denied", 2), ("1 error occurred:\n\t* permission denied\n\n", 1)]
)
def test_a_new_login_is_made_for_a_dead_token_and_not_for_a_missing_right(
    server: Server, text: str, logins: int
) -> None:
    """Otherwise anyone who reaches the enclave could have it log in over and over."""

    def answered(asked: Asked) -> Answered:
        if asked.path.endswith("/login"):
            return as_json({"auth": {"client_token": TOKEN, "lease_duration": 60}})
        return as_json({"errors": [text]}, 403)

    server.answer = answered
    login = f'method = "approle"\nrole_id = "r"\nsecret_id_file = "{server.folder / "token"}"'
    image = server.image.replace(token_login(server.folder / "token"), login)
    with pytest.raises(SealingRefused, match="denies update on transit/decrypt/tezos"):
        opened(image, BLOB)
    assert server.asked.count("/v1/auth/approle/login") == logins


def test_a_token_may_be_valid_for_longer_than_a_float_can_say(server: Server) -> None:
    def answered(asked: Asked) -> Answered:
        if asked.path.endswith("/login"):
            return as_json({"auth": {"client_token": TOKEN, "lease_duration": 10**400}})
        return as_json({"errors": ["invalid ciphertext"]}, 400)

    server.answer = answered
    login = f'method = "approle"\nrole_id = "r"\nsecret_id_file = "{server.folder / "token"}"'
    with pytest.raises(BlobCorrupt):
        opened(server.image.replace(token_login(server.folder / "token"), login), BLOB)
    assert server.asked == ["/v1/auth/approle/login", "/v1/transit/decrypt/tezos"]


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"client_token": TOKEN},
        {"client_token": TOKEN, "lease_duration": -1},
        {"client_token": TOKEN, "lease_duration": True},
        {"client_token": "a b", "lease_duration": 1},
        {"client_token": "é", "lease_duration": 1},
        {"client_token": "x" * 9000, "lease_duration": 1},
        {"client_token": 7, "lease_duration": 1},
    ],
)
def test_a_login_without_a_token_is_unavailable(server: Server, auth: dict[str, object]) -> None:
    server.answer = lambda _: as_json({"auth": auth})
    login = f'method = "approle"\nrole_id = "r"\nsecret_id_file = "{server.folder / "token"}"'
    with pytest.raises(SealingUnavailable) as raised:
        opened(server.image.replace(token_login(server.folder / "token"), login), BLOB)
    assert TOKEN not in str(raised.value)


class TestTls:
    """The server must be certified by one authority."""

    def test_another_authority_is_not_taken(self, tmp_path: Path) -> None:
        authority, other = Authority(tmp_path), Authority(tmp_path, "other")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.certificate("server"))
        server = Server(tmp_path)
        server.answer = lambda _: as_json({"errors": ["permission denied"]}, 403)
        with http_service(server.answers, tls=context) as (_, port):
            server.listen_at("https", port, f'ca_file = "{other.file}"')
            with pytest.raises(SealingUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                opened(server.image, BLOB)
            assert server.asked == []
            server.listen_at("https", port, f'ca_file = "{authority.file}"')
            with pytest.raises(SealingRefused, match="denies update"):
                opened(server.image, BLOB)

    @pytest.mark.parametrize("content", [None, b"", b"no certificate"])
    def test_a_file_without_an_authority_stops_the_start(self, tmp_path: Path, content: bytes | None) -> None:
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)
        server = Server(tmp_path)
        server.listen_at("https", 1, f'ca_file = "{file}"')
        with pytest.raises(ConfigError, match=r"vault_transit\.ca_file: "):
            VaultTransit(vault_config(server.image), LauncherSocket(file, 1.0))


def test_an_address_where_nothing_listens_is_unavailable(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server.listen_at("http", taken.getsockname()[1])
        with pytest.raises(SealingUnavailable, match=r"the server http://127\.0\.0\.1:.* gave no answer"):
            opened(server.image, BLOB)
