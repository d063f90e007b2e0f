"""What all tests share."""

import importlib
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.doubles.processes import Enclave, running_enclave

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("product", deadline=None, derandomize=True)
settings.load_profile("product")


def import_oracle() -> None:
    """Import py_ecc, which raises the recursion limit a hundredfold, and go on with the one that the programs have."""
    recursion_limit = sys.getrecursionlimit()
    importlib.import_module("py_ecc.bls")
    sys.setrecursionlimit(recursion_limit)


import_oracle()


@pytest.fixture(scope="module")
def enclave() -> Iterator[Enclave]:
    """A running daemon that seals nothing, one per module."""
    with running_enclave() as daemon:
        yield daemon
