"""Signatory's configuration file as frozen values; what is not in its grammar, or not built yet, is an error.

One module a section. Source: Signatory's `pkg/config`; where ours is stricter or wider,
`docs/signatory-compatibility.md` says so.
"""

from dataclasses import dataclass, field
from pathlib import Path

from enclave_signer.protocol.key_types import KeyType
from host_backend.addresses import Address, UnixAddress
from host_backend.config.addresses import expanded
from host_backend.config.experimental import parse_experimental
from host_backend.config.metrics import MetricsConfig, parse_metrics
from host_backend.config.policies import parse_policies
from host_backend.config.server import (
    HookConfig,
    JwtCredentials,
    JwtUser,
    ServerConfig,
    TlsConfig,
    parse_hook,
    parse_server,
)
from host_backend.config.vaults import VaultConfig, parse_vaults
from host_backend.config.watermark import WatermarkConfig, parse_watermark
from host_backend.errors import ConfigError
from host_backend.policy import KeyPolicy
from host_backend.yaml_document import Value, load_document

__all__ = [
    "DEFAULT_CONFIG_FILE",
    "Address",
    "Config",
    "HookConfig",
    "JwtCredentials",
    "JwtUser",
    "MetricsConfig",
    "ServerConfig",
    "TlsConfig",
    "UnixAddress",
    "VaultConfig",
    "WatermarkConfig",
    "load_config",
]

DEFAULT_CONFIG_FILE = Path("/etc/signatory.yaml")
DEFAULT_BASE_DIR = "/var/lib/signatory"
_SECTIONS = ("base_dir", "server", "vaults", "watermark", "tezos", "policy_hook", "metrics", "experimental")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, checked."""

    base_dir: Path
    server: ServerConfig = field(default_factory=ServerConfig)
    vaults: dict[str, VaultConfig]
    watermark: WatermarkConfig = field(default_factory=WatermarkConfig)
    policies: dict[str, KeyPolicy]
    hook: HookConfig | None = None
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    #: Types of keys that not every chain has, and that are used here.
    experimental: frozenset[KeyType] = frozenset()
    warnings: tuple[str, ...] = ()


def load_config(file: Path, base_dir: str | None = None) -> Config:
    """Return the configuration in a file.

    Args:
        file: The YAML file.
        base_dir: Takes the place of `base_dir` in the file; what `--base-dir` said.

    Raises:
        ConfigError: With file, line and dotted path of what is wrong.
    """
    top = load_document(file).record(_SECTIONS)
    warnings: list[str] = []
    folder = _base_dir(top.get("base_dir"), base_dir)
    experimental = parse_experimental(top.get("experimental"))
    policies = parse_policies(top.get("tezos"), experimental, warnings)
    return Config(
        base_dir=folder,
        server=parse_server(top.get("server")),
        vaults=parse_vaults(top.get("vaults"), folder, warnings, apart=bool(experimental)),
        watermark=parse_watermark(top.get("watermark"), warnings),
        policies=policies,
        hook=parse_hook(top.get("policy_hook")),
        metrics=parse_metrics(top.get("metrics"), len(policies)),
        experimental=experimental,
        warnings=tuple(warnings),
    )


def _base_dir(value: Value | None, override: str | None) -> Path:
    if override is not None:
        if not override:
            raise ConfigError("--base-dir must not be empty")
        return Path(override)
    return Path(DEFAULT_BASE_DIR) if value is None else Path(expanded(value))
