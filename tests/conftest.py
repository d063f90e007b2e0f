"""What all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.doubles.processes import Enclave, running_enclave

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("product", deadline=None, derandomize=True)
settings.load_profile("product")


@pytest.fixture(scope="module")
def enclave() -> Iterator[Enclave]:
    """A running daemon that seals nothing, one per module."""
    with running_enclave() as daemon:
        yield daemon
