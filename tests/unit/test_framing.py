"""Frames, however the stream was cut."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.protocol.errors import BadFrame
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, FrameDecoder, encode_frame


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
