"""Signatory's configuration file, the part of its grammar that this version has; anything else is an error.

Source: Signatory's `pkg/config`; where ours is stricter or wider, `docs/signatory-compatibility.md` says so.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from enclave_signer.protocol.messages import Credentials
from enclave_signer.tezos import Family, TezosError, check_public_key_hash, decode
from host_backend.errors import ConfigError
from host_backend.operations import OPERATION_KINDS, REQUEST_KINDS
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from host_backend.yaml_document import Value, load_document

DEFAULT_CONFIG_FILE = Path("/etc/signatory.yaml")
DEFAULT_BASE_DIR = "/var/lib/signatory"
DEFAULT_ADDRESS = ":6732"
DEFAULT_UTILITY_ADDRESS = ":9583"
#: tee-signer's port; Signatory documents it as the default.
DEFAULT_ENCLAVE_PORT = 2000
#: The name of the only vault driver, as in Signatory's files.
DRIVER = "confidentialspace"
KEY_FILE = "confidential_space_keys.json"

_NOT_YET = "is one of Signatory's that is not supported yet"
_WATERMARK_DRIVERS = {"file": "", "mem": _NOT_YET, "gcp": _NOT_YET, "aws": _NOT_YET}
_STORAGE_DRIVERS = {"file": "", "gcp": _NOT_YET, "firestore": _NOT_YET}
_VAULT_DRIVERS = {DRIVER: ""}
_POLICY_NOT_YET = (
    "log_payloads",
    "allow_proof_of_possession",
    "authorized_keys",
    "jwt_users",
    "allowed_operations",
    "allowed_kinds",
)
#: What a name or an address is made of; the resolver itself fails with a bug's error on some other texts.
_HOST = re.compile(r"(?=.{1,253}\Z)[\w%:-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
#: Old names of request kinds. Source: Signatory.
_REQUEST_ALIASES = {"endorsement": "attestation", "preendorsement": "preattestation"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect; an empty host listens on all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """One enclave and the blobs that belong to it."""

    name: str
    enclave: Address
    credentials: Credentials
    key_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, checked."""

    base_dir: Path
    address: Address
    utility_address: Address
    vaults: dict[str, VaultConfig]
    policies: dict[str, KeyPolicy]
    warnings: tuple[str, ...] = ()


def load_config(file: Path, base_dir: str | None = None) -> Config:
    """Return the configuration in a file.

    Args:
        file: The YAML file.
        base_dir: Takes the place of `base_dir` in the file; what `--base-dir` said.

    Raises:
        ConfigError: With file, line and dotted path of what is wrong.
    """
    top = load_document(file).record(("base_dir", "server", "vaults", "watermark", "tezos"), ("policy_hook",))
    warnings: list[str] = []
    folder = _base_dir(top.get("base_dir"), base_dir)
    address, utility_address = _server(top.get("server"))
    _watermark(top.get("watermark"), warnings)
    return Config(
        base_dir=folder,
        address=address,
        utility_address=utility_address,
        vaults=_vaults(top.get("vaults"), folder),
        policies=_policies(top.get("tezos"), warnings),
        warnings=tuple(warnings),
    )


def _base_dir(value: Value | None, override: str | None) -> Path:
    if override is not None:
        if not override:
            raise ConfigError("--base-dir must not be empty")
        return Path(override)
    return Path(DEFAULT_BASE_DIR) if value is None else Path(_expanded(value))


def _expanded(value: Value) -> str:
    """Return a text with `$NAME` and `${NAME}` replaced from the environment; an unset one is an error."""

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            value.fail(f"the environment variable {name} is not set")
        return os.environ[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", replace, value.text())


def _server(value: Value | None) -> tuple[Address, Address]:
    fields = value.record(("address", "utility_address"), ("authorized_keys", "jwt")) if value else {}
    return (
        _address(fields.get("address"), DEFAULT_ADDRESS),
        _address(fields.get("utility_address"), DEFAULT_UTILITY_ADDRESS),
    )


def _address(value: Value | None, default: str) -> Address:
    text = default if value is None else value.text()
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        _fail(value, "must be host:port, or [IPv6]:port, for example 127.0.0.1:6732")
    host = host.removeprefix("[").removesuffix("]")
    return Address(_host(value, host) if host else "", _port(value, port))


def _host(value: Value | None, text: str) -> str:
    if not _HOST.fullmatch(text):
        _fail(value, f"{text[:40]!r} is no host: it must be a name or an address")
    return text


def _port(value: Value | None, text: str) -> int:
    # Port 0 takes a free one, which tests and the quick start need; Signatory refuses it.
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        _fail(value, "the port must be a number from 0 to 65535")
    return int(text)


def _fail(value: Value | None, problem: str) -> None:
    if value is None:
        raise ConfigError(problem)
    value.fail(problem)


def _watermark(value: Value | None, warnings: list[str]) -> None:
    fields = value.record(("driver", "config")) if value else {}
    if "driver" in fields:
        fields["driver"].choice(_WATERMARK_DRIVERS)
    if "config" in fields and not fields["config"].is_null:
        warnings.append(f"{fields['config'].path}: the driver file has nothing to configure; this means nothing")


def _vaults(value: Value | None, base_dir: Path) -> dict[str, VaultConfig]:
    vaults = {name: _vault(name, entry, base_dir) for name, entry in (value.mapping() if value else {}).items()}
    files: dict[Path, str] = {}
    for name, vault in vaults.items():
        other = files.setdefault(vault.key_file.resolve(), name)
        if other != name and value is not None:
            value.fail(f"vaults {other} and {name} share the key file {vault.key_file}: give each its own `storage`")
    return vaults


def _vault(name: str, value: Value, base_dir: Path) -> VaultConfig:
    if value.is_null:
        value.fail("must name a driver")
    fields = value.record(("driver", "config"))
    if "driver" not in fields:
        value.fail("must name a driver")
    fields["driver"].choice(_VAULT_DRIVERS)
    known = ("host", "port", "wip_provider_path", "encryption_key_path", "storage")
    settings = fields["config"].record(known) if "config" in fields else {}
    if "host" not in settings:
        fields.get("config", value).fail("must name the enclave's host")
    port = _port(settings["port"], settings["port"].text()) if "port" in settings else DEFAULT_ENCLAVE_PORT
    return VaultConfig(
        name=name,
        enclave=Address(_host(settings["host"], settings["host"].text()), port),
        credentials=Credentials(
            wip_provider_path=_optional_text(settings.get("wip_provider_path")),
            encryption_key_path=_optional_text(settings.get("encryption_key_path")),
        ),
        key_file=_key_file(settings.get("storage"), base_dir),
    )


def _optional_text(value: Value | None) -> str | None:
    return None if value is None else value.text()


def _key_file(value: Value | None, base_dir: Path) -> Path:
    fields = value.record(("driver", "config")) if value else {}
    if "driver" in fields:
        fields["driver"].choice(_STORAGE_DRIVERS)
    return Path(_expanded(fields["config"])) if "config" in fields else base_dir / KEY_FILE


def _policies(value: Value | None, warnings: list[str]) -> dict[str, KeyPolicy]:
    policies: dict[str, KeyPolicy] = {}
    for pkh, entry in (value.mapping() if value else {}).items():
        try:
            check_public_key_hash(pkh)
        except TezosError as error:
            # Whatever was pasted here, a secret key perhaps, is not repeated: the line says where it stands.
            entry.path = f"tezos.{pkh[:4]}{'…' * (len(pkh) > 4)}"
            entry.fail(f"not a public key hash: {error}")
        policies[pkh] = DEFAULT_POLICY if entry.is_null else _policy(entry, warnings)
    return policies


def _policy(value: Value, warnings: list[str]) -> KeyPolicy:
    fields = value.record(("allow", "allowed_chains"), _POLICY_NOT_YET)
    requests: set[str] = set()
    operations: frozenset[str] = frozenset()
    for name, entry in (fields["allow"].mapping() if "allow" in fields else {}).items():
        kind = _REQUEST_ALIASES.get(name, name)
        if kind != name:
            warnings.append(f"{entry.path}: {name!r} is the old name of {kind!r}")
        if kind not in REQUEST_KINDS:
            known = ", ".join(sorted(REQUEST_KINDS))
            entry.fail(f"invalid request kind `{name}` in `allow` list, known are {known}")
        requests.add(kind)
        if kind == "generic":
            operations = frozenset(_operation(item) for item in entry.items())
        elif not entry.is_null:
            warnings.append(f"{entry.path}: only `generic` takes a list; this one means nothing")
    return KeyPolicy(frozenset(requests), operations, _chains(fields.get("allowed_chains")))


def _chains(value: Value | None) -> frozenset[str] | None:
    """Return the chains of a list; an absent or null one means any, an empty one none. Source: Signatory."""
    return None if value is None or value.is_null else frozenset(_chain(item) for item in value.items())


def _chain(value: Value) -> str:
    try:
        decode(value.text(), Family.CHAIN_ID)
    except TezosError as error:
        value.fail(str(error))
    return value.text()


def _operation(value: Value) -> str:
    kind = value.text()
    if kind not in OPERATION_KINDS:
        value.fail(f"invalid operation kind `{kind}` in `allow.generic` list")
    return kind
