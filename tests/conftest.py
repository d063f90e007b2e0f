"""What all tests share."""

import sys
from collections.abc import Iterator

_RECURSION_LIMIT = sys.getrecursionlimit()

import py_ecc.bls  # noqa: E402, F401
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests.doubles.processes import Enclave, running_enclave  # noqa: E402

# py_ecc raises the limit a hundredfold when it is imported; the programs under test run with the usual one.
sys.setrecursionlimit(_RECURSION_LIMIT)

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("product", deadline=None, derandomize=True)
settings.load_profile("product")


@pytest.fixture(scope="module")
def enclave() -> Iterator[Enclave]:
    """A running daemon that seals nothing, one per module."""
    with running_enclave() as daemon:
        yield daemon
