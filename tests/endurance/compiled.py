"""Whether compiled and plain modules give the same answers: `python -m tests.endurance.compiled CHECKOUT N`.

Each form runs in a process of its own: the compiled one as CHECKOUT has it (`make test-compiled` makes it), the plain one as
this checkout does. Both are asked the same: every vector, and N other inputs. What they answer, values or the class and text
of an error, is hashed in chunks, and the hashes are compared. Of the first chunk that differs, what differs is shown.
"""

import dataclasses
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from benchmarks.turns import ROOT, environment_of
from compiled.modules import modules, plain
from enclave_signer.errors import EnclaveSignerError
from enclave_signer.guard import Guard
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import ProtocolError
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, FrameDecoder, encode_frame
from enclave_signer.protocol.messages import (
    Attest,
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    Import,
    Initialize,
    KeyType,
    PublicKey,
    Purpose,
    Request,
    Result,
    Sign,
)
from enclave_signer.protocol.sign_call import read_sign, signature_frame
from enclave_signer.tezos import Family, Right, TezosError, decode, parse_consensus, parse_signature
from host_backend.enclave.replies import ReplyLine
from host_backend.errors import HostError
from host_backend.operations.messages import parse_message
from host_backend.policy import DEFAULT_POLICY, Caller, KeyPolicy
from host_backend.watermark.rule import MarkedChains, MarkKey, is_above, judge, merged
from tests.endurance.compiled_inputs import Input, Inputs, vectors

SEED = "20261126"
CHUNK = 10_000
#: Inputs with different answers that are shown.
SHOWN = 20
#: What an answer may be instead of a value; anything else is a bug, and ends the run.
_ERRORS = (ProtocolError, TezosError, EnclaveSignerError, HostError)
_KEY = PublicKey(KeyType.ED25519, bytes(32))
#: One for each kind of result.
_REQUESTS: tuple[Request, ...] = (
    *(Initialize(Credentials()), Import(b""), Generate(KeyType.BLS), GenerateAndImport(KeyType.BLS)),
    *(GetPublicKey(0), Sign(0, b"m"), Attest(bytes(32), Purpose.REPORT)),
)
_POLICIES = (DEFAULT_POLICY, KeyPolicy(frozenset({"generic", "pack", "block"}), frozenset({"transaction", "ballot"})))
_MARK_KEY = MarkKey("NetXdQprcVkpaWU", "tz1", Right.ATTESTATION)


class _Caller:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def answered(self, result: Result) -> None:
        self.told.append(result)

    def failed(self, error: HostError) -> None:
        self.told.append(error)


def rendered(value: object) -> object:
    """Return a value as text and tuples that show everything in it, also what its own text leaves out."""
    if isinstance(value, BaseException):
        return type(value).__name__, str(value)
    if isinstance(value, Enum):
        return str(value)
    if dataclasses.is_dataclass(value):
        named = [(field.name, rendered(getattr(value, field.name))) for field in dataclasses.fields(value)]
        return type(value).__name__, named
    return [rendered(each) for each in value] if isinstance(value, list | tuple) else value


class Form:
    """The modules, as this process has them."""

    def __init__(self) -> None:
        # Full after a while, as a process that is asked for ever more chains would be.
        self._guard = Guard(50, lambda _: None)

    def answers(self, given: Input) -> Iterator[object]:
        """Yield what each module says of an input."""
        if isinstance(given, bytes):
            readers: list[Callable[[bytes], object]] = [codec.decode_request, read_sign, _frames, _line]
            readers += [parse_consensus, _allowed, partial(self._guard.check, _KEY)]
            readers += [partial(codec.decode_reply, request) for request in _REQUESTS]
            for read in readers:
                yield _outcome(partial(read, given))
        elif isinstance(given, str):
            yield _outcome(partial(decode, given, *Family))
            yield _outcome(partial(_signature, given))
        else:
            stored, asked, jump = given
            yield _outcome(partial(judge, _MARK_KEY, stored, asked, jump, MarkedChains([_MARK_KEY])))
            yield rendered([merged(stored, asked), stored is not None and is_above(stored, asked), str(asked)])


def _outcome(ask: Callable[[], object]) -> object:
    try:
        return rendered(ask())
    except _ERRORS as error:
        return rendered(error)


def _frames(data: bytes) -> object:
    """Read bytes as frames, cut in two places."""
    decoder, found = FrameDecoder(256), []
    for part in (data[:3], data[3:40], data[40:]):
        decoder.feed(part)
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    return found, decoder.pending


def _line(data: bytes) -> object:
    """Read bytes as the answer to the first of two calls."""
    line, caller = ReplyLine(), _Caller()
    sent = [line.add(Sign(number, data), caller, 1.0, 0.0) for number in range(2)]
    try:
        line.feed(encode_frame(data[:MAX_FRAME_BYTES]), 1.0)
    except HostError as error:
        caller.told.append(error)
    return [sent, caller.told, line.ended, line.next_deadline]


def _allowed(data: bytes) -> object:
    message = parse_message(data)
    callers = (Caller(), Caller("tz1client"))
    return [message, *(_outcome(partial(policy.check, message, each)) for policy in _POLICIES for each in callers)]


def _signature(text: str) -> object:
    signature = parse_signature(text, KeyType.ED25519)
    return signature, signature_frame(signature)


def chunks(count: int) -> Iterator[Iterator[Input]]:
    """Yield the inputs of each chunk; the first one has the vectors."""
    yield vectors()
    for number, start in enumerate(range(0, count, CHUNK)):
        made = Inputs(f"{SEED} {number}")
        yield (made.make() for _ in range(min(CHUNK, count - start)))


def answer(count: int, shown: int | None) -> None:
    """Print whether the modules are compiled; then the number of inputs and the hash of each chunk, or all of one of them."""
    form, left = Form(), plain()
    print("plain" if left == modules() else f"compiled but for {left}" if left else "compiled", flush=True)
    for number, inputs in enumerate(chunks(count)):
        hashed, asked = blake2b(digest_size=16), Counter[str]()
        for given in inputs:
            answers = [*form.answers(given)]
            asked[type(given).__name__] += 1
            hashed.update(repr((given, answers)).encode())
            if number == shown:
                print(repr((rendered(given), answers)))
        if shown is None:
            print(asked.total(), hashed.hexdigest(), flush=True)


def _started(checkout: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.endurance.compiled", "--answers", *arguments]
    environment = environment_of(checkout)
    return subprocess.Popen(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True)


def _lines(checkout: Path, *arguments: str) -> Iterator[str]:
    with _started(checkout, *arguments) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise SystemExit(f"{checkout}: ended with {process.returncode}")


def compare(checkout: Path, count: int) -> int:
    """Return how many inputs got the same answers.

    Raises:
        SystemExit: Some did not, or a form is not what it should be.
    """
    began = time.perf_counter()
    forms = [_lines(each, str(count)) for each in (ROOT, checkout)]
    kinds = [next(form).strip() for form in forms]
    if kinds != ["plain", "compiled"]:
        raise SystemExit(f"here: {kinds[0]}; in {checkout}: {kinds[1]}")
    total = 0
    for number, (one, other) in enumerate(zip(*forms, strict=True)):
        if one != other:
            _show(checkout, count, number)
        total += int(one.split()[0])
    print(f"{total} inputs, and the same answers of both forms, in {time.perf_counter() - began:.0f} s")
    return total


def _show(checkout: Path, count: int, number: int) -> None:
    both = [_lines(each, str(count), str(number)) for each in (ROOT, checkout)]
    different = ((one, other) for one, other in zip(*both, strict=True) if one != other)
    for one, other in islice(different, SHOWN):
        print(f"plain or compiled:  {one}other:  {other}")
    raise SystemExit(f"different answers in chunk {number}")


def main() -> None:
    if sys.argv[1] == "--answers":
        answer(int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
    else:
        compare(Path(sys.argv[1]).resolve(), int(sys.argv[2]))


if __name__ == "__main__":
    main()
