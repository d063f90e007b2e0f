"""The image's own configuration, `image.toml`: measured with the image: to trust its digest is to trust these words.

- It says which sealers there are, which keys and identities they may use, and where the daemon listens. Flags and the
  environment, chosen by the operator of the machine, override nothing in it.
- The first sealer seals; each opens what its header names.
- Keys go from one sealer or key to another (`reseal`) only where that is listed, and never to `local` or legacy blobs.
- Keys that are listed as `gated` sign only while their service has released them.
"""

from dataclasses import dataclass
from pathlib import Path

from enclave_signer.protocol.binding import is_key_digest
from enclave_signer.rights import Rule
from enclave_signer.rights_config import UnixSocketConfig, read_rights, read_unix_socket
from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.gated_rules import GatedRule, leaving, read_gated
from enclave_signer.sealing.gcp_config import GCP_KMS, GcpKmsConfig, read_gcp_kms
from enclave_signer.sealing.kbs_config import KBS, SAMPLE, KbsConfig, read_kbs
from enclave_signer.sealing.local_config import LOCAL, LocalKey, read_local
from enclave_signer.sealing.reseal_rules import ResealRule, SealerConfig, read_rules
from enclave_signer.sealing.vault_config import VAULT_TRANSIT, VaultConfig, read_vault_transit
from enclave_signer.toml_file import parse_toml, read_toml
from enclave_signer.toml_table import TomlTable

SEALERS = (GCP_KMS, VAULT_TRANSIT, KBS, LOCAL)
CONFIDENTIAL_SPACE = "confidential_space"
ATTESTERS = (CONFIDENTIAL_SPACE,)
TOKEN_KINDS = ("OIDC", "PKI")
#: Bytes of a token's audience. Source: Google's "Connect external resources".
MAX_AUDIENCE_BYTES = 512


@dataclass(frozen=True, slots=True)
class AttestationConfig:
    """Who vouches for the machine and its image.

    Attributes:
        provider: Of `ATTESTERS`.
        audience: Whom tokens are made out to: those who verify them ask for it.
        kind: Of `TOKEN_KINDS`: how a token is signed.
    """

    provider: str
    audience: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image says of itself.

    Attributes:
        development: That it is not for keys of value.
        sealers: Names, of `SEALERS`; the first one seals.
        listeners: Addresses; where none is named, the command line may name one.
        gcp_kms: Where that is one of the sealers.
        vault_transit: Where that is one of the sealers.
        kbs: Where that is one of the sealers.
        local_key: The file of the local sealer's key, where that is one of them.
        reseal: Which keys may be sealed again.
        gated: Which keys are released only to the attested.
        tls_clients: Keys that clients of a port may show, as SHA-256 in hexadecimal; None where there is no TLS.
        insecure_plain_tcp: Whether a port that other machines reach may be without TLS.
        attestation: Vouches for it; None: nothing does.
        rights: Which client may make which calls with which keys; None: all clients, all calls, all keys.
        unix_socket: Who can reach the Unix socket, where rules say what they may do there; None: as by default.
    """

    development: bool
    sealers: tuple[str, ...]
    listeners: tuple[str, ...]
    gcp_kms: GcpKmsConfig | None
    vault_transit: VaultConfig | None
    kbs: KbsConfig | None
    local_key: LocalKey | None
    reseal: tuple[ResealRule, ...]
    gated: tuple[GatedRule, ...]
    tls_clients: tuple[str, ...] | None
    insecure_plain_tcp: bool
    attestation: AttestationConfig | None
    rights: tuple[Rule, ...] | None
    unix_socket: UnixSocketConfig | None


def read_image(path: Path) -> Image:
    """Return what an image's configuration file says.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong; the text names file and dotted path.
    """
    return parse_image(read_toml(path), str(path))


def parse_image(text: str, file: str) -> Image:
    """Return what the text of an image's configuration says.

    Raises:
        ConfigError: Something in it is wrong; the text names the file, as given, and the dotted path.
    """
    top = parse_toml(text, file)
    development = top.flag("development", default=False)
    sealers = top.texts("sealers", required=True)
    for name in sealers:
        if name not in SEALERS:
            raise top.refused("sealers", f"{name!r} is not known, known are {', '.join(SEALERS)}")
    gcp_kms = read_gcp_kms(top.table(GCP_KMS)) if GCP_KMS in sealers else None
    vault = read_vault_transit(top.table(VAULT_TRANSIT), development=development) if VAULT_TRANSIT in sealers else None
    kbs = read_kbs(top.table(KBS), development=development) if KBS in sealers else None
    local_key = _local(top, development=development) if LOCAL in sealers else None
    each: dict[str, SealerConfig | None] = {GCP_KMS: gcp_kms, VAULT_TRANSIT: vault, KBS: kbs, LOCAL: local_key}
    configs = {name: config for name, config in each.items() if config is not None}
    image = Image(
        development=development,
        sealers=sealers,
        listeners=_listeners(top),
        gcp_kms=gcp_kms,
        vault_transit=vault,
        kbs=kbs,
        local_key=local_key,
        reseal=read_rules(top, configs),
        gated=read_gated(top, configs),
        tls_clients=_tls_clients(top.table("tls")) if top.has("tls") else None,
        insecure_plain_tcp=top.flag("insecure_plain_tcp", default=False),
        attestation=_attestation(top.table("attestation"), gcp_kms, vault) if top.has("attestation") else None,
        rights=(rights := read_rights(top)),
        unix_socket=read_unix_socket(top, rights),
    )
    _check_together(top, image)
    top.end()
    return image


def _check_together(top: TomlTable, image: Image) -> None:
    """Return when no two things that are said exclude each other.

    Raises:
        ConfigError: They do.
    """
    if image.insecure_plain_tcp and image.tls_clients is not None:
        raise top.refused("insecure_plain_tcp", "there is TLS: leave one of the two out")
    if image.attestation is not None and image.kbs is not None and image.kbs.tee == SAMPLE:
        raise top.refused(
            "attestation", f"{KBS}.tee is {SAMPLE}: a key that anyone can get is not attested: leave one out"
        )
    if image.gcp_kms is not None:
        _check_legacy(top, image, image.gcp_kms)
    for rule in image.reseal:
        if (left := leaving(rule, image.gated)) is not None:
            raise top.refused(
                "reseal", f"lets keys under {left.key!r}, which is gated, go to {rule.target!r}: gate that, too"
            )


def _check_legacy(top: TomlTable, image: Image, gcp_kms: GcpKmsConfig) -> None:
    """Check that no rule is about legacy blobs, which name no key.

    Raises:
        ConfigError: One is.
    """
    if gcp_kms.write_legacy and any(rule.sealer == GCP_KMS for rule in image.reseal):
        raise top.refused("reseal", f"makes no legacy blobs: {GCP_KMS}.write_legacy is true")
    if gcp_kms.read_legacy and any(rule.sealer == GCP_KMS for rule in image.gated):
        # They open under the key that `Initialize` names.
        raise top.refused("gated", f"does not hold for legacy blobs: set {GCP_KMS}.read_legacy to false")


def _listeners(top: TomlTable) -> tuple[str, ...]:
    listeners = top.texts("listeners")
    if len(listeners) > 1:
        raise top.refused("listeners", "this version listens at one address")
    return listeners


def _tls_clients(table: TomlTable) -> tuple[str, ...]:
    clients = table.texts("clients", required=True)
    for digest in clients:
        if not is_key_digest(digest):
            raise table.refused("clients", f"{digest!r} is not the SHA-256 of a public key, 64 digits of 0-9 and a-f")
    table.end()
    return clients


def _attestation(table: TomlTable, gcp_kms: GcpKmsConfig | None, vault: VaultConfig | None) -> AttestationConfig:
    provider, audience = table.text("provider"), table.text("audience")
    if provider not in ATTESTERS:
        raise table.refused("provider", f"{provider!r} is not known, known are {', '.join(ATTESTERS)}")
    if len(audience.encode()) > MAX_AUDIENCE_BYTES:
        raise table.refused("audience", f"must have at most {MAX_AUDIENCE_BYTES} bytes")
    exchanged = gcp_kms.token_audience if gcp_kms is not None else None
    if gcp_names.is_exchanged(audience) or audience == exchanged:
        raise table.refused("audience", "is one that Google takes for this image's identity: name one of your own")
    if vault is not None and audience == vault.audience:
        raise table.refused(
            "audience", f"is that of {VAULT_TRANSIT}.login: those who verify a token could log in with it"
        )
    kind = table.text("token_type") if table.has("token_type") else TOKEN_KINDS[0]
    if kind not in TOKEN_KINDS:
        raise table.refused("token_type", f"{kind!r} is not known, known are {', '.join(TOKEN_KINDS)}")
    table.end()
    return AttestationConfig(provider, audience, kind)


def _local(top: TomlTable, *, development: bool) -> LocalKey:
    if not development:
        raise top.refused("sealers", "local seals by a file on the machine: only where development is true")
    return read_local(top.table(LOCAL))
