"""`server` and `policy_hook`: where clients come in, who they are, and who is asked about them.

Source: Signatory's `pkg/config` and `pkg/middlewares/jwt.go`, with its texts for weak credentials.
"""

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from enclave_signer.curves import CurveError, curve
from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import TezosError, parse_public_key
from host_backend.addresses import Address, UnixAddress
from host_backend.config.addresses import (
    expanded,
    parse_certificate_and_key,
    parse_host,
    parse_listener,
    parse_network,
)
from host_backend.config.octez import OctezConfig, parse_octez
from host_backend.ip_addresses import IpNetwork
from host_backend.yaml_document import Value, given

DEFAULT_ADDRESS = Address("", 6732)
DEFAULT_UTILITY_ADDRESS = Address("", 9583)
#: Minutes that a token is good for. Source: Signatory.
DEFAULT_JWT_EXP_MIN = 60
#: Minutes in ten years: beyond, an expiry protects nothing.
MAX_JWT_EXP_MIN = 10 * 365 * 24 * 60
#: Characters, at least. Source: Signatory.
MIN_PASSWORD_CHARACTERS = 16
MIN_SECRET_CHARACTERS = 32
#: Request-signing keys are tried one after another for every request.
MAX_AUTHORIZED_KEYS = 100
#: Each is compared with the address of every client that connects.
MAX_TRUSTED_PROXIES = 100
#: Seconds for the policy hook's answer: a block's round is longer, and its signature must still come.
DEFAULT_HOOK_TIMEOUT_S = 2.0
#: No block waits longer for its signature.
MAX_HOOK_TIMEOUT_S = 30.0
#: What a request line and a Host header are made of. Source: RFC 3986.
_URL_CHARACTERS = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class JwtCredentials:
    """What a user logs in with, and what its tokens are signed with."""

    password: str = field(repr=False)
    secret: str = field(repr=False)
    #: Minutes that a token is good for.
    expiry_min: int = DEFAULT_JWT_EXP_MIN


@dataclass(frozen=True, slots=True)
class JwtUser:
    """A user; while credentials are being changed, the old ones are good until a point in time."""

    credentials: JwtCredentials
    old: JwtCredentials | None = None
    #: Unix seconds until which `old` is good as well.
    old_until: float = 0.0


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files of the signing server; with `client_ca`, clients must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where clients come in, and who they are."""

    address: Address | UnixAddress = DEFAULT_ADDRESS
    utility_address: Address | UnixAddress = DEFAULT_UTILITY_ADDRESS
    #: Keys that sign requests; None: requests are not signed. Empty: every request is refused. Source: Signatory.
    authorized_keys: tuple[PublicKey, ...] | None = None
    #: Users by name; None: no tokens.
    jwt_users: Mapping[str, JwtUser] | None = None
    tls: TlsConfig | None = None
    #: Who is believed when it names others as clients.
    trusted_proxies: tuple[IpNetwork, ...] = ()
    #: Whether tokens that prove the enclaves are shown at the utility address.
    attestation: bool = False
    #: Octez' own sockets; None: none.
    octez: OctezConfig | None = None

    @property
    def asks_who(self) -> bool:
        """Whether a client must show who it is: by a signed request, a token or a certificate."""
        certificate = self.tls is not None and self.tls.client_ca is not None
        return certificate or self.authorized_keys is not None or self.jwt_users is not None

    @property
    def listeners(self) -> dict[str, Address | UnixAddress]:
        """Where clients come in, by the names of the fields."""
        octez = {} if self.octez is None else {"octez.unix": self.octez.unix, "octez.tcp": self.octez.tcp}
        named = {"address": self.address, "utility_address": self.utility_address, **octez}
        return {f"server.{name}": address for name, address in named.items() if address is not None}

    def leaves_open(self, name: str) -> bool:
        """Return whether anyone who reaches one of the `listeners` can get signed what the policies allow."""
        if name == "server.octez.tcp":
            return self.authorized_keys is None
        return name == "server.address" and not self.asks_who


@dataclass(frozen=True, slots=True)
class HookConfig:
    """Who is asked about every request that the policy allows."""

    address: str
    #: Keys that sign its answers; None: answers are not signed.
    authorized_keys: tuple[PublicKey, ...] | None = None
    timeout_s: float = DEFAULT_HOOK_TIMEOUT_S


def parse_server(value: Value | None) -> ServerConfig:
    """Return the section `server`.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    names = ("address", "utility_address", "authorized_keys", "jwt", "tls", "trusted_proxies", "attestation", "octez")
    fields = value.record(names) if value else {}
    authorized_keys = parse_authorized_keys(given(fields, "authorized_keys"))
    jwt_users = _jwt_users(given(fields, "jwt"))
    if authorized_keys is not None and jwt_users is not None:
        fields["jwt"].fail("cannot use both JWT and static authorized keys")
    utility_address = parse_listener(given(fields, "utility_address"), DEFAULT_UTILITY_ADDRESS)
    attestation = given(fields, "attestation")
    # Each token costs a little of what Google gives the project, so strangers get some only where that was meant.
    shown = utility_address.is_loopback if attestation is None else attestation.boolean()
    octez, tls = parse_octez(given(fields, "octez")), _tls(given(fields, "tls"))
    if octez is not None:
        _check_octez(
            fields["octez"], octez, tls, asks_token=jwt_users is not None, asks_key=authorized_keys is not None
        )
    return ServerConfig(
        address=parse_listener(given(fields, "address"), DEFAULT_ADDRESS),
        utility_address=utility_address,
        authorized_keys=authorized_keys,
        jwt_users=jwt_users,
        tls=tls,
        trusted_proxies=_trusted_proxies(given(fields, "trusted_proxies")),
        attestation=shown,
        octez=octez,
    )


def _trusted_proxies(value: Value | None) -> tuple[IpNetwork, ...]:
    if value is None:
        return ()
    items = value.items()
    if len(items) > MAX_TRUSTED_PROXIES:
        value.fail(f"has {len(items)} entries, at most {MAX_TRUSTED_PROXIES}: name networks")
    return tuple(map(parse_network, items))


def _check_octez(value: Value, octez: OctezConfig, tls: TlsConfig | None, *, asks_token: bool, asks_key: bool) -> None:
    """Pass when Octez' sockets let in no client who could not ask over HTTP."""
    if asks_token:
        value.fail("cannot be used with JWT: a client of Octez' sockets has no token to show, and would need none")
    if octez.tcp is not None and tls is not None and tls.client_ca is not None and not asks_key:
        value.fail(
            "tcp cannot be used with `tls.client_ca` alone: Octez' sockets have no TLS, and so anybody would do without a "
            "certificate: set `authorized_keys`, or listen on a Unix socket"
        )


def parse_authorized_keys(value: Value | None) -> tuple[PublicKey, ...] | None:
    """Return public keys: one, or a list, which may nest; None when there are none to read.

    Raises:
        ConfigError: One of them is no public key, or there are too many.
    """
    if value is None:
        return None
    items: dict[str, Value] = {}
    for item in value.leaves():
        items.setdefault(item.text(), item)
    if len(items) > MAX_AUTHORIZED_KEYS:
        value.fail(f"has {len(items)} keys, at most {MAX_AUTHORIZED_KEYS} can be tried for every request")
    return tuple(map(_public_key, items.values()))


def _public_key(value: Value) -> PublicKey:
    try:
        key = parse_public_key(value.text())
        curve(key.key_type).parse_public_key(key.data)
    except (TezosError, CurveError) as error:
        # What was pasted here may be a secret key, and is not repeated.
        value.fail(f"not a public key (edpk…, sppk…, p2pk…, BLpk…): {error}")
    return key


def _jwt_users(value: Value | None) -> Mapping[str, JwtUser] | None:
    if value is None:
        return None
    fields = value.secretive().record(("users",))
    users = fields["users"].mapping() if "users" in fields else {}
    if not users:
        value.fail("must have users, or no login would succeed")
    for entry in users.values():
        if not entry.is_map:
            # Not even the name of a user, perhaps.
            fields["users"].without_name(entry).fail("must be a map with a password and a secret")
    return {name: _jwt_user(entry) for name, entry in users.items()}


def _jwt_user(value: Value) -> JwtUser:
    fields = value.record(("password", "secret", "jwt_exp", "old_cred_exp", "new_data"))
    present = _credentials(value, fields)
    if (new_data := given(fields, "new_data")) is None:
        return JwtUser(present)
    new = _credentials(new_data, new_data.record(("password", "secret", "jwt_exp")))
    if new.password == present.password or new.secret == present.secret:
        new_data.fail("new credentials are same as old: change both the password and the secret")
    old_until = given(fields, "old_cred_exp")
    return JwtUser(new) if old_until is None else JwtUser(new, present, _time(old_until))


def _credentials(value: Value, fields: Mapping[str, Value]) -> JwtCredentials:
    password = _strong(value, fields, "password", MIN_PASSWORD_CHARACTERS)
    secret = _strong(value, fields, "secret", MIN_SECRET_CHARACTERS)
    expiry = given(fields, "jwt_exp")
    expiry_min = 0 if expiry is None else expiry.integer(0, MAX_JWT_EXP_MIN)
    return JwtCredentials(password, secret, expiry_min or DEFAULT_JWT_EXP_MIN)


def _strong(value: Value, fields: Mapping[str, Value], name: str, least: int) -> str:
    if name not in fields:
        value.fail(f"must have a {name}")
    text = fields[name].text()
    if len(text) < least:
        fields[name].fail(f"{name} should be at least {least} characters")
    kinds = {
        "uppercase character": any("A" <= character <= "Z" for character in text),
        "lowercase character": any("a" <= character <= "z" for character in text),
        "digit": any("0" <= character <= "9" for character in text),
        "special character": any(" " <= character <= "~" and not character.isalnum() for character in text),
    }
    for kind, present in kinds.items():
        if not present:
            fields[name].fail(f"{name} should contain at least one {kind}")
    return text


def _time(value: Value) -> float:
    try:
        return datetime.strptime(value.text(), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        value.fail("must be a time in UTC, for example 2026-12-31 23:59:59")


def _tls(value: Value | None) -> TlsConfig | None:
    if value is None:
        return None
    fields = value.record(("certificate", "key", "client_ca"))
    client_ca = given(fields, "client_ca")
    return TlsConfig(
        *parse_certificate_and_key(value, fields), client_ca=None if client_ca is None else Path(expanded(client_ca))
    )


def parse_hook(value: Value | None) -> HookConfig | None:
    """Return the section `policy_hook`; None when there is none, or its address is empty. Source: Signatory.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if value is None:
        return None
    fields = value.record(("address", "authorized_keys", "timeout"))
    address = fields.get("address")
    if address is None or address.is_empty:
        return None
    timeout = given(fields, "timeout")
    return HookConfig(
        address=_url(address),
        authorized_keys=parse_authorized_keys(given(fields, "authorized_keys")),
        timeout_s=DEFAULT_HOOK_TIMEOUT_S if timeout is None else timeout.number(0.01, MAX_HOOK_TIMEOUT_S),
    )


def _url(value: Value) -> str:
    text = value.text()
    try:
        url = urllib.parse.urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:
        usable = False
    if not usable:
        value.fail("must be a whole URL without a password, for example http://127.0.0.1:8080/path")
    if not _URL_CHARACTERS.fullmatch(text):
        value.fail("must be ASCII without spaces: write other characters of a path as %xx, those of a name as xn--…")
    parse_host(value, url.hostname or "")
    return text
