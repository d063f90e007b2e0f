"""Frames over the limit through one connection that never reconnects: memory, and the keys of all others.

python -m tests.endurance.long_frames [FRAMES]
"""

import struct
import sys

from tests.doubles.processes import running_enclave
from tests.doubles.wire import WireClient

SIZE = 1 << 20
SIGN = {"Sign": {"handle": 1, "message": b"\3", "version": 2}}


def main() -> None:
    """Send frames of 1 MiB, each followed by a signature of another key on the same connection; print the memory."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with running_enclave() as enclave, WireClient(enclave.address) as client:
        for _ in range(2):
            assert "Ok" in client.call({"GenerateAndImport": "Ed25519"})
        assert "Ok" in client.call(SIGN)
        memory = [enclave.resident_bytes() >> 10]
        body = struct.pack(">I", SIZE) + b"\x13" * SIZE
        for _ in range(frames):
            client.stream.sendall(body)
            assert "was thrown away" in str(client.receive())
            assert "Ok" in client.call(SIGN)
            memory.append(enclave.resident_bytes() >> 10)
        print(
            f"{frames} frames of 1 MiB read away, {frames} signatures of another key in between; resident "
            f"{memory[0]} KiB before, {max(memory)} KiB at most, {memory[-1]} KiB after"
        )


if __name__ == "__main__":
    main()
