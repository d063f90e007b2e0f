"""Signatory's configuration file as frozen values; anything outside its grammar, or not built yet, is an error.

One module a section. Source: Signatory's `pkg/config`; where ours is stricter or wider,
`docs/signatory-compatibility.md` says so.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from enclave_signer.protocol.key_types import KeyType
from host_backend.config.addresses import expanded
from host_backend.config.experimental import parse_experimental
from host_backend.config.metrics import MetricsConfig, parse_metrics
from host_backend.config.policies import Policies, parse_policies
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
from host_backend.problems import Problems
from host_backend.yaml_document import Value, given, load_document

__all__ = [
    "DEFAULT_CONFIG_FILE",
    "Config",
    "HookConfig",
    "JwtCredentials",
    "JwtUser",
    "MetricsConfig",
    "ServerConfig",
    "TlsConfig",
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
    #: Whether anything stands under `tezos`.
    lists_keys: bool = True
    #: Paths below `tezos` where null stands for something that allows more than nothing: a whole policy, any chain, any
    #: client.
    nulls: frozenset[str] = frozenset()
    #: Whether the file ends with the end of a line: one that was cut short does so by chance only.
    ends_whole: bool = True


def load_config(file: Path, base_dir: str | None = None) -> Config:
    """Return the configuration in a file.

    Args:
        file: The YAML file.
        base_dir: Takes the place of `base_dir` in the file; what `--base-dir` said.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    document = load_document(file)
    # A place for anchors, as in other programs' files; nothing reads them.
    top = {name: entry for name, entry in document.mapping().items() if not name.startswith("x-")}
    warnings: list[str] = []
    with Problems() as problems:
        attempt = problems.attempt
        attempt(lambda: document.check_fields(top, _SECTIONS), None)
        folder = attempt(lambda: _base_dir(given(top, "base_dir"), base_dir), Path(DEFAULT_BASE_DIR))
        experimental = attempt(lambda: parse_experimental(top.get("experimental")), frozenset[KeyType]())
        apart = bool(experimental)
        policies = attempt(lambda: parse_policies(top.get("tezos"), experimental, warnings), Policies({}))
        config = Config(
            base_dir=folder,
            server=attempt(lambda: parse_server(top.get("server")), ServerConfig()),
            vaults=attempt(lambda: parse_vaults(top.get("vaults"), folder, warnings, apart=apart), {}),
            watermark=attempt(lambda: parse_watermark(top.get("watermark"), warnings), WatermarkConfig()),
            policies=policies.by_key,
            lists_keys=given(top, "tezos") is not None,
            nulls=policies.nulls,
            ends_whole=document.ends_whole,
            hook=attempt(lambda: parse_hook(given(top, "policy_hook")), None),
            metrics=attempt(lambda: parse_metrics(top.get("metrics"), len(policies.by_key)), MetricsConfig()),
            experimental=experimental,
        )
    return replace(config, warnings=tuple(warnings))


def _base_dir(value: Value | None, override: str | None) -> Path:
    if override is not None:
        if not override:
            raise ConfigError("--base-dir must not be empty")
        return Path(override)
    return Path(DEFAULT_BASE_DIR) if value is None else Path(expanded(value))
