"""What tests of the watermark store share."""

from pathlib import Path

import pytest

from host_backend.watermark.file import store
from tests.doubles.watermarks import created


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a new store, and nothing else below `tmp_path`."""
    (tmp_path / "base").mkdir()
    return created(tmp_path / "base")


@pytest.fixture
def never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store write nothing by itself, however long a test takes: for tests that count writes or make them fail."""
    monkeypatch.setattr(store, "_QUIET_S", 600)
