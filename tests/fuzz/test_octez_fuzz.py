"""Any bytes at Octez' sockets: an answer, an error, or a closed connection. A million of them: `tests.endurance.octez_frames`."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from host_backend.octez.wire import Frames, NotOctez, parse_request
from tests.unit.test_octez_wire import RECORDED

FRAMES = [bytes.fromhex(text) for text in RECORDED["requests"].values()]


@st.composite
def changed_frames(draw: st.DrawFn) -> bytes:
    """Return real requests with some bytes changed, added or taken away."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=3))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[at] = byte
    end = draw(st.integers(0, len(data)))
    return bytes(data[:end]) + draw(st.binary(max_size=8)) + bytes(data[end:])


@settings(max_examples=3000, deadline=None)
@given(data=changed_frames() | st.binary(max_size=300), sizes=st.lists(st.integers(1, 40), max_size=20))
@example(b"\x00\x00", [1])
@example(b"\xff\xff", [])
def test_any_bytes(data: bytes, sizes: list[int]) -> None:
    whole, cut = requests(data, [len(data)]), requests(data, sizes)
    assert whole == cut


def requests(data: bytes, sizes: list[int]) -> list[object]:
    """Return the requests in bytes that come in pieces, and None at the end for bytes that are not a request."""
    frames, found, at = Frames(), list[object](), 0
    for size in (*sizes, len(data)):
        frames.feed(data[at : at + size])
        at += size
        try:
            while (frame := frames.next()) is not None:
                found.append(parse_request(frame))
        except NotOctez:
            return [*found, None]
    return found
