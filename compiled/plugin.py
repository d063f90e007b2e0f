"""A plugin of pytest, `-p compiled.plugin`: tests run with compiled modules, or not at all."""

import pytest

from compiled.modules import modules, plain


def pytest_report_header() -> str:
    """Say how many modules are compiled.

    Raises:
        UsageError: Not all that should be.
    """
    if names := plain():
        raise pytest.UsageError(f"plain Python, though they should be compiled: {', '.join(names)}")
    return f"compiled modules: {len(modules())}, and none of them plain"
