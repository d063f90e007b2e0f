"""What the tests of JavaScript clients share: the hosts, and a folder with the clients of npm."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.clients import Site, npm, running_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm(tmp_path_factory.mktemp("npm"))
