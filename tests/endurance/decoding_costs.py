"""What the largest frame costs to decode, by what it holds: `python -m tests.endurance.decoding_costs`.

Seconds of one core, and bytes of memory beyond the frame's own. A frame that takes long delays every other client.
"""

import time
import tracemalloc
from collections.abc import Callable, Mapping

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadMessage
from enclave_signer.protocol.framing import MAX_FRAME_BYTES

SIZE = MAX_FRAME_BYTES - 16
#: A slower frame is worth a look: on two slow cores the worst took 35 ms.
WORST_S = 0.2


def _array(item: bytes) -> bytes:
    count = SIZE // len(item)
    return b"\x9a" + count.to_bytes(4, "big") + item * count


def _map(entry: Callable[[int], bytes], size: int) -> bytes:
    count = SIZE // size
    return b"\xba" + count.to_bytes(4, "big") + b"".join(map(entry, range(count)))


FRAMES: Mapping[str, bytes] = {
    "one byte string": b"\x5a" + SIZE.to_bytes(4, "big") + bytes(SIZE),
    "one text": b"\x7a" + SIZE.to_bytes(4, "big") + b"x" * SIZE,
    "text of several bytes a character": b"\x7a" + SIZE.to_bytes(4, "big") + "\U0001f511".encode() * (SIZE // 4),
    "small integers": _array(b"\x01"),
    "large integers": _array(b"\x1b" + b"\xff" * 8),
    "simple values": _array(b"\xe0"),
    "simple values of two bytes": _array(b"\xf8\xff"),
    "floats": _array(b"\xfb" + b"\x01" * 8),
    "empty byte strings": _array(b"\x40"),
    "empty texts": _array(b"\x60"),
    "empty arrays": _array(b"\x80"),
    "empty maps": _array(b"\xa0"),
    "arrays in arrays": _array(b"\x81\x81\x00"),
    "a map of integers": _map(lambda number: b"\x1a" + number.to_bytes(4, "big") + b"\x00", 6),
    "a map of texts": _map(lambda number: b"\x65%05d\x00" % number, 7),
    "one key over and over": _map(lambda _: b"\x61k\x00", 3),
    "tags": b"\xc1" * SIZE,
}


def cost(frame: bytes) -> tuple[float, int]:
    """Return the seconds that a frame takes, read as a request, and its largest use of memory."""
    tracemalloc.start()
    _read(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    started = time.process_time()
    _read(frame)
    return time.process_time() - started, peak


def _read(frame: bytes) -> None:
    try:
        codec.decode_request(frame)
    except BadMessage:
        return
    raise SystemExit("a frame that is no request was read as one")


def main() -> int:
    """Print a table; return 1 when a frame is slow."""
    worst = 0.0
    for name, frame in FRAMES.items():
        took_s, peak = cost(frame)
        worst = max(worst, took_s)
        print(f"{name:36} {1e3 * took_s:6.1f} ms {1e6 * took_s / len(frame):6.3f} us a byte {peak / 1e6:6.1f} MB")
    return int(worst > WORST_S)


if __name__ == "__main__":
    raise SystemExit(main())
