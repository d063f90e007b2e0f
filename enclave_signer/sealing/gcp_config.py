"""What an image says of keys that Cloud KMS seals: the table `gcp_kms`."""

from dataclasses import dataclass

from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.allow_list import AllowList
from enclave_signer.toml_table import TomlTable

GCP_KMS = "gcp_kms"
#: The audience of the token in the launcher's file, which needs no other.
_STS_AUDIENCE = "https://sts.googleapis.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpKmsConfig:
    """How keys are sealed by Cloud KMS.

    Attributes:
        allow_list: Keys and identity providers.
        read_legacy: Whether blobs without a header, as tee-signer wrote them, are opened.
        write_legacy: Whether new blobs are such.
        token_audience: Whom tokens for the exchange are made out to, by the launcher's socket; None: Google's STS, as
            those in the launcher's file.
    """

    allow_list: AllowList
    read_legacy: bool = True
    write_legacy: bool = False
    token_audience: str | None = None

    @property
    def seal_keys(self) -> tuple[str, ...]:
        """Names of the keys that seal."""
        return self.allow_list.seal_keys

    def is_source(self, name: str) -> bool:
        """Whether blobs may name such a key, or keys that begin so up to a `/`."""
        return gcp_names.is_key(name) or gcp_names.is_key_prefix(name)

    def opens(self, name: str) -> bool:
        """Whether the image lets it open blobs under this key, or under one that begins so, up to a `/`."""
        return self.allow_list.opens(name)


def read_gcp_kms(table: TomlTable) -> GcpKmsConfig:
    """Return what the table says.

    Raises:
        ConfigError: Something in it is wrong.
    """
    providers = table.texts("identity_providers", required=True)
    for name in providers:
        if not gcp_names.is_identity_provider(name):
            raise table.refused("identity_providers", f"{name!r} must have the form {gcp_names.PROVIDER_FORM}")
    seal_keys = table.texts("seal_keys", required=True)
    for name in seal_keys:
        if not gcp_names.is_key(name):
            raise table.refused("seal_keys", f"{name!r} must have the form {gcp_names.KEY_FORM}")
    open_keys = table.texts("open_keys")
    for name in open_keys:
        if not gcp_names.is_key(name) and not gcp_names.is_key_prefix(name):
            form = f"{gcp_names.KEY_FORM}, or begin so and end at a /"
            raise table.refused("open_keys", f"{name!r} must have the form {form}")
    read_legacy = table.flag("read_legacy", default=True)
    write_legacy = table.flag("write_legacy", default=False)
    if write_legacy and not read_legacy:
        raise table.refused("write_legacy", "a blob that is written must open again: read_legacy is false")
    audience = table.text("token_audience") if table.has("token_audience") else None
    if audience == _STS_AUDIENCE:
        raise table.refused("token_audience", "is that of the launcher's file: leave it out")
    table.end()
    allow_list = AllowList(identity_providers=providers, seal_keys=seal_keys, open_keys=open_keys)
    return GcpKmsConfig(
        allow_list=allow_list, read_legacy=read_legacy, write_legacy=write_legacy, token_audience=audience
    )
