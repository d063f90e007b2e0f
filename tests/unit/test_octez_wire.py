"""Octez' socket protocol, to the byte: frames made with Octez' own library, and what its reader refuses."""

import json
from typing import Any

import base58
import pytest

from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion
from host_backend.octez import wire
from host_backend.octez.wire import (
    AuthorizedKeysRequest,
    Frames,
    KnownKeysRequest,
    NonceRequest,
    NotOctez,
    ProofRequest,
    PublicKeyRequest,
    Request,
    SignRequest,
    SupportsNoncesRequest,
    Tz5Request,
    parse_request,
)
from tests.doubles.known_keys import VECTORS
from tests.doubles.octez_socket import SignerError, dynamic, framed, value_of

RECORDED: dict[str, Any] = json.loads((VECTORS / "octez-sockets.json").read_text())
TZ1 = base58.b58encode_check(bytes.fromhex("06a19f") + b"\x11" * 20).decode()
TZ4 = base58.b58encode_check(bytes.fromhex("06a1a6") + b"\x14" * 20).decode()
MESSAGE = bytes.fromhex("03aabb")
READ: dict[str, Request] = {
    "sign tz1": SignRequest(TZ1, MESSAGE),
    "sign tz4, version 2": SignRequest(TZ4, MESSAGE, SigningVersion.V2),
    "sign tz4, version 3": SignRequest(TZ4, MESSAGE, SigningVersion.V2),
    "sign tz1, authenticated": SignRequest(TZ1, MESSAGE, authentication=b"\x5a" * 64),
    "public key tz4": PublicKeyRequest(TZ4),
    "authorized keys": AuthorizedKeysRequest(),
    "known keys": KnownKeysRequest(),
    "nonce tz4, authenticated": NonceRequest(TZ4),
    "supports nonces": SupportsNoncesRequest(TZ1),
    "possession tz4": ProofRequest(TZ4, None),
    "possession tz4 with another key": ProofRequest(TZ4, PublicKey(KeyType.BLS, b"\x77" * 48)),
}
HASHES = [wire.tagged_hash(pkh) for pkh in (TZ1, TZ4)]
WRITTEN = {
    "signature": wire.signature_answer(Signature(KeyType.ED25519, b"\x5a" * 64)),
    "BLS signature": wire.signature_answer(Signature(KeyType.BLS, b"\x5b" * 96)),
    "public key tz1": wire.public_key_answer(PublicKey(KeyType.ED25519, b"\x21" * 32)),
    "public key tz4": wire.public_key_answer(PublicKey(KeyType.BLS, b"\x24" * 48)),
    "no authentication": wire.authorized_keys_answer(None),
    "authorized keys tz1 tz4": wire.authorized_keys_answer([TZ1, TZ4]),
    "authorized keys, none of them": wire.authorized_keys_answer([]),
    "known keys tz1 tz4": wire.known_keys_answer(HASHES),
    "known keys, none": wire.known_keys_answer([]),
    "supports nonces: no": wire.no_nonces_answer(),
    "possession": wire.signature_answer(Signature(KeyType.BLS, b"\x99" * 96)),
    "error": wire.error_answer("List known keys request not allowed."),
}


def request_of(data: bytes) -> Request:
    """Return the one request in some bytes."""
    frames = Frames()
    frames.feed(data)
    frame = frames.next()
    assert frame is not None
    assert not len(frames)
    return parse_request(frame)


@pytest.mark.parametrize("name", READ)
def test_requests_of_octez(name: str) -> None:
    assert request_of(bytes.fromhex(RECORDED["requests"][name])) == READ[name]
    assert set(READ) == set(RECORDED["requests"])


@pytest.mark.parametrize("name", WRITTEN)
def test_answers_as_octez_reads_them(name: str) -> None:
    assert wire.framed(WRITTEN[name]).hex() == RECORDED["answers"][name]
    assert set(WRITTEN) == set(RECORDED["answers"])


@pytest.mark.parametrize("name", RECORDED["refused"])
def test_what_octez_refuses(name: str) -> None:
    with pytest.raises(NotOctez):
        request_of(bytes.fromhex(RECORDED["refused"][name]))


@pytest.mark.parametrize("item", RECORDED["exchanges"], ids=lambda item: str(item["name"]))
def test_exchanges_of_octez(item: dict[str, str]) -> None:
    request = request_of(bytes.fromhex(item["request"]))
    assert isinstance(request, Tz5Request) == ("tz5" in item["name"])


@pytest.mark.parametrize("name", RECORDED["requests"])
def test_every_cut_and_every_byte_too_many_is_no_request(name: str) -> None:
    payload = bytes.fromhex(RECORDED["requests"][name])[2:]
    for size in range(1, len(payload)):
        # A signature of the request is whatever follows.
        if name.endswith("authenticated") and size == len(payload) - 64:
            continue
        with pytest.raises(NotOctez):
            parse_request(payload[:size])
    with pytest.raises(NotOctez):
        parse_request(payload + b"\x00")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x00\x04" + bytes(20) + dynamic(MESSAGE), id="tag 4 outside the form of tz4"),
        pytest.param(b"\x00\x05" + bytes(20) + dynamic(MESSAGE), id="tag 5"),
        pytest.param(b"\x01\x05" + bytes(20), id="a public key of tag 5"),
        pytest.param(b"\x07\x03" + bytes(20) + b"\x01" + bytes(48), id="neither true nor false"),
        pytest.param(b"\x00\x00" + bytes(20) + b"\xff\xff\xff\xff" + MESSAGE, id="a length beyond the frame"),
        pytest.param(b"\x00\x03\x03" + bytes(20) + b"\xff" + dynamic(MESSAGE), id="version -1"),
    ],
)
def test_what_is_no_request(payload: bytes) -> None:
    with pytest.raises(NotOctez):
        parse_request(payload)


@pytest.mark.parametrize("version", range(4))
def test_versions(version: int) -> None:
    expected = (SigningVersion.V0, SigningVersion.V1, SigningVersion.V2, SigningVersion.V2)[version]
    request = parse_request(b"\x00\x03\x03" + b"\x14" * 20 + bytes([version]) + dynamic(MESSAGE))
    assert request == SignRequest(TZ4, MESSAGE, expected)


def test_any_chunking() -> None:
    names, stream = [*READ], b"".join(map(bytes.fromhex, RECORDED["requests"].values()))
    for size in (1, 2, 3, 7, 64, len(stream)):
        frames, found = Frames(), []
        for at in range(0, len(stream), size):
            frames.feed(stream[at : at + size])
            while (frame := frames.next()) is not None:
                found.append(parse_request(frame))
        assert found == [READ[name] for name in names]


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1", b"POST /keys/tz1", b"\x16\x03\x01\x02\x00\x01", b"\x00\x00", b"\xff\xff\x08"]
)
def test_the_first_bytes_tell_what_is_no_request(head: bytes) -> None:
    frames = Frames()
    frames.feed(head)
    if head.startswith(b"\x16"):
        # TLS has a tag of ours there, and more bytes than a request for a public key.
        frames.feed(bytes(0x1603))
        frame = frames.next()
        assert frame is not None
        with pytest.raises(NotOctez):
            parse_request(frame)
    else:
        with pytest.raises(NotOctez):
            frames.next()


def test_errors_are_bounded_and_read_back() -> None:
    for text in ("", "é" * 10, "x" * 100_000):
        answer = wire.error_answer(text)
        assert len(answer) <= wire.MAX_FRAME_BYTES
        assert framed(answer) == wire.framed(answer)
        with pytest.raises(SignerError) as error:
            value_of(answer)
        assert str(error.value) == text[: wire.MAX_ERROR_CHARS]


def test_the_largest_list_of_keys_fits() -> None:
    answer = wire.known_keys_answer(HASHES[:1] * wire.MAX_HASHES)
    assert len(answer) <= wire.MAX_FRAME_BYTES < len(answer) + 21
