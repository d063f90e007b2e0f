"""The daemon as in `gcp_enclave`, whose clock does as `CHAOS_STATE` says, and whose launcher's socket is at `LAUNCHER`."""

import os
import sys
from pathlib import Path

from tests.doubles.chaotic import shift_clock


def main() -> None:
    from enclave_signer import __main__ as program
    from enclave_signer.config import parse_config
    from enclave_signer.launcher import LauncherSocket
    from tests.doubles.gcp_enclave import doubled_kms

    program.forbid_inspection()
    config = parse_config(sys.argv[1:], os.environ)
    program.start_logging(config, sys.argv[1:])
    program.lock_memory()
    assert config.image is not None
    sealer = doubled_kms(config.image)
    launcher = LauncherSocket(Path(os.environ["LAUNCHER"]), program.LAUNCHER_S)
    program.run(config, lambda: [sealer], program.open_attester(config.image, launcher))


if __name__ == "__main__":
    shift_clock()
    main()
