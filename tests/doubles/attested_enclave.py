"""The daemon as a Confidential Space image has it, with a sealer that seals nothing, and the launcher's socket at `LAUNCHER`.

It says on standard error which calls it gets.
"""

import os
import sys
from pathlib import Path

from enclave_signer import __main__ as program
from enclave_signer.config import parse_config
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol import codec
from enclave_signer.protocol.messages import Request
from tests.doubles.passthrough_enclave import PassthroughSealer

_decode = codec.decode_request


def decode_loudly(frame: bytes) -> Request:
    request = _decode(frame)
    sys.stderr.write(f"called: {type(request).__name__}\n")
    return request


def main() -> None:
    codec.decode_request = decode_loudly
    config = parse_config(sys.argv[1:], os.environ)
    program.start_logging(config, sys.argv[1:])
    launcher = LauncherSocket(Path(os.environ["LAUNCHER"]), program.LAUNCHER_S)
    program.run(config, lambda: [PassthroughSealer()], program.open_attester(config.image, launcher))


if __name__ == "__main__":
    main()
