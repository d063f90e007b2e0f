"""What tests of commands share."""

from collections.abc import Iterator

import pytest

from tests.doubles.processes import Enclave, running_local_enclave


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """A running daemon that seals under a key file, one per module."""
    with running_local_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave
