"""One enclave, many askers: two messages for one right are never both signed."""

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.doubles.known_keys import FOUR, KnownKey, attestation, attestation_with_dal, block, transaction
from tests.doubles.processes import Enclave, running_enclave
from tests.doubles.wire import WireClient

A, B = b"\xaa" * 32, b"\xbb" * 32


@pytest.fixture
def guarded() -> Iterator[Enclave]:
    with running_enclave() as daemon:
        yield daemon


def sign(message: bytes | list[int], version: int = 2, handle: int = 0) -> dict[str, object]:
    return {"Sign": {"handle": handle, "message": message, "version": version}}


def sign_with(key: KnownKey, message: bytes | list[int], version: int = 2) -> dict[str, object]:
    return {"SignWith": {"encrypted_private_key": key.clear_blob, "message": message, "version": version}}


def client_of(enclave: Enclave, key: KnownKey) -> WireClient:
    client = WireClient(enclave.address)
    assert "Ok" in client.call({"Import": key.clear_blob})
    return client


def refused(reply: dict[str, object]) -> str:
    match reply:
        case {"Err": {"message": str(text), "source": None}}:
            assert text.startswith("guard refused: ")
            return text
        case _:
            raise AssertionError(reply)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_of_two_messages_in_one_batch_the_first_is_signed(guarded: Enclave, key: KnownKey) -> None:
    with client_of(guarded, key) as client:
        for level in range(1, 40):
            calls = [sign(attestation(level, payload=payload)) for payload in (A, B, A)]
            for call in calls:
                client.send(call)
            first, second, again = (client.receive() for _ in calls)
            assert "Ok" in first
            assert "another message was allowed there" in refused(second)
            assert again == first


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_of_two_connections_one_is_signed_for(guarded: Enclave, key: KnownKey) -> None:
    with client_of(guarded, key) as one, client_of(guarded, key) as two:
        for level in range(1, 40):
            one.send(sign(attestation(level, payload=A)))
            two.send(sign(attestation_with_dal(level, payload=B)))
            assert sorted(next(iter(client.receive())) for client in (one, two)) == ["Err", "Ok"]


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_sign_with_goes_through_it(guarded: Enclave, key: KnownKey) -> None:
    with client_of(guarded, key) as client:
        assert "Ok" in client.call(sign_with(key, block(7, payload=A)))
        refused(client.call(sign_with(key, block(7, payload=B))))
        refused(client.call(sign(block(7, payload=B))))
        assert client.call(sign(block(7, payload=A))) == client.call(sign_with(key, block(7, payload=A)))
        # In one batch, where openings and signatures overlap.
        calls = [sign_with(key, block(8, payload=A)), sign_with(key, block(8, payload=B)), sign(block(8, payload=B))]
        for call in calls:
            client.send(call)
        assert [next(iter(client.receive())) for _ in calls] == ["Ok", "Err", "Err"]


def test_a_bls_key_signs_one_message_under_both_versions_and_no_second_one(guarded: Enclave) -> None:
    with client_of(guarded, FOUR[3]) as client:
        augmented, proven = (client.call(sign(attestation(5, payload=A), version)) for version in (1, 2))
        assert "Ok" in augmented
        assert "Ok" in proven
        assert augmented != proven
        for version in (1, 2, 255):
            refused(client.call(sign(attestation(5, payload=B), version)))
        assert "Ok" in client.call({"ProvePossession": 0})


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_of_many_connections_in_every_form_one_message_is_signed(guarded: Enclave, key: KnownKey) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(guarded, key)) for _ in range(16)]
        for level in range(1, 4):
            asked = []
            for number, client in enumerate(clients):
                message = attestation(level, payload=bytes([number]) * 32)
                for version in (1, 2, 255):
                    forms = (message, list(message))
                    calls = [sign(message, version), *(sign_with(key, form, version) for form in forms)]
                    asked += [(client, call, message) for call in (*calls, sign(list(message), version))]
            for client, call, _ in asked:
                client.send(call)
            replies = [(message, client.receive()) for client, _, message in asked]
            signed = {message for message, reply in replies if "Ok" in reply}
            assert len(signed) == 1
            assert {message for message, reply in replies if "Err" in reply and refused(reply)}.isdisjoint(signed)


def test_it_does_not_guess(guarded: Enclave) -> None:
    with client_of(guarded, FOUR[0]) as client:
        for message in (b"\x11", b"\x12" + bytes(77), attestation(5) + b"\0"):
            assert "begins like a consensus message" in refused(client.call(sign(message)))
        for message in (b"", b"\3", transaction(1), transaction(2), b"\x10" * 80):
            assert "Ok" in client.call(sign(message))


def test_keys_beyond_what_it_can_hold_are_refused() -> None:
    with running_enclave("--max-guarded", "2") as enclave, WireClient(enclave.address) as client:
        for key in FOUR[:3]:
            assert "Ok" in client.call({"Import": key.clear_blob})
        assert "Ok" in client.call(sign(attestation(5), handle=0))
        assert "Ok" in client.call(sign(attestation(5), handle=1))
        assert "the guard is full with 2 keys" in refused(client.call(sign(attestation(5), handle=2)))
        assert "Ok" in client.call(sign(block(5), handle=0))
        assert "Ok" in client.call(sign(transaction(1), handle=2))


def test_refusals_are_counted_and_told_without_filling_the_log(guarded: Enclave) -> None:
    with client_of(guarded, FOUR[0]) as client:
        client.call(sign(attestation(500)))
        for level in range(100):
            refused(client.call(sign(attestation(level))))
    assert guarded.stop() == 0
    assert re.search(
        r'level=warning msg="guard refused: attestation of tz1\S+ on Net\S+: asked level 0 .*" '
        r'source="127\.0\.0\.1:\d+" times=1\n',
        guarded.log,
    )
    assert guarded.log.count("guard refused:") < 20
    assert "the guard refused double signatures in all: 100" in guarded.log


def test_switched_off_it_signs_whatever_comes_and_says_so_at_start() -> None:
    with running_enclave("--no-guard") as enclave:
        assert 'level=warning msg="the guard is off' in enclave.log
        with client_of(enclave, FOUR[0]) as client:
            for message in (attestation(5, payload=A), attestation(5, payload=B), attestation(4), b"\x11"):
                assert "Ok" in client.call(sign(message))


def test_a_restart_forgets() -> None:
    for payload in (A, B):
        with running_enclave() as enclave, client_of(enclave, FOUR[0]) as client:
            assert "Ok" in client.call(sign(attestation(5, payload=payload)))
