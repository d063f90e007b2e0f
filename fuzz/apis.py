"""Has schemathesis ask a running host whatever its two OpenAPI documents allow, and some that they do not.

usage: python -m fuzz.apis SCHEMATHESIS [EXAMPLES]    (the program; examples for each operation, 100 unless given)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.doubles.host_process import import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import running_local_enclave

#: An answer is of the described status, type and form, and no bug (500).
_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
_POLICY = "{allow: {generic: [transaction], block: , attestation: }}"
_SECONDS = 900


def ask(schemathesis: str, address: str, examples: int) -> int:
    """Have one document tried; return the exit code."""
    print(f"{address}/openapi.json", flush=True)
    return subprocess.run(
        [
            *(schemathesis, "run", f"{address}/openapi.json", "--checks", _CHECKS),
            *("--max-examples", str(examples), "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"),
        ],
        timeout=_SECONDS,
        check=False,
    ).returncode


def main(schemathesis: str, examples: int) -> int:
    """Ask both addresses of a host; return 1 when anything was answered as it must not be."""
    with tempfile.TemporaryDirectory() as folder, running_local_enclave(Path(folder) / "sealing.key") as enclave:
        config = write_config(Path(folder), enclave.port, {key.pkh: _POLICY for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            codes = [ask(schemathesis, f"http://127.0.0.1:{port}", examples) for port in (host.port, host.utility_port)]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100))
