"""What `--help` looks like: commands in groups, an example for each command, common options at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

#: Options that every command takes; see `options`.
_COMMON = ("config", "base_dir", "log", "json_log", "help")
_MOST_COLUMNS = 80


class Command(click.Command):
    """A command with an example of its use.

    Args:
        example: One line or several that can be typed in a shell.
    """

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = (example,) if isinstance(example, str) else tuple(example)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of this command, then those of every command."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(Command, click.Group):
    """A group whose commands are listed under headings.

    Args:
        example: See `Command`.
        headings: Names of commands by heading; None: all under "Commands", sorted.
    """

    command_class = Command

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each heading with its commands, each with the whole first sentence of its help."""
        headings = self.headings or {"Commands": self.list_commands(ctx)}
        width = max(map(len, self.commands), default=0)
        for heading, names in headings.items():
            rows = [(f"{name:<{width}}", self._summary(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(_MOST_COLUMNS * 3)


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    own, common = list[tuple[str, str]](), list[tuple[str, str]]()
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and not isinstance(parameter, click.Argument):
            (common if parameter.name in _COMMON else own).append(record)
    for heading, rows in (("Options", own), ("Common options", common)):
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=_MOST_COLUMNS // 3)
