"""`vaults`: enclaves, and where the blobs of each are kept.

Source: Signatory's `pkg/vault/confidentialspace`, with its names in the environment.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress
from host_backend.config.addresses import expanded, parse_host, parse_port, parse_unix
from host_backend.config.channel import AttestationConfig, TlsFiles, parse_attestation, parse_enclave_tls
from host_backend.config.firestore import FIELDS as FIRESTORE_FIELDS
from host_backend.config.firestore import parse_place
from host_backend.config.storage import KeysInFile, KeysInFirestore, KeyStorage
from host_backend.errors import reason_of
from host_backend.yaml_document import Value

#: tee-signer's port; Signatory documents it as the default.
DEFAULT_ENCLAVE_PORT = 2000
#: The name of the only vault driver, as in Signatory's files.
DRIVER = "confidentialspace"
KEY_FILE = "confidential_space_keys.json"
KEY_COLLECTION = "encrypted_keys"
NOT_YET = "is one of Signatory's that is not supported yet"

_DRIVERS = {DRIVER: ""}
_STORAGE_DRIVERS = {"file": "", "gcp": "", "firestore": ""}
#: What stands in for a field that is absent or empty.
_ENVIRONMENT = {
    "host": "CONFIDENTIAL_SPACE_HOST",
    "port": "CONFIDENTIAL_SPACE_PORT",
    "wip_provider_path": "GCP_WIP_PROVIDER_PATH",
    "encryption_key_path": "GCP_KMS_ENCRYPTION_KEY_PATH",
}
_VERIFY_BLS: Mapping[str, Literal["inline", "background"]] = {"inline": "inline", "background": "background"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """One enclave and the blobs that belong to it."""

    name: str
    enclave: Address | UnixAddress
    credentials: Credentials
    keys: KeyStorage
    #: Whether a BLS signature is verified before it leaves, or right after.
    verify_bls: Literal["inline", "background"] = "inline"
    #: What this host shows to the enclave; None speaks without TLS.
    tls: TlsFiles | None = None
    #: What the enclave must prove; None: nothing.
    attestation: AttestationConfig | None = None


def parse_vaults(value: Value | None, base_dir: Path, warnings: list[str]) -> dict[str, VaultConfig]:
    """Return the section `vaults`.

    Args:
        value: The section.
        base_dir: Where key files are that are not named.
        warnings: Gets what means less than it seems.

    Raises:
        ConfigError: With file, line and dotted path of what is wrong.
    """
    entries = value.mapping() if value else {}
    vaults = {name: _vault(name, entry, base_dir, warnings) for name, entry in entries.items()}
    places: dict[str, str] = {}
    for name, vault in vaults.items():
        match vault.keys:
            case KeysInFile(path):
                what, place = f"the key file {path}", str(_followed(entries[name], path))
            case KeysInFirestore(there):
                what = place = str(there)
        other = places.setdefault(place, name)
        if other != name:
            entries[name].fail(f"shares {what} with vault {other}: give each its own `storage`")
    return vaults


def _followed(vault: Value, path: Path) -> Path:
    """Return where a path leads, past symbolic links."""
    try:
        # That links lead in a circle is told by `stat`, and by nothing else in every version of Python.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
        return Path(os.path.realpath(path))
    except OSError as error:
        vault.fail(f"the key file {path} cannot be found: {reason_of(error)}: correct `storage`, or base_dir")


def _vault(name: str, value: Value, base_dir: Path, warnings: list[str]) -> VaultConfig:
    if value.is_null:
        value.fail("must name a driver")
    fields = value.record(("driver", "config"))
    if "driver" not in fields:
        value.fail("must name a driver")
    fields["driver"].choice(_DRIVERS)
    config = fields.get("config")
    settings = config.record((*_ENVIRONMENT, "storage", "verify_bls", "tls", "attestation")) if config else {}
    place = config or value
    host, port, provider, key = (_text(place, settings.get(field), field) for field in _ENVIRONMENT)
    if host is None:
        place.fail(f"must name the enclave's host, here or in the environment ({_ENVIRONMENT['host']})")
    verify_bls = settings.get("verify_bls")
    enclave = _enclave(place, settings, host, port)
    tls = parse_enclave_tls(settings.get("tls"))
    if tls is not None and isinstance(enclave, UnixAddress):
        settings["tls"].fail("is not for a Unix socket: leave it out")
    return VaultConfig(
        name=name,
        enclave=enclave,
        tls=tls,
        attestation=parse_attestation(settings.get("attestation"), tls),
        credentials=Credentials(wip_provider_path=provider, encryption_key_path=key),
        keys=_storage(settings.get("storage"), base_dir, warnings),
        verify_bls="inline" if verify_bls is None else _VERIFY_BLS[verify_bls.choice(dict.fromkeys(_VERIFY_BLS, ""))],
    )


def _enclave(place: Value, settings: Mapping[str, Value], host: str, port: str | None) -> Address | UnixAddress:
    named = settings.get("host", place)
    if (unix := parse_unix(named, host)) is None:
        port_number = DEFAULT_ENCLAVE_PORT if port is None else parse_port(settings.get("port", place), port)
        return Address(parse_host(named, host), port_number)
    # One in the environment is for the vaults that have a port.
    if "port" in settings and not settings["port"].is_empty:
        settings["port"].fail("is not allowed where `host` is a Unix socket: leave it out")
    return unix


def _text(place: Value, value: Value | None, field: str) -> str | None:
    """Return a field's text, else the environment's up to the first white space, else None. Source: Signatory."""
    if value is not None and not value.is_empty:
        return value.text()
    words = os.environ.get(_ENVIRONMENT[field], "").split()
    if words and not words[0].isprintable():
        place.fail(f"the environment variable {_ENVIRONMENT[field]} must not have control characters")
    return words[0] if words else None


def _storage(value: Value | None, base_dir: Path, warnings: list[str]) -> KeyStorage:
    fields = value.record(("driver", "config")) if value else {}
    driver = fields["driver"].choice(_STORAGE_DRIVERS) if "driver" in fields else "file"
    config = fields.get("config")
    if value is not None and driver != "file":
        place = (config or value).secretive()
        settings = place.record(FIRESTORE_FIELDS) if config else {}
        return KeysInFirestore(parse_place(place, settings, KEY_COLLECTION, warnings))
    return KeysInFile(base_dir / KEY_FILE if config is None or config.is_null else Path(expanded(config)))
