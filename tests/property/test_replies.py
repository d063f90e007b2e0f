"""However the bytes of answers are cut, and wherever they break: no caller gets another's answer, none is answered twice."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import KeyType, Result, Sign, Signature
from host_backend.enclave.replies import ReplyLine
from host_backend.errors import EnclaveRefused, Garbled, HostError, Unanswered


class Caller:
    def __init__(self) -> None:
        self.told: list[Result | HostError] = []

    def answered(self, result: Result) -> None:
        self.told.append(result)

    def failed(self, error: HostError) -> None:
        self.told.append(error)


def signature(number: int) -> Signature:
    return Signature(KeyType.SECP256K1, number.to_bytes(64, "big"))


def answer(number: int, *, refused: bool) -> bytes:
    if refused:
        return encode_frame(codec.encode_error(WireError(f"no {number}")))
    return encode_frame(codec.encode_ok(signature(number)))


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def feed(line: ReplyLine, data: bytes, cuts: list[int]) -> bool:
    """Feed in pieces until it breaks; return whether it did."""
    for chunk in chunks(data, cuts):
        try:
            line.feed(chunk, 0.0)
        except Garbled:
            return True
    return False


def call(line: ReplyLine, count: int) -> list[Caller]:
    callers = [Caller() for _ in range(count)]
    for number, caller in enumerate(callers):
        line.add(Sign(number, b"m"), caller, 1.0, 0.0)
    return callers


cut_places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=20)


@given(st.lists(st.booleans(), max_size=12), cut_places)
def test_answers_however_cut(refusals: list[bool], cuts: list[int]) -> None:
    line = ReplyLine()
    callers = call(line, len(refusals))
    data = b"".join(answer(number, refused=refused) for number, refused in enumerate(refusals))
    assert not feed(line, data, cuts)
    for number, (caller, refused) in enumerate(zip(callers, refusals, strict=True)):
        (told,) = caller.told
        if refused:
            assert isinstance(told, EnclaveRefused)
            assert str(told) == f"the enclave refused: no {number}"
        else:
            assert told == signature(number)
    assert len(line) == 0
    assert line.broken is None


@given(st.integers(0, 8), st.integers(0, 8), cut_places, st.binary(min_size=1, max_size=40), st.integers(0, 10_000))
def test_answers_however_broken(count: int, before: int, cuts: list[int], noise: bytes, place: int) -> None:
    line = ReplyLine()
    callers = call(line, count)
    good = min(before, count)
    data = b"".join(answer(number, refused=False) for number in range(count))
    start = sum(len(answer(number, refused=False)) for number in range(good))
    # Noise in the middle of what follows the good answers.
    place = start + place % (len(data) - start + 1)
    feed(line, data[:place] + noise + data[place:], cuts)
    line.end(Unanswered("end"))
    for number, caller in enumerate(callers):
        (told,) = caller.told
        if number < good:
            assert told == signature(number)
        else:
            assert isinstance(told, HostError | Signature)
    # A signature goes to the caller whose place it stands at, and only in an unbroken row from the first.
    told_signatures = [isinstance(caller.told[0], Signature) for caller in callers]
    assert told_signatures == sorted(told_signatures, reverse=True)


@given(st.lists(st.sampled_from(["call", "answer", "refusal", "expire"]), max_size=40))
def test_any_order_of_calls_and_answers(steps: list[str]) -> None:
    line = ReplyLine()
    callers: list[Caller] = []
    answered = 0
    for step in steps:
        if step == "call":
            callers.append(Caller())
            line.add(Sign(0, b"m"), callers[-1], 1.0, 0.0)
        elif step == "expire":
            assert line.expire(0.5) is None
        elif answered < len(callers):
            line.feed(answer(answered, refused=step == "refusal"), 0.0)
            answered += 1
        assert len(line) == len(callers) - answered
    assert [len(caller.told) for caller in callers] == [1] * answered + [0] * (len(callers) - answered)
    line.end(Unanswered("end"))
    assert all(len(caller.told) == 1 for caller in callers)
