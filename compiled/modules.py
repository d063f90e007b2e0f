"""Which modules a compiled wheel has compiled, and which of them are, here."""

import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules() -> list[str]:
    """Return the names of the modules that a compiled wheel has compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    paths: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
    return [path.removesuffix(".py").replace("/", ".") for path in paths]


def plain() -> list[str]:
    """Return those of them that are plain Python, as they are imported here."""
    return [name for name in modules() if str(import_module(name).__file__).endswith(".py")]
