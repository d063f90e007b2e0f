"""Which answer belongs to which call: in order, or not at all."""

import struct

import pytest

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import Family, WireError
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, encode_frame
from enclave_signer.protocol.messages import (
    MAX_MESSAGE_BYTES,
    GetPublicKey,
    Import,
    KeyType,
    PublicKey,
    Request,
    Result,
    Sign,
    Signature,
    SigningVersion,
)
from host_backend.enclave.replies import ReplyLine
from host_backend.errors import (
    BlobCorrupt,
    EnclaveRefused,
    Garbled,
    HostError,
    NotReleased,
    ReleaseDenied,
    SealerUnavailable,
    Unanswered,
    WatermarkRejected,
)


class Caller:
    """Keeps its answer, and fails at a second one."""

    def __init__(self) -> None:
        self.told: Result | HostError = None
        self.times = 0

    def answered(self, result: Result) -> None:
        self.told, self.times = result, self.times + 1
        assert self.times == 1

    def failed(self, error: HostError) -> None:
        self.told, self.times = error, self.times + 1
        assert self.times == 1

    @property
    def error(self) -> HostError:
        assert isinstance(self.told, HostError)
        return self.told


#: Seconds for an answer, on the clock of these tests.
LIMIT_S = 10.0
SIGN = Sign(0, b"message", SigningVersion.V2)


def signature(number: int) -> Signature:
    return Signature(KeyType.ED25519, number.to_bytes(64, "big"))


def ok(result: Result) -> bytes:
    return encode_frame(codec.encode_ok(result))


def refusal(*texts: str) -> bytes:
    error: WireError | None = None
    for text in reversed(texts):
        error = WireError(text, error)
    assert error is not None
    return encode_frame(codec.encode_error(error))


def waiting(count: int, request: Request = SIGN) -> tuple[ReplyLine, list[Caller]]:
    line, callers = ReplyLine(), [Caller() for _ in range(count)]
    for number, caller in enumerate(callers):
        line.add(request, caller, LIMIT_S, 100.0 + number)
    return line, callers


def test_a_call_is_encoded_as_a_frame() -> None:
    line = ReplyLine()
    assert line.add(SIGN, Caller(), LIMIT_S, 0.0) == encode_frame(codec.encode_request(SIGN))
    assert len(line) == 1


def test_answers_come_in_the_order_of_the_calls() -> None:
    line, callers = waiting(5)
    line.feed(ok(signature(0)) + ok(signature(1)), 0.0)
    assert [caller.times for caller in callers] == [1, 1, 0, 0, 0]
    assert len(line) == 3
    line.feed(b"".join(ok(signature(number)) for number in (2, 3, 4)), 0.0)
    assert [caller.told for caller in callers] == [signature(number) for number in range(5)]
    assert len(line) == 0
    assert line.broken is None


def test_an_answer_may_come_in_pieces() -> None:
    line, (first, second) = waiting(2)
    data = ok(signature(0)) + ok(signature(1))
    for place in range(len(data)):
        line.feed(data[place : place + 1], 0.0)
    assert (first.told, second.told) == (signature(0), signature(1))


def test_a_refusal_fails_its_own_call_only() -> None:
    line, (first, second, third) = waiting(3)
    line.feed(ok(signature(0)) + refusal("signer error", "invalid handle") + ok(signature(2)), 0.0)
    assert (first.told, third.told) == (signature(0), signature(2))
    assert isinstance(second.told, EnclaveRefused)
    assert str(second.told) == "the enclave refused: signer error: invalid handle"
    assert line.broken is None


def test_a_refusal_of_the_enclave_s_guard_is_a_refused_mark() -> None:
    line, (first, second) = waiting(2)
    line.feed(refusal(f"{Family.GUARD_REFUSED}: another message was allowed there") + ok(signature(1)), 0.0)
    assert isinstance(first.told, WatermarkRejected)
    text = f"watermark validation failed in the enclave: {Family.GUARD_REFUSED}: another message was allowed there"
    assert str(first.told) == text
    assert second.told == signature(1)


@pytest.mark.parametrize("after", [ok(signature(1)), b"\xff\xff\xff\xff"], ids=["surplus", "garbled"])
@pytest.mark.parametrize("guard", [False, True])
def test_a_refusal_that_was_read_stays_one_whatever_comes_after_it(after: bytes, *, guard: bool) -> None:
    line, (caller,) = waiting(1)
    with pytest.raises(Garbled):
        line.feed(refusal(Family.GUARD_REFUSED if guard else "no") + after, 0.0)
    assert type(caller.told) is (WatermarkRejected if guard else EnclaveRefused)


GARBLED = [
    (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes was announced"),
    (struct.pack(">I", MAX_FRAME_BYTES + 1), f"a frame of {MAX_FRAME_BYTES + 1} bytes was announced"),
    (encode_frame(b""), "the CBOR item is cut short"),
    (encode_frame(b"\xff"), "not the CBOR of this protocol"),
    (encode_frame(codec.encode_ok(signature(0)) + b"\0"), "1 bytes follow the CBOR item"),
    (encode_frame(codec.encode_ok(None)), "a signature must be a map"),
    (
        encode_frame(codec.encode_ok(PublicKey(KeyType.ED25519, bytes(32)))),
        "the Ed25519 signature has 32 bytes, not 64",
    ),
    (encode_frame(b"\xa1\x63Yes\x00"), "a reply is neither Ok nor Err"),
]


@pytest.mark.parametrize(("data", "text"), GARBLED)
def test_a_garbled_answer_fails_everything_for_good(data: bytes, text: str) -> None:
    line, (first, second, third) = waiting(3)
    line.feed(ok(signature(0)), 0.0)
    with pytest.raises(Garbled, match=text):
        line.feed(data + ok(signature(1)) + ok(signature(2)), 0.0)
    assert first.told == signature(0)
    for caller in (second, third):
        assert isinstance(caller.told, Garbled)
        assert str(caller.told).startswith(f"the enclave's answer is garbled: {text}")
    with pytest.raises(Garbled, match=text):
        line.add(SIGN, Caller(), LIMIT_S, 0.0)
    assert len(line) == 0


def test_an_answer_that_no_call_asked_for() -> None:
    line, (caller,) = waiting(1)
    with pytest.raises(Garbled, match="an answer came without a call"):
        line.feed(ok(signature(0)) + ok(signature(1)), 0.0)
    assert caller.told == signature(0)
    assert line.broken is not None


def test_an_answer_before_any_call() -> None:
    line = ReplyLine()
    line.feed(ok(signature(0))[:-1], 0.0)
    with pytest.raises(Garbled, match="came without a call"):
        line.feed(ok(signature(0))[-1:], 0.0)


def test_bytes_after_the_end_are_never_an_answer() -> None:
    line, (caller,) = waiting(1)
    line.end(Unanswered("the reason"))
    with pytest.raises(Garbled):
        line.feed(ok(signature(0)), 0.0)
    assert str(caller.error) == "the reason"
    assert str(line.broken) == "the reason"


def test_the_first_reason_stays() -> None:
    line, (caller,) = waiting(1)
    line.end(Unanswered("first"))
    line.end(Garbled("second"))
    assert type(line.broken) is Unanswered
    assert str(line.broken) == str(caller.error) == "first"


def test_only_the_head_of_the_line_can_be_late_counted_from_when_it_became_that() -> None:
    line, (first, second) = waiting(2)
    assert line.next_deadline == 110.0
    assert line.expire(109.9) is None
    line.feed(ok(signature(0)), 109.9)
    assert line.next_deadline == 119.9
    assert line.expire(119.8) is None
    late = line.expire(119.9)
    assert isinstance(late, Unanswered)
    assert second.told is late
    assert first.told == signature(0)
    assert str(line.broken) == "the enclave did not answer in time"
    assert len(line) == 0
    assert line.expire(1e9) is None


def test_each_call_has_its_own_limit() -> None:
    line = ReplyLine()
    line.add(Import(b"blob"), Caller(), 60.0, 0.0)
    line.add(SIGN, Caller(), LIMIT_S, 0.0)
    deadlines = [line.next_deadline]
    for now in (50.0, 55.0):
        line.feed(refusal("no"), now)
        deadlines.append(line.next_deadline)
    line.add(SIGN, Caller(), LIMIT_S, 70.0)
    assert [*deadlines, line.next_deadline] == [60.0, 60.0, None, 80.0]


def test_an_answer_that_comes_late_is_nobody_s() -> None:
    line, (caller,) = waiting(1)
    assert line.expire(1e9) is not None
    with pytest.raises(Garbled):
        line.feed(ok(signature(0)), 0.0)
    assert isinstance(caller.told, Unanswered)


def test_a_call_that_cannot_be_sent_does_not_stand_in_line() -> None:
    line = ReplyLine()
    with pytest.raises(ValueError, match="over the limit"):
        line.add(Sign(0, bytes(MAX_FRAME_BYTES)), Caller(), LIMIT_S, 0.0)
    assert len(line) == 0
    caller = Caller()
    line.add(Sign(0, bytes(MAX_MESSAGE_BYTES)), caller, LIMIT_S, 0.0)
    line.feed(ok(signature(7)), 0.0)
    assert caller.told == signature(7)


def test_each_call_expects_its_own_kind_of_answer() -> None:
    line, asked, key = ReplyLine(), Caller(), PublicKey(KeyType.ED25519, bytes(32))
    line.add(GetPublicKey(0), asked, LIMIT_S, 0.0)
    line.feed(ok(key), 0.0)
    assert asked.told == key
    line.add(Import(b"blob"), caller := Caller(), LIMIT_S, 0.0)
    with pytest.raises(Garbled, match="garbled"):
        line.feed(ok(key), 0.0)
    assert isinstance(caller.told, Garbled)


def test_a_line_that_has_ended_keeps_nothing_of_later_callers() -> None:
    line = ReplyLine()
    line.end(Unanswered("gone"))
    for _ in range(3):
        with pytest.raises(Unanswered, match=r"^gone$") as refused:
            line.add(SIGN, Caller(), LIMIT_S, 0.0)
    # One error raised again and again would keep the frames of every raise.
    frames, traceback = 0, refused.value.__traceback__
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    assert frames == 2


@pytest.mark.parametrize(
    ("text", "error", "status"),
    [
        ("unavailable: no answer", SealerUnavailable, 503),
        ("not released yet: ask", NotReleased, 503),
        ("release denied: ask", ReleaseDenied, 502),
        ("blob corrupt: cut short", BlobCorrupt, 502),
        ("refused: no", EnclaveRefused, 502),
        ("signer error", EnclaveRefused, 502),
    ],
)
def test_each_family_is_an_error_of_its_own(text: str, error: type[HostError], status: int) -> None:
    line, (first, second) = waiting(2)
    line.feed(refusal(text) + ok(signature(1)), 0.0)
    assert type(first.error) is error
    assert first.error.http_status == status
    assert text in str(first.error)
    # The connection goes on.
    assert second.told == signature(1)
    assert line.broken is None


@pytest.mark.parametrize("text", ["invalid handle: 0 is not open", "uninitialized", "already initialized"])
def test_a_session_that_is_not_this_connections_ends_it(text: str) -> None:
    line, callers = waiting(2)
    with pytest.raises(Garbled, match=f"session is not this connection's: {text}"):
        line.feed(refusal(text) + ok(signature(1)), 0.0)
    assert all(isinstance(caller.error, Unanswered) for caller in callers)


@pytest.mark.parametrize(("size", "hint"), [(4096, False), (4097, True)])
def test_a_message_that_is_too_long_for_tee_signer_is_explained(size: int, hint: bool) -> None:
    line, caller = ReplyLine(), Caller()
    line.add(Sign(0, bytes(size), SigningVersion.V2), caller, LIMIT_S, 0)
    # Its own words, as they were seen.
    line.feed(encode_frame(codec.encode_error(WireError('Semantic(None, "invalid type: bytes, expected bytes")'))), 0)
    assert ("the message has 4097 bytes, and tee-signer takes 4096 at most" in str(caller.error)) == hint
    assert not line.ended
