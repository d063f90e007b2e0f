"""The sections `server` and `policy_hook`: where clients come in, who they are, who is asked about them."""

import json
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.tezos import parse_public_key
from host_backend.config import HookConfig, JwtCredentials, JwtUser, TlsConfig
from tests.doubles.known_keys import KEYS
from tests.unit.test_config import load, refused

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signatory-vectors.json").read_text())
KEY, OTHER = (KEYS[name].public_key for name in ("tz1alias", "tz4alias"))
PASSWORD, SECRET = "SecretSecret-1-!", "!sEtcU5RwLQYsA5qQ1c6zpo3FljQxfAKP"
NEW_PASSWORD, NEW_SECRET = "AnotherOne-2-!!!", "!another5RwLQYsA5qQ1c6zpo3FljQxfA"


def jwt(user: str) -> str:
    return f"server:\n  jwt:\n    users:\n      alice: {user}\n"


def credentials(password: str = PASSWORD, secret: str = SECRET, more: str = "") -> str:
    return f'{{password: "{password}", secret: "{secret}"{more}}}'


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", None),
        ("[]", ()),
        (KEY, (KEY,)),
        (f"[{KEY}, [[{OTHER}], {KEY}]]", (KEY, OTHER)),
    ],
)
def test_request_signing_keys(tmp_path: Path, keys: str, expected: tuple[str, ...] | None) -> None:
    parsed = None if expected is None else tuple(map(parse_public_key, expected))
    assert load(tmp_path, f"server: {{authorized_keys: {keys}}}").server.authorized_keys == parsed
    hook = load(tmp_path, f"policy_hook: {{address: 'http://h', authorized_keys: {keys}}}").hook
    assert hook == HookConfig("http://h", parsed)


@pytest.mark.parametrize("key", [KEYS["tz1alias"].pkh, KEYS["tz1alias"].secret, "x", KEY[:-1], "BLpk" + KEY[4:]])
def test_what_is_no_request_signing_key(tmp_path: Path, key: str) -> None:
    text = refused(tmp_path, f"server:\n  authorized_keys: [{KEY}, {key}]")
    assert text.startswith("2: server.authorized_keys[1]: not a public key (edpk…, sppk…, p2pk…, BLpk…): ")
    assert key not in text or key == "x"


def test_a_key_that_is_null(tmp_path: Path) -> None:
    assert refused(tmp_path, "server: {authorized_keys: [null]}") == "1: server.authorized_keys[0]: must be a text"


def test_too_many_request_signing_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_backend.config.server.MAX_AUTHORIZED_KEYS", 1)
    assert refused(tmp_path, f"server: {{authorized_keys: [{KEY}, {OTHER}]}}") == (
        "1: server.authorized_keys: has 2 keys, at most 1 can be tried for every request"
    )


def test_a_user(tmp_path: Path) -> None:
    config = load(tmp_path, jwt(credentials()))
    assert config.server.jwt_users == {"alice": JwtUser(JwtCredentials(PASSWORD, SECRET, 60))}
    assert PASSWORD not in repr(config)
    assert SECRET not in repr(config)
    for minutes, expected in (("5", 5), ("0", 60)):
        users = load(tmp_path, jwt(credentials(more=f", jwt_exp: {minutes}"))).server.jwt_users
        assert users is not None
        assert users["alice"].credentials.expiry_min == expected
    assert load(tmp_path, "server: {jwt: }").server.jwt_users is None


def test_a_user_whose_credentials_change(tmp_path: Path) -> None:
    old, new = JwtCredentials(PASSWORD, SECRET), JwtCredentials(NEW_PASSWORD, NEW_SECRET)
    change = f", new_data: {credentials(NEW_PASSWORD, NEW_SECRET)}"
    at_once = load(tmp_path, jwt(credentials(more=change))).server.jwt_users
    assert at_once == {"alice": JwtUser(new)}
    until = ', old_cred_exp: "2030-01-02 03:04:05"'
    later = load(tmp_path, jwt(credentials(more=change + until))).server.jwt_users
    assert later == {"alice": JwtUser(new, old, 1893553445.0)}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "4: server.jwt.users.…: must be a map with a password and a secret"),
        ("{}", "4: server.jwt.users.alice: must have a password"),
        (f'{{password: "{PASSWORD}"}}', "4: server.jwt.users.alice: must have a secret"),
        (
            credentials(more=", jwt_exp: -1"),
            "4: server.jwt.users.alice.jwt_exp: must be a whole number from 0 to 5256000",
        ),
        (credentials(more=", jwt_ex: 1"), "4: server.jwt.users.alice.…: unknown field, did you mean jwt_exp?"),
        (
            credentials(more=f", new_data: {credentials(NEW_PASSWORD)}"),
            "4: server.jwt.users.alice.new_data: new credentials are same as old: change both the password and the secret",
        ),
        (
            credentials(more=f", new_data: {credentials(NEW_PASSWORD, NEW_SECRET)}, old_cred_exp: tomorrow"),
            "4: server.jwt.users.alice.old_cred_exp: must be a time in UTC, for example 2026-12-31 23:59:59",
        ),
    ],
)
def test_users_that_cannot_be_meant(tmp_path: Path, user: str, expected: str) -> None:
    assert refused(tmp_path, jwt(user)) == expected


@pytest.mark.parametrize(
    "jwt",
    [
        "{users: {alice: {password %s, secret: x}}}",
        "{users: {alice: {password: x, %s: }}}",
        "{users: {alice: {%s: x, %s: y}}}",
        "{users: {alice: {password: *%s, secret: x}}}",
        "{users: {alice: {password: !%s!x , secret: x}}}",
        "{users: {alice: {password: @%s, secret: x}}}",
        "{users: {alice: {password: x, new_data: {secret %s}}}}",
        "{users: {alice %s}}",
        "{users: {alice: {password: 'SecretSecret-1-!', secret: %s}}}",
        "{users: {alice: %s}}",
        "{users: %s}",
        "{users: {alice: {}}, secret %s}",
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(tmp_path: Path, jwt: str) -> None:
    text = refused(tmp_path, f"server:\n  jwt: {jwt}".replace("%s", "MyPassw0rd-IsLong"))
    assert text.startswith("2: ")
    assert "MyPassw0rd" not in text


def test_weak_credentials(tmp_path: Path) -> None:
    for rule in VECTORS["jwt_credential_rules"]:
        text = refused(tmp_path, jwt(credentials(rule["password"], rule["secret"])))
        assert text == f"4: server.jwt.users.alice.secret: {rule['error']}"
    expected = "4: server.jwt.users.alice.password: password should be at least 16 characters"
    assert refused(tmp_path, jwt(credentials("Short-1-!"))) == expected


def test_nobody_could_log_in(tmp_path: Path) -> None:
    for users in ("{}", "{users: }", "{users: {}}"):
        assert (
            refused(tmp_path, f"server: {{jwt: {users}}}")
            == "1: server.jwt: must have users, or no login would succeed"
        )


def test_tokens_and_signed_requests_exclude_each_other(tmp_path: Path) -> None:
    text = jwt(credentials()) + f"  authorized_keys: {KEY}\n"
    assert refused(tmp_path, text) == "2: server.jwt: cannot use both JWT and static authorized keys"


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTIFICATES", "/certificates")
    files = "certificate: $CERTIFICATES/c.pem, key: /k.pem"
    found = TlsConfig(Path("/certificates/c.pem"), Path("/k.pem"))
    assert load(tmp_path, f"server: {{tls: {{{files}}}}}").server.tls == found
    with_clients = load(tmp_path, f"server: {{tls: {{{files}, client_ca: /ca.pem}}}}").server.tls
    assert with_clients == TlsConfig(found.certificate, found.key, Path("/ca.pem"))
    assert load(tmp_path, "server: {tls: }").server.tls is None
    for name in ("certificate", "key"):
        other = {"certificate": "key", "key": "certificate"}[name]
        assert refused(tmp_path, f"server: {{tls: {{{other}: /x}}}}") == (
            f"1: server.tls: must name the file of the {name}, in PEM form"
        )


@pytest.mark.parametrize("hook", ["", "{}", "{address: }", "{address: ''}"])
def test_no_hook(tmp_path: Path, hook: str) -> None:
    assert load(tmp_path, f"policy_hook: {hook}").hook is None


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8080", "http://[::1]:1/x", "https://xn--bcher-kva.example./%C3%A4?q=%20", "http://a_b-c/~x/(1)"],
)
def test_hooks_that_can_be_asked(tmp_path: Path, address: str) -> None:
    assert load(tmp_path, f"policy_hook: {{address: '{address}'}}").hook == HookConfig(address)


def test_a_hook(tmp_path: Path) -> None:
    hook = load(tmp_path, "policy_hook: {address: 'https://h:1/p?q', timeout: 0.5}").hook
    assert hook == HookConfig("https://h:1/p?q", None, 0.5)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        *(
            (
                f"{{address: '{address}'}}",
                ".address: must be a whole URL without a password, for example http://127.0.0.1:8080/path",
            )
            for address in (
                "127.0.0.1:80",
                "localhost:80/x",
                "ftp://h",
                "http://",
                "http://[",
                "http://h:x",
                "http://h:0",
                "http://user:password@h",
            )
        ),
        *(
            (
                f"{{address: '{address}'}}",
                ".address: must be ASCII without spaces: write other characters of a path as %xx, those of a name as xn--…",
            )
            for address in ("http://h/a b", "http://h/ä", "http://h/?q=ä", "http://ä.example")
        ),
        *(
            (
                f"{{address: 'http://{host}:1/x'}}",
                f".address: {host[:40]!r} is not a host: it must be a name or an address",
            )
            for host in ("a..b", ".a", "x" * 64, "x" * 70, ".".join(["x" * 63] * 5), "a,b", "h$")
        ),
        *(
            (f"{{address: 'http://h', timeout: {timeout}}}", ".timeout: must be a number from 0.01 to 30")
            for timeout in ("0", "31", "-1", "x", "1e1")
        ),
        ("{adress: 'http://h'}", ".adress: unknown field, did you mean address?"),
    ],
)
def test_hooks_that_cannot_be_meant(tmp_path: Path, hook: str, expected: str) -> None:
    assert refused(tmp_path, f"policy_hook: {hook}") == f"1: policy_hook{expected}"


def test_vectors_are_read() -> None:
    rules: list[dict[str, Any]] = VECTORS["jwt_credential_rules"]
    assert len(rules) == 5


def test_trusted_proxies(tmp_path: Path) -> None:
    assert load(tmp_path, "server: {trusted_proxies: }").server.trusted_proxies == ()
    found = load(tmp_path, "server: {trusted_proxies: [10.0.0.1, 10.1.0.0/16, '2001:db8::/32']}").server.trusted_proxies
    assert list(map(str, found)) == ["10.0.0.1/32", "10.1.0.0/16", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("proxy.example", "'proxy.example' is neither an address nor a network, for example 10.0.0.1 or 10.0.0.0/8"),
        ("10.0.0", "'10.0.0' is neither an address nor a network, for example 10.0.0.1 or 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33' is neither an address nor a network, for example 10.0.0.1 or 10.0.0.0/8"),
        ("10.0.0.1/8", "'10.0.0.1/8' is an address within a network: write 10.0.0.0/8 for the network"),
        ("0.0.0.0/0", "'0.0.0.0/0' is every address: name the proxies"),
        ("'::/0'", "'::/0' is every address: name the proxies"),
        ("'::ffff:10.0.0.1'", "'::ffff:10.0.0.1' is IPv4 written as IPv6: write it as IPv4"),
    ],
)
def test_what_is_no_trusted_proxy(tmp_path: Path, proxy: str, problem: str) -> None:
    assert refused(tmp_path, f"server: {{trusted_proxies: [{proxy}]}}") == f"1: server.trusted_proxies[0]: {problem}"


def test_too_many_trusted_proxies(tmp_path: Path) -> None:
    proxies = [f"10.0.0.{number}" for number in range(101)]
    assert refused(tmp_path, f"server: {{trusted_proxies: {proxies}}}") == (
        "1: server.trusted_proxies: has 101 entries, at most 100: name networks"
    )


@pytest.mark.parametrize(
    ("utility_address", "said", "shown"),
    [
        (":9583", "", False),
        (":9583", ", attestation: ", False),
        (":9583", ", attestation: true", True),
        ("127.0.0.1:9583", "", True),
        ("unix:/run/signer/utility", "", True),
        ("127.0.0.1:9583", ", attestation: false", False),
    ],
)
def test_tokens_are_shown_to_strangers_only_where_that_was_meant(
    tmp_path: Path, utility_address: str, said: str, shown: bool
) -> None:
    assert load(tmp_path, f"server: {{utility_address: '{utility_address}'{said}}}").server.attestation is shown
