"""The benchmarks can describe the machine, whatever curves there are."""

from benchmarks.machine import machine_line
from enclave_signer.protocol.key_types import KeyType


def test_the_machine_line_names_every_curve() -> None:
    line = machine_line()
    assert [key_type for key_type in KeyType if f"{key_type} " not in line] == []
