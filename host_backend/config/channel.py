"""`vaults.*.config.tls` and `attestation`: how an enclave on another machine is reached, and what it must prove."""

from dataclasses import dataclass
from pathlib import Path

from host_backend.config.addresses import expanded, parse_certificate_and_key
from host_backend.yaml_document import Value

#: Hours for which a proven connection goes on while no new proof can be had.
DEFAULT_MAX_AGE_HOURS = 24.0
_LONGEST_MAX_AGE_HOURS = 168.0
_TOKEN_TYPES = {"OIDC": "", "PKI": ""}
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The certificate that a host shows to an enclave, and its key, in PEM form."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AttestationConfig:
    """What an enclave must prove.

    Attributes:
        policy: The file that says what it must be.
        by_root: Whether tokens are signed below a root certificate that is pinned, and not by keys that Google publishes.
        root: The file of that certificate; None: Google's, which is known here.
        max_age_s: Seconds after a proof for which its connection may go on without another one.
    """

    policy: Path
    by_root: bool = False
    root: Path | None = None
    max_age_s: float = DEFAULT_MAX_AGE_HOURS * _HOUR_S


def parse_enclave_tls(value: Value | None) -> TlsFiles | None:
    """Return the files; None where there is no TLS.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if value is None:
        return None
    fields = value.record(("certificate", "key"))
    return TlsFiles(*parse_certificate_and_key(value, fields))


def parse_attestation(value: Value | None, tls: TlsFiles | None) -> AttestationConfig | None:
    """Return what the enclave must prove; None: nothing.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if value is None:
        return None
    if tls is None:
        value.fail("needs `tls` beside it: without TLS no connection can be bound to a proof")
    fields = value.record(("policy", "token_type", "root", "max_age_hours"))
    if "policy" not in fields:
        value.fail("must name the file of the `policy`; `enclave-host attest policy init` makes one")
    by_root = "token_type" in fields and fields["token_type"].choice(_TOKEN_TYPES) == "PKI"
    root = fields.get("root")
    if root is not None and not by_root:
        root.fail("is for tokens of `token_type: PKI`")
    hours = fields.get("max_age_hours")
    max_age = DEFAULT_MAX_AGE_HOURS if hours is None else hours.number(0.0, _LONGEST_MAX_AGE_HOURS)
    return AttestationConfig(
        policy=Path(expanded(fields["policy"])),
        by_root=by_root,
        root=None if root is None else Path(expanded(root)),
        max_age_s=max_age * _HOUR_S,
    )
