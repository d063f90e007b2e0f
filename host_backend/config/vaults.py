"""`vaults`: enclaves, and where the blobs of each are kept.

Source: Signatory's `pkg/vault/confidentialspace`, with its names in the environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress
from host_backend.config.addresses import parse_host, parse_port, parse_unix
from host_backend.config.channel import AttestationConfig, TlsFiles, parse_attestation, parse_enclave_tls
from host_backend.config.key_storage import KeyPlace, KeyStorage, parse_key_storage
from host_backend.errors import reason_of
from host_backend.problems import Problems
from host_backend.yaml_document import Value, given

#: tee-signer's port; Signatory documents it as the default.
DEFAULT_ENCLAVE_PORT = 2000
#: The name of the only vault driver, as in Signatory's files.
DRIVER = "confidentialspace"
#: Source: credentials(7); the highest number of 32 bits means none.
MAX_UID = 2**32 - 2
#: What the host writes in `base_dir`, other than keys: folders of marks, the note of the last reload, and its stores.
_OWN = frozenset({"watermark_v2", "watermark_v1", "watermark", "last-reload.json", ".last-reload.json"})
_OWN_STORES = "watermark."
#: How the names of the files end that it writes beside a key file.
_BESIDE_KEYS = (".lock", ".replaced")
NOT_YET = "is one of Signatory's that is not supported yet"

#: Source: Signatory's `RegisterVault`.
_SIGNATORYS = (
    *(
        "awskms",
        "azure",
        "cloudkms",
        "file",
        "hashicorpvault",
        "ledger",
        "mem",
        "nitro",
        "pkcs11",
        "secureenclave",
        "sgx",
    ),
    "yubihsm",
)
_NOT_OURS = (
    f"{NOT_YET}: its keys stay there. Here keys are in an enclave, driver {DRIVER}: make new ones, or `import` those whose "
    "secret keys you have"
)
#: Sections of the file that can stand too far to the right, below this one.
_SECTIONS = ("tezos", "watermark", "server", "policy_hook", "metrics")
_DRIVERS = {DRIVER: "", **dict.fromkeys(_SIGNATORYS, _NOT_OURS)}
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
    #: The user whose process the enclave is, where it is neither this program's nor root.
    enclave_uid: int | None = None
    #: What this host shows to the enclave; None speaks without TLS.
    tls: TlsFiles | None = None
    #: What the enclave must prove; None: nothing.
    attestation: AttestationConfig | None = None


def parse_vaults(
    value: Value | None, base_dir: Path, warnings: list[str], *, apart: bool = False
) -> dict[str, VaultConfig]:
    """Return the section `vaults`.

    Args:
        value: The section.
        base_dir: Where key files are that are not named.
        warnings: Gets what means less than it seems.
        apart: Whether each vault has a second place, for keys that Signatory does not know.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    entries = value.mapping() if value else {}
    vaults: dict[str, VaultConfig] = {}
    with Problems() as problems:
        for name, entry in entries.items():
            with problems.catch():
                vaults[name] = _vault(name, entry, base_dir, warnings, apart=apart)
    places: dict[str, str] = {}
    for name, vault in vaults.items():
        for place in vault.keys.places:
            other = places.setdefault(_identity(entries[name], place), name)
            if other != name:
                entries[name].fail(f"shares {place.in_words} with vault {other}: give each its own `storage`")
            if place.file is not None and _is_own(Path(place.identity()), Path(os.path.realpath(base_dir))):
                entries[name].fail(f"{place.in_words} is a file that the host writes for itself: name another one")
    return vaults


def _is_own(file: Path, base_dir: Path) -> bool:
    """Return whether a file is for marks, notes or locks of the host, which would overwrite keys there."""
    if file.name.endswith(_BESIDE_KEYS):
        return True
    first = file.relative_to(base_dir).parts[0] if file.is_relative_to(base_dir) and file != base_dir else ""
    return first in _OWN or first.startswith(_OWN_STORES)


def _identity(vault: Value, place: KeyPlace) -> str:
    try:
        return place.identity()
    except OSError as error:
        vault.fail(f"{place.in_words} cannot be found: {reason_of(error)}: correct `storage`, or base_dir")


def _vault(name: str, value: Value, base_dir: Path, warnings: list[str], *, apart: bool) -> VaultConfig:
    if value.is_null:
        value.fail("must name a driver")
    if name in _SECTIONS and value.is_map and "driver" not in value.mapping():
        value.fail(f"must name a driver; if it is the section `{name}`, move it to the left margin")
    fields = value.record(("driver", "config"))
    if "driver" not in fields:
        value.fail("must name a driver")
    fields["driver"].choice(_DRIVERS)
    config = fields.get("config")
    names = (*_ENVIRONMENT, "storage", "verify_bls", "enclave_uid", "tls", "attestation")
    settings = config.record(names) if config else {}
    place = config or value
    host, port, provider, key = (_text(place, settings.get(field), field) for field in _ENVIRONMENT)
    if host is None:
        place.fail(f"must name the enclave's host, here or in the environment ({_ENVIRONMENT['host']})")
    verify_bls = given(settings, "verify_bls")
    enclave = _enclave(place, settings, host, port)
    keys = parse_key_storage(settings.get("storage"), base_dir, warnings, apart=apart)
    tls = parse_enclave_tls(given(settings, "tls"))
    if tls is not None and isinstance(enclave, UnixAddress):
        settings["tls"].fail("is not for a Unix socket: leave it out")
    return VaultConfig(
        name=name,
        enclave=enclave,
        enclave_uid=_enclave_uid(given(settings, "enclave_uid"), enclave),
        tls=tls,
        attestation=parse_attestation(given(settings, "attestation"), tls),
        credentials=Credentials(wip_provider_path=provider, encryption_key_path=key),
        keys=keys,
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


def _enclave_uid(value: Value | None, enclave: Address | UnixAddress) -> int | None:
    if value is None:
        return None
    if not enclave.is_loopback or isinstance(enclave, UnixAddress):
        value.fail("is for an enclave at a port of this machine: leave it out")
    return value.integer(0, MAX_UID)


def _text(place: Value, value: Value | None, field: str) -> str | None:
    """Return a field's text, else the environment's up to the first white space, else None. Source: Signatory."""
    if value is not None and not value.is_empty:
        return value.text()
    words = os.environ.get(_ENVIRONMENT[field], "").split()
    if words and not words[0].isprintable():
        place.fail(f"the environment variable {_ENVIRONMENT[field]} must not have control characters")
    return words[0] if words else None
