"""Frames, however the stream was cut."""

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.protocol.errors import BadFrame, BadMessage
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, MAX_READ_AWAY_BYTES, FrameDecoder, encode_frame


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def taken(decoder: FrameDecoder) -> list[bytes]:
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append(frame)
    return frames


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_do_not_depend_on_how_the_stream_was_cut(bodies: list[bytes], places: list[int]) -> None:
    decoder = FrameDecoder()
    frames = []
    for piece in cut(b"".join(map(encode_frame, bodies)), places):
        decoder.feed(piece)
        frames += taken(decoder)
    assert frames == bodies
    assert not decoder.pending


def test_byte_by_byte() -> None:
    decoder = FrameDecoder()
    stream = encode_frame(b"abc") + encode_frame(b"")
    frames = []
    for byte in stream:
        decoder.feed(bytes([byte]))
        frames += taken(decoder)
    assert frames == [b"abc", b""]


def test_pending_tells_of_an_incomplete_frame() -> None:
    states = []
    decoder = FrameDecoder()
    for data in (b"", b"\0", b"\0\0\0"):
        decoder.feed(data)
        states.append(decoder.pending)
    assert decoder.next_frame() == b""
    states.append(decoder.pending)
    assert states == [False, True, True, False]


@pytest.mark.parametrize("length", [MAX_FRAME_BYTES + 1, 2**31, 2**32 - 1])
def test_a_length_over_the_limit_is_refused_at_once(length: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(struct.pack(">I", length))
    with pytest.raises(BadFrame, match=f"{length} bytes"):
        decoder.next_frame()


def test_the_largest_frame_passes() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_frame(bytes(MAX_FRAME_BYTES)))
    assert decoder.next_frame() == bytes(MAX_FRAME_BYTES)


def test_encoding_a_longer_one_is_a_bug() -> None:
    with pytest.raises(ValueError, match="limit"):
        encode_frame(bytes(MAX_FRAME_BYTES + 1))


def everything(decoder: FrameDecoder) -> list[bytes | str]:
    """Return what a decoder gives that reads long frames away; of one that was read away, its refusal."""
    found: list[bytes | str] = []
    while True:
        try:
            frame = decoder.next_frame()
        except BadMessage as error:
            found.append(str(error))
            continue
        except BadFrame:
            decoder.read_away()
            continue
        if frame is None:
            return found
        found.append(frame)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_long_frames_are_read_away_however_the_stream_was_cut(bodies: list[bytes], places: list[int]) -> None:
    limit = 20
    decoder = FrameDecoder(limit)
    found = []
    for piece in cut(b"".join(struct.pack(">I", len(body)) + body for body in bodies), places):
        decoder.feed(piece)
        found += everything(decoder)
    assert len(found) == len(bodies)
    for body, outcome in zip(bodies, found, strict=True):
        told = f"a frame of {len(body)} bytes is over the limit of 20, and was thrown away"
        assert outcome == (body if len(body) <= limit else told)
    assert not decoder.pending


def test_nothing_of_a_long_frame_is_kept() -> None:
    decoder = FrameDecoder()
    decoder.feed(struct.pack(">I", MAX_READ_AWAY_BYTES))
    assert everything(decoder) == []
    tracemalloc.start()
    piece = bytes(65536)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(MAX_READ_AWAY_BYTES // len(piece)):
        assert decoder.pending
        assert decoder.next_frame() is None
        decoder.feed(piece)
    assert tracemalloc.get_traced_memory()[0] - before < 1024
    tracemalloc.stop()
    assert len(everything(decoder)) == 1
    assert not decoder.pending


def test_what_is_longer_still_is_not_read_away() -> None:
    decoder = FrameDecoder()
    decoder.feed(struct.pack(">I", MAX_READ_AWAY_BYTES + 1))
    with pytest.raises(BadFrame):
        decoder.next_frame()
    with pytest.raises(BadFrame, match=f"at most {MAX_READ_AWAY_BYTES} are read away"):
        decoder.read_away()


@pytest.mark.parametrize("record", ["1503010002", "160301020001", "1703030020"])
def test_a_record_of_tls_is_no_frame(record: str) -> None:
    decoder = FrameDecoder()
    decoder.feed(bytes.fromhex(record))
    with pytest.raises(BadFrame, match="speaks TLS"):
        decoder.next_frame()
