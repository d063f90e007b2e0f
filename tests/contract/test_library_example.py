"""The example of `docs/library.md`, run as a script against a real enclave."""

import re
import subprocess
import sys
from pathlib import Path

from tests.contract.markdown import DOCS, blocks
from tests.doubles.processes import PATIENCE_S, UnixEnclave, kept


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = blocks(DOCS / "library.md", "python")
    script = tmp_path / "example.py"
    script.write_text(example)
    folder = tmp_path / "keys"
    with kept(UnixEnclave(tmp_path / "run" / "enclave.sock")) as enclave:
        command = [sys.executable, str(script), str(enclave.path), str(folder)]
        outputs = [
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout
            for _ in range(2)
        ]
    for output in outputs:
        assert re.search(r"^key tz1LggX2HUdvJ1tF4Fvv8fjsrzLeW4Jr9t2Q edpk", output, re.MULTILINE)
        assert re.search(r"^signature edsig", output, re.MULTILINE)
        assert re.search(r"^signature BLsig", output, re.MULTILINE)
        assert re.search(r"^proof BLsig", output, re.MULTILINE)
        assert re.search(r"^public key BLpk", output, re.MULTILINE)
        assert output.endswith("out of service {}\n")
    # The second run finds the keys of the first, and makes one more.
    assert [output.count("key tz4") for output in outputs] == [1, 2]
    assert [output.count("key tz1") for output in outputs] == [1, 1]
