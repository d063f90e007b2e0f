"""The modules imported at a start: nothing that a plain configuration does not need, and it is not looked through again."""

import gc
import os
import subprocess
import sys

from host_backend.imports import imported_to_stay

PLAIN_ENCLAVE = """
import sys
import enclave_signer.__main__
from enclave_signer.config import parse_config
from enclave_signer.curves import self_test
parse_config(["--sealing-key", "key"], {})
self_test()
print(*sys.modules)
"""


def test_what_was_imported_is_not_looked_through_for_garbage() -> None:
    there: list[list[int]] = []
    try:
        with imported_to_stay():
            there += ([] for _ in range(1000))
            assert not gc.isenabled()
        assert gc.isenabled()
        looked_through = {id(each) for each in gc.get_objects()}
        assert not looked_through & {id(each) for each in there}
    finally:
        gc.unfreeze()


def test_an_enclave_without_an_image_loads_nothing_for_one() -> None:
    # What measures the tests reads its own configuration in every process.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    words = [sys.executable, "-c", PLAIN_ENCLAVE]
    loaded = subprocess.run(words, env=plain, stdout=subprocess.PIPE, check=True).stdout.split()
    assert b"enclave_signer.curves.p256" in loaded
    needless = {b"enclave_signer.image", b"enclave_signer.sealing.gcp_config", b"tomllib", b"OpenSSL"}
    # It alone takes as long as two curves, for one way of writing a point.
    needless.add(b"cryptography.hazmat.primitives.serialization")
    assert not needless & set(loaded)


def test_a_yaml_library_that_reads_otherwise_is_refused() -> None:
    without = "import sys; sys.modules['yaml._yaml'] = None; from host_backend.cli.commands import main; main()"
    outcome = subprocess.run(
        [sys.executable, "-c", without, "config", "check"], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("Error: this PyYAML was built without libyaml: pip install ")
