"""The table `vault_transit` of an image: what may stand in it, and what its keys are called."""

import pytest

from enclave_signer.errors import ConfigError
from enclave_signer.image import parse_image
from enclave_signer.sealing.vault_config import AppRoleLogin, JwtLogin, TokenFile, transit_key

KEY = "vault_transit:vault.example:8200/transit/tezos"
LOGIN = 'method = "jwt"\naudience = "https://vault.example"'
ATTESTATION = '\n[attestation]\nprovider = "confidential_space"\naudience = "https://vault.example"'


def image(
    *,
    address: str = "https://vault.example:8200",
    ca_file: str = 'ca_file = "/ca.pem"',
    keys: str = KEY,
    login: str = LOGIN,
    more: str = "",
    development: bool = False,
) -> str:
    return (
        f'development = {str(development).lower()}\nsealers = ["vault_transit"]\n[vault_transit]\n'
        f'address = "{address}"\n{ca_file}\nseal_keys = ["{keys}"]\n{more}\n[vault_transit.login]\n{login}\n'
    )


def test_the_server_is_called_by_its_host_or_by_a_name() -> None:
    config = parse_image(image(), "image.toml").vault_transit
    assert config is not None
    assert (config.server, config.seal_keys, config.audience) == ("vault.example:8200", (KEY,), "https://vault.example")
    other = "vault_transit:main/team/transit/tezos"
    config = parse_image(image(keys=other, more='server = "main"'), "image.toml").vault_transit
    assert config is not None
    assert (config.server, config.address) == ("main", "https://vault.example:8200")
    key = transit_key(other)
    assert key is not None
    assert (key.name, key.mount, key.key) == (other, "team/transit", "tezos")


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (LOGIN, JwtLogin("auth/jwt", None, "https://vault.example", None)),
        ('method = "token"\ntoken_file = "/t"', "TokenFile"),
        ('method = "approle"\nrole_id = "r"\nsecret_id_file = "/s"\npath = "team/auth/approle"', "AppRoleLogin"),
        ('method = "jwt"\nrole = "sealer"\ntoken_file = "/t"', "JwtLogin"),
    ],
)
def test_ways_to_log_in(login: str, expected: TokenFile | AppRoleLogin | JwtLogin | str) -> None:
    config = parse_image(image(login=login), "image.toml").vault_transit
    assert config is not None
    assert expected in (config.login, type(config.login).__name__)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (image(address="http://vault.example:8200"), r"address: must begin with https"),
        (image(address="http://127.0.0.1:8200", ca_file=""), r"address: must begin with https"),
        (image(address="http://localhost:8200", ca_file="", development=True), r"address: must begin with https"),
        (image(address="https://vault.example:8200/"), r"without a path"),
        (image(address="https://user@vault.example"), r"without a path"),
        (image(address="https://vault.example:99999"), r"must have the form https://HOST:PORT"),
        (image(address="vault.example"), r"must have the form https://HOST:PORT"),
        (image(ca_file=""), r"vault_transit\.ca_file: is missing"),
        (image(address="http://127.0.0.1:8200", development=True), r"ca_file: the address is plain http: leave it out"),
        (image(more='server = "a b"'), r"server: 'a b' must be letters"),
        (image(keys="transit/tezos"), r"must have the form vault_transit:vault\.example:8200/MOUNT/KEY"),
        (image(keys="vault_transit:other/transit/tezos"), r"must have the form vault_transit:vault\.example:8200/"),
        (image(keys="vault_transit:vault.example:8200/tezos"), r"must have the form"),
        (image(keys="vault_transit:vault.example:8200/../sys/tezos"), r"must have the form"),
        (image(keys="vault_transit:vault.example:8200/transit/te/../zos"), r"must have the form"),
        (image(more='open_keys = ["vault_transit:other/transit/"]'), r"or begin so and end at a /"),
        (image(login='method = "ldap"'), r"login\.method: 'ldap' is not known, known are jwt, approle, token"),
        (image(login='method = "jwt"'), r"login\.audience: name one of the two"),
        (image(login=f'{LOGIN}\ntoken_file = "/t"'), r"login\.audience: name one of the two"),
        (
            image(login='method = "jwt"\naudience = "https://sts.googleapis.com"'),
            r"Google takes for this image's identity",
        ),
        (
            image(login=f'{LOGIN}\npath = "auth/../sys"'),
            r"login\.path: 'auth/\.\./sys' must be a path such as auth/jwt",
        ),
        (image(login='method = "token"\ntoken_file = "/t"\nrole = "x"'), r"login\.role: is not known here"),
        (image(login='method = "approle"\nrole_id = "r"\nsecret_id = "s"'), r"login\.secret_id_file: is missing"),
        (image() + ATTESTATION, r"attestation\.audience: is that of vault_transit\.login"),
    ],
)
def test_what_is_refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as raised:
        parse_image(text, "image.toml")
    assert str(raised.value).startswith("image.toml: ")


@pytest.mark.parametrize(
    ("name", "is_key", "is_source"),
    [
        (KEY, True, True),
        ("vault_transit:vault.example:8200/transit/", False, True),
        ("vault_transit:vault.example:8200/", False, True),
        ("vault_transit:", False, False),
        ("vault_transit:a/b/c\n", False, False),
        ("vault_transit:a/b/.c", False, False),
        ("vault_transit:a/b/c/", False, True),
        ("local:0123", False, False),
    ],
)
def test_names_of_keys(name: str, is_key: bool, is_source: bool) -> None:
    config = parse_image(image(), "image.toml").vault_transit
    assert config is not None
    assert (transit_key(name) is not None) == is_key
    assert config.is_source(name) == is_source


def test_plain_http_is_for_this_machine_in_development() -> None:
    text = image(
        address="http://127.0.0.1:8200", ca_file="", keys="vault_transit:127.0.0.1:8200/transit/k", development=True
    )
    config = parse_image(text, "image.toml").vault_transit
    assert config is not None
    assert config.ca_file is None
