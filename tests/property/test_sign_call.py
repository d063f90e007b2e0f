"""The common form of `Sign`, read at fixed offsets: it means what the strict decoder says, or is left to that."""

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enclave_signer.curves import curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES, KeyType, Sign, Signature, SigningVersion
from enclave_signer.protocol.sign_call import read_sign, read_signature, sign_frame, signature_frame

SHORTEST = 24
handles = st.one_of(st.integers(0, 300), st.integers(0, 2**16 - 1))
messages = st.one_of(
    st.binary(min_size=SHORTEST, max_size=300),
    st.sampled_from([1000, MAX_MESSAGE_BYTES]).map(lambda size: b"\x03" * size),
)
calls = st.builds(Sign, handles, messages, st.sampled_from(SigningVersion))
frames = calls.map(codec.encode_request)


def check(frame: bytes) -> bool:
    """Return whether a frame is read at fixed offsets; it fails where that means something else than the strict way."""
    read = read_sign(frame)
    if read is None:
        return False
    assert codec.decode_request(frame) == Sign(*read)
    return True


@given(calls)
def test_what_our_host_writes_is_read_at_fixed_offsets(call: Sign) -> None:
    assert read_sign(codec.encode_request(call)) == (call.handle, call.message, call.version)


@given(handles, messages)
def test_so_is_what_signatory_writes(handle: int, message: bytes) -> None:
    frame = cbor2.dumps({"Sign": {"handle": handle, "message": message}})
    assert read_sign(frame) == (handle, message, SigningVersion.LATEST)


@given(frames, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_were_changed_are_read_alike_or_not_at_all(frame: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(frame)
    for place, byte in changes:
        # From either end: what matters is near them.
        changed[place % len(frame) if place % 2 else -(place % min(len(frame), 60)) - 1] = byte
    check(bytes(changed))


@given(frames, st.integers(0, 80), st.integers(0, 6), st.binary(max_size=6))
def test_bytes_that_were_put_in_or_left_out(frame: bytes, place: int, left_out: int, put_in: bytes) -> None:
    for start in (place, len(frame) - place):
        check(frame[: max(start, 0)] + put_in + frame[max(start, 0) + left_out :])


@given(st.binary(max_size=120))
@example(b"")
def test_any_bytes(tail: bytes) -> None:
    for count in (b"\xa1", b"\xa2", b"\xa3", b"\xa4"):
        check(b"\xa1\x64Sign" + count + b"\x66handle" + tail)
    check(tail)


def test_each_cut_and_each_byte_of_one_frame() -> None:
    frame = codec.encode_request(Sign(300, b"\x13" + bytes(77), SigningVersion.LATEST))
    assert check(frame)
    assert not any(check(frame[:end]) for end in range(len(frame)))
    assert not any(check(frame + byte.to_bytes(1, "big")) for byte in range(256))
    for place in range(len(frame)):
        for byte in range(256):
            check(frame[:place] + bytes([byte]) + frame[place + 1 :])


@pytest.mark.parametrize(
    "argument",
    [
        # Other orders and forms: the strict decoder takes them, at its own pace.
        {"message": bytes(40), "handle": 0, "version": 2},
        {"handle": 2**16, "message": bytes(40), "version": 2},
        {"handle": 0, "message": bytes(SHORTEST - 1), "version": 2},
        {"handle": 0, "message": [0] * 40, "version": 2},
        # What it refuses.
        {"handle": 0, "message": bytes(40), "version": 3},
        {"handle": 0, "message": bytes(40), "version": True},
        {"handle": 0, "message": "0" * 40, "version": 2},
        {"handle": -1, "message": bytes(40), "version": 2},
        {"handle": 0, "message": bytes(MAX_MESSAGE_BYTES + 1), "version": 2},
    ],
)
def test_everything_else_is_left_to_the_strict_decoder(argument: dict[str, object]) -> None:
    assert read_sign(cbor2.dumps({"Sign": argument})) is None


@pytest.mark.parametrize("key_type", KeyType)
def test_an_answer_is_what_the_codec_writes(key_type: KeyType) -> None:
    key = curve(key_type).open(curve(key_type).generate())
    signature = key.sign(b"\x03" + bytes(40), SigningVersion.LATEST)
    assert isinstance(signature, Signature)
    assert signature_frame(signature) == encode_frame(codec.encode_ok(signature))
    assert read_signature(signature_frame(signature)[4:]) == signature


@given(st.builds(Sign, handles, st.one_of(st.binary(max_size=300), messages), st.sampled_from(SigningVersion)))
@example(Sign(0, b"", SigningVersion.V0))
def test_a_call_is_what_the_codec_writes(call: Sign) -> None:
    assert sign_frame(call) == encode_frame(codec.encode_request(call))


@given(
    st.sampled_from(KeyType),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3),
    st.integers(-2, 2),
)
def test_an_answer_is_read_as_the_strict_decoder_reads_it_or_not_at_all(
    key_type: KeyType, changes: list[tuple[int, int]], longer: int
) -> None:
    frame = bytearray(codec.encode_ok(Signature(key_type, bytes(key_type.facts.signature_bytes))))
    frame = frame + bytes(longer) if longer >= 0 else frame[:longer]
    for place, byte in changes:
        frame[place % len(frame)] = byte
    read = read_signature(bytes(frame))
    assert read is None or read == codec.decode_reply(Sign(0, b""), bytes(frame))


def test_an_array_of_integers_is_left_to_the_strict_decoder() -> None:
    frame = cbor2.dumps({"Ok": {"Ed25519": [7] * 64}})
    assert read_signature(frame) is None
    assert codec.decode_reply(Sign(0, b""), frame) == Signature(KeyType.ED25519, bytes([7]) * 64)
