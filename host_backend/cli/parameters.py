"""Types of arguments: what they suggest for a word they do not know, and what a shell completes them with."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from host_backend.suggestion import suggestion

if TYPE_CHECKING:
    from host_backend.config import Config, VaultConfig

#: `int` takes more: `1_0`, the digits of other scripts, blanks. What has more digits is no level either.
_WHOLE = re.compile("-?[0-9]{1,18}")


class Choice(click.Choice[str]):
    """One of several words; suggests the one that was probably meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the error text for another word."""
        text = super().get_invalid_choice_message(value, ctx)
        hint = suggestion(str(value), self.choices)
        return f"{text.removesuffix('.')}; {hint}" if hint else text


class Whole(click.ParamType[int]):
    """A whole number, written as the configuration has it: in digits from 0 to 9."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; a default is one already."""
        if isinstance(value, int):
            return value
        if not _WHOLE.fullmatch(value):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return int(value)


class _FromConfiguration(click.types.StringParamType):
    """A text that a shell completes from the configuration, or not at all if that cannot be read."""

    def names(self, config: "Config") -> Iterable[str]:
        """Return what can be written."""
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so."""
        del param
        from host_backend.cli.options import Options

        try:
            config = Options(_said(ctx, "config"), _said(ctx, "base_dir")).read_config()
        except Exception:  # noqa: BLE001 -- a shell must not show an error while a command is typed
            return []
        return [CompletionItem(name) for name in self.names(config) if name.startswith(incomplete)]


class VaultName(_FromConfiguration):
    """The name of a vault."""

    def names(self, config: "Config") -> Iterable[str]:
        """Return the names under `vaults`."""
        return config.vaults


def named_vault(config: "Config", name: str | None) -> "VaultConfig":
    """Return the vault of that name; without one, the only vault that there is.

    Raises:
        ConfigError: There is none of that name, or the name is missing and there are several.
    """
    from host_backend.errors import ConfigError

    known = ", ".join(config.vaults) or "none"
    if name is None:
        if len(config.vaults) != 1:
            raise ConfigError(f"name a vault with --vault, the configuration has: {known}")
        (name,) = config.vaults
    if name not in config.vaults:
        raise ConfigError(f"vault {name} is not found, the configuration has: {known}")
    return config.vaults[name]


class KeyHash(_FromConfiguration):
    """The hash of a public key."""

    def names(self, config: "Config") -> Iterable[str]:
        """Return the keys under `tezos`."""
        return config.policies


def _said(ctx: click.Context | None, name: str) -> Any:
    """Return an option of this command or of one before it, as it was typed so far."""
    while ctx is not None:
        if (value := ctx.params.get(name)) is not None:
            return Path(value).expanduser() if name == "config" else value
        ctx = ctx.parent
    return None
