"""Compiles modules into a wheel, where `HATCH_BUILD_HOOK_ENABLE_CUSTOM` is set, as `make wheel-compiled` does; hatchling runs it.

- Which modules: `pyproject.toml`, in the table of this hook.
- Every module is in the wheel as plain Python, too. Python takes the compiled one where there is one that fits it.
- The wheel is for this Python and this machine's kind alone, and its name says so.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from mypyc.build import mypycify
from setuptools import Distribution

#: How the library is called that all compiled modules share.
_GROUP = "enclave_signer"


class CompiledModules(BuildHookInterface[Any]):
    """Puts compiled modules beside the plain ones."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 -- hatchling's interface
        """Compile, and add what was made to the files of the wheel."""
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name, "library")
        _compile(self.config["modules"], Path(self._folder.name), library)
        for path in sorted(library.rglob("*.so")):
            build_data["force_include"][str(path)] = str(path.relative_to(library))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 -- as above
        """Remove what was made, now that it is in the wheel."""
        self._folder.cleanup()


def _compile(modules: list[str], folder: Path, library: Path) -> None:
    sources, target = ["--cache-dir", os.devnull, *modules], str(folder / "c")
    extensions = mypycify(sources, opt_level="3", debug_level="0", target_dir=target, group_name=_GROUP)
    distribution = Distribution({"name": _GROUP, "ext_modules": extensions})
    command: Any = distribution.get_command_obj("build_ext")
    command.build_lib = str(library)
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    command.run()
