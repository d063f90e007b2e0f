"""The type of all paths on the command line."""

from pathlib import Path
from typing import Any

import click


class NamedPath(click.Path):
    """The path of a file or folder.

    An empty one, as a shell makes it of a variable that is not set, would be the folder in which the command runs.
    """

    def __init__(self, *, allow_dash: bool = False) -> None:
        super().__init__(path_type=Path, allow_dash=allow_dash)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if value == "":
            self.fail("must not be empty", param, ctx)
        return super().convert(value, param, ctx)
