"""Large messages: refused by their first byte where the policy allows none of their kind, else parsed one at a time."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable

import pytest

from host_backend import signer as signer_module
from host_backend.api.signing import signing_app
from host_backend.errors import HostError, KeyNotFound, MalformedRequest, PolicyDenied
from host_backend.metrics import Metrics
from host_backend.operations.messages import SMALL_MESSAGE_BYTES, Message, parse_message
from host_backend.policy import DEFAULT_POLICY, Caller, KeyPolicy
from host_backend.record import Record
from host_backend.signer import MAX_LARGE_MESSAGES_OF_ADDRESS, Signer
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask
from tests.doubles.auto_enclave import AutoEnclave
from tests.doubles.known_keys import attestation
from tests.doubles.linked_vault import ALICE, PATIENCE_S, TZ1, TZ2, play
from tests.doubles.memory_keys import MemoryKeys

PACKS = KeyPolicy(requests=frozenset({"pack", "attestation"}))
FOR_NOBODY = KeyPolicy(requests=frozenset({"pack"}), clients=frozenset())


def packed(size_bytes: int) -> bytes:
    """Return a message of so many bytes: bytes in Micheline."""
    return b"\x05\x0a" + (size_bytes - 6).to_bytes(4, "big") + bytes(size_bytes - 6)


SMALL, LARGE = packed(SMALL_MESSAGE_BYTES), packed(SMALL_MESSAGE_BYTES + 1)
#: No value of Micheline begins so.
NONSENSE = b"\x05\xff"


class Ended:
    """Keeps what the signer tells of requests that have ended."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def ended(self, record: Record) -> None:
        self.records.append(record)


def signing(scenario: Callable[[Signer, Ended], Awaitable[None]], policy: KeyPolicy) -> None:
    async def with_vault(vault: Vault, _: AutoEnclave, __: MemoryKeys) -> None:
        ended = Ended()
        policies = dict.fromkeys((TZ1, TZ2, ALICE), policy)
        await scenario(Signer(policies, [vault], MemoryWatermarkStore(), observer=ended), ended)

    play(with_vault)


def refusal(policy: KeyPolicy, message: bytes, pkh: str = TZ1) -> tuple[HostError, Record]:
    """Return why a message is not signed, and what was reported of it."""
    found: list[tuple[HostError, Record]] = []

    async def scenario(signer: Signer, ended: Ended) -> None:
        with pytest.raises(HostError) as refused:
            await signer.sign(pkh, message, caller=Caller(source="192.0.2.1"))
        (record,) = ended.records
        assert record.error is refused.value
        found.append((refused.value, record))

    signing(scenario, policy)
    return found[0]


def never(message: bytes) -> Message:
    raise AssertionError(message)


@pytest.mark.parametrize(("first", "kind"), [(3, "generic"), (5, "pack")])
def test_the_first_byte_decides_before_anything_is_parsed(
    monkeypatch: pytest.MonkeyPatch, first: int, kind: str
) -> None:
    monkeypatch.setattr(signer_module, "parse_message", never)
    error, record = refusal(DEFAULT_POLICY, bytes([first]) + bytes(SMALL_MESSAGE_BYTES))
    assert isinstance(error, PolicyDenied)
    assert (str(error), error.violation) == (f"request kind `{kind}' is not allowed", kind)
    assert (record.kind, bool(record.vault_name)) == (kind, True)


def test_what_is_told_of_a_refusal_does_not_depend_on_the_size() -> None:
    for policy, pkh in ((DEFAULT_POLICY, TZ1), (FOR_NOBODY, TZ1), (PACKS, ALICE), (DEFAULT_POLICY, ALICE)):
        (small, small_record), (large, large_record) = (refusal(policy, each, pkh) for each in (SMALL, LARGE))
        assert (type(large), str(large)) == (type(small), str(small))
        assert (large_record.kind, large_record.vault_name) == (small_record.kind, small_record.vault_name)


def test_a_message_that_is_malformed_as_well_is_told_so_while_it_is_small() -> None:
    rest = SMALL_MESSAGE_BYTES - len(NONSENSE)
    assert isinstance(refusal(DEFAULT_POLICY, NONSENSE + bytes(rest))[0], MalformedRequest)
    assert isinstance(refusal(DEFAULT_POLICY, NONSENSE + bytes(rest + 1))[0], PolicyDenied)
    assert isinstance(refusal(PACKS, NONSENSE + bytes(rest), ALICE)[0], MalformedRequest)
    assert isinstance(refusal(PACKS, NONSENSE + bytes(rest + 1), ALICE)[0], KeyNotFound)
    assert isinstance(refusal(PACKS, NONSENSE + bytes(rest + 1))[0], MalformedRequest)


@pytest.mark.parametrize("first", [0x00, 0x11, 0x12, 0x13, 0xFF])
def test_other_first_bytes_are_told_of_at_once(first: int) -> None:
    error, _ = refusal(DEFAULT_POLICY, bytes([first]) + bytes(SMALL_MESSAGE_BYTES))
    assert isinstance(error, MalformedRequest)


class Gate:
    """Lets no large message be parsed before it is opened, and counts those that are being parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.begun = 0
        monkeypatch.setattr(signer_module, "parse_message", self._parse)

    def _parse(self, message: bytes) -> Message:
        if len(message) > SMALL_MESSAGE_BYTES:
            assert threading.current_thread() is not threading.main_thread()
            self.begun += 1
            self.open.wait(PATIENCE_S)
        return parse_message(message)


def test_small_messages_are_signed_while_large_ones_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def scenario(signer: Signer, ended: Ended) -> None:
        large = [asyncio.create_task(signer.sign(TZ1, LARGE)) for _ in range(5)]
        for message in (SMALL, attestation(1)):
            await signer.sign(TZ1, message)
        assert [record.kind for record in ended.records] == ["pack", "attestation"]
        assert gate.begun <= 1
        gate.open.set()
        assert len({(await each).data for each in large}) == 1
        assert gate.begun == 5

    signing(scenario, PACKS)


def test_the_line_of_large_messages_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def scenario(signer: Signer, _: Ended) -> None:
        app = signing_app(signer, Metrics(dict, "memory"))
        body = json.dumps(LARGE.hex()).encode()
        # One has the turn.
        asked = [
            asyncio.create_task(ask(app, "POST", f"/keys/{TZ1}", body))
            for _ in range(MAX_LARGE_MESSAGES_OF_ADDRESS + 2)
        ]
        answer = await next(asyncio.as_completed(asked))
        text = f"{MAX_LARGE_MESSAGES_OF_ADDRESS} large messages of this address wait already: send fewer at once, try again later"
        assert (answer.status, answer.message) == (503, text)
        gate.open.set()
        answers = await asyncio.gather(*asked)
        assert [each.status for each in answers].count(200) == MAX_LARGE_MESSAGES_OF_ADDRESS + 1

    signing(scenario, PACKS)
