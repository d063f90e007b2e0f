"""Many calls before the first answer is read: side by side inside, in order outside."""

import socket

import cbor2
import pytest

from tests.doubles.processes import Enclave
from tests.doubles.wire import WireClient

CURVES = ("Ed25519", "Secp256k1", "NistP256", "Bls")


def sign(handle: int, message: bytes) -> dict[str, object]:
    return {"Sign": {"handle": handle, "message": message, "version": 2}}


def ok(reply: dict[str, object]) -> dict[str, object]:
    result = reply["Ok"]
    assert isinstance(result, dict)
    return result


def test_a_whole_session_may_be_sent_at_once(enclave: Enclave) -> None:
    calls: list[object] = [{"Initialize": {}}, *({"GenerateAndImport": curve} for curve in CURVES)]
    calls += [sign(handle, b"m") for handle in range(4)]
    with WireClient(enclave.address, initialize=False) as client:
        for call in calls:
            client.send(call)
        replies = [client.receive() for _ in calls]
    assert replies[0] == {"Ok": None}
    sealed = [ok(reply) for reply in replies[1:5]]
    assert [entry["handle"] for entry in sealed] == [0, 1, 2, 3]
    assert [next(iter(ok(reply))) for reply in replies[5:]] == list(CURVES)


def test_handles_count_only_imports_that_succeeded_in_order_of_the_calls(enclave: Enclave) -> None:
    good, bad = cbor2.dumps({"Ed25519": b"\1" * 32}), b"\xff\xff"
    with WireClient(enclave.address) as client:
        blobs = [good, bad, good, bad, good]
        for blob in blobs:
            client.send({"Import": blob})
        replies = [client.receive() for _ in blobs]
    assert ["Err" in reply for reply in replies] == [False, True, False, True, False]
    assert [ok(reply)["handle"] for reply in replies if "Ok" in reply] == [0, 1, 2]


@pytest.mark.parametrize("curve", CURVES)
def test_answers_of_a_deep_pipeline_come_in_order(enclave: Enclave, curve: str) -> None:
    messages = [b"%d" % number for number in range(300)]
    with WireClient(enclave.address) as client:
        client.call({"GenerateAndImport": curve})
        alone = [client.call(sign(0, message)) for message in messages]
        for message in messages:
            client.send(sign(0, message))
        assert [client.receive() for _ in messages] == alone


def test_a_deep_pipeline_of_bls_does_not_hold_up_another_client(enclave: Enclave) -> None:
    deep = 600
    with WireClient(enclave.address) as greedy, WireClient(enclave.address) as other:
        greedy.call({"GenerateAndImport": "Bls"})
        other.call({"GenerateAndImport": "Bls"})
        for number in range(deep):
            greedy.send(sign(0, b"%d" % number))
        greedy.stream.setblocking(False)
        other.call(sign(0, b"m"))
        # The other client was answered while most of the pipeline still waits.
        answered = 0
        try:
            while data := greedy.stream.recv(1 << 20):
                answered += len(data)
        except BlockingIOError:
            pass
        greedy.stream.settimeout(60)
        answer_bytes = 4 + len(cbor2.dumps({"Ok": {"Bls": bytes(96)}}))
        assert answered < deep * answer_bytes


def test_mixed_good_and_bad_calls_keep_their_places(enclave: Enclave) -> None:
    with WireClient(enclave.address) as client:
        client.call({"GenerateAndImport": "Bls"})
        client.call({"GenerateAndImport": "Ed25519"})
        client.send(sign(0, b"m"))
        client.send_frame(b"\xff")
        client.send(sign(9, b"m"))
        client.send(sign(1, b"m"))
        client.send({"ProvePossession": 1})
        client.send({"ProvePossession": 0})
        outcomes = [client.receive() for _ in range(6)]
    assert ["Err" in outcome for outcome in outcomes] == [False, True, True, False, True, False]


def test_a_client_that_has_said_all_gets_every_reply(enclave: Enclave) -> None:
    with WireClient(enclave.address, initialize=False) as client:
        for call in ({"Initialize": {}}, *[{"GenerateAndImport": "Bls"}] * 20):
            client.send(call)
        client.stream.shutdown(socket.SHUT_WR)
        assert all("Ok" in client.receive() for _ in range(21))
        assert client.closed()
