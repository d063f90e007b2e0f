"""Messages to bytes and back; tolerated forms, and refused ones."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.protocol import codec, messages
from enclave_signer.protocol.errors import BadMessage, WireError
from enclave_signer.protocol.messages import (
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Request,
    Reseal,
    Result,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
    SignWith,
)

KEY_TYPES = st.sampled_from(KeyType)
HANDLES = st.integers(0, 2**64 - 1)
BLOBS = st.binary(max_size=messages.MAX_BLOB_BYTES)
MESSAGES = st.binary(max_size=500)
VERSIONS = st.sampled_from(SigningVersion)
NAMES = st.none() | st.text(max_size=100)
PUBLIC_KEYS = KEY_TYPES.flatmap(
    lambda kind: st.builds(
        PublicKey, st.just(kind), st.binary(min_size=kind.facts.public_key_bytes, max_size=kind.facts.public_key_bytes)
    )
)
SIGNATURES = KEY_TYPES.flatmap(
    lambda kind: st.builds(
        Signature, st.just(kind), st.binary(min_size=kind.facts.signature_bytes, max_size=kind.facts.signature_bytes)
    )
)
REQUESTS = st.one_of(
    st.builds(Initialize, st.builds(Credentials, NAMES, NAMES)),
    st.builds(Import, BLOBS),
    st.builds(Generate, KEY_TYPES),
    st.builds(GenerateAndImport, KEY_TYPES),
    st.builds(Sign, HANDLES, MESSAGES, VERSIONS),
    st.builds(SignWith, BLOBS, MESSAGES, VERSIONS),
    st.builds(GetPublicKey, HANDLES),
    st.builds(GetPublicKeyFrom, BLOBS),
    st.builds(ProvePossession, HANDLES),
    st.builds(ProvePossessionOf, HANDLES, PUBLIC_KEYS),
    st.builds(Reseal, BLOBS, st.text(max_size=100)),
)


@given(REQUESTS)
def test_requests_come_back(request: Request) -> None:
    assert codec.decode_request(codec.encode_request(request)) == request


@given(KEY_TYPES, st.binary(min_size=32, max_size=32))
def test_private_keys_come_back(key_type: KeyType, secret: bytes) -> None:
    request = codec.decode_request(codec.encode_request(ImportUnencrypted(PrivateKey(key_type, secret))))
    assert isinstance(request, ImportUnencrypted)
    assert (request.private_key.key_type, request.private_key.data) == (key_type, secret)


@given(PUBLIC_KEYS, SIGNATURES, BLOBS, HANDLES)
def test_results_come_back(public_key: PublicKey, signature: Signature, blob: bytes, handle: int) -> None:
    pairs: list[tuple[Request, Result]] = [
        (Initialize(Credentials()), None),
        (Sign(0, b""), signature),
        (GetPublicKey(0), public_key),
        (Import(b""), ImportedKey(public_key, handle)),
        (Generate(KeyType.BLS), SealedKey(blob, public_key)),
        (GenerateAndImport(KeyType.BLS), SealedKey(blob, public_key, handle)),
        (ProvePossessionOf(0, public_key), signature),
        (Reseal(b"", ""), SealedKey(blob, public_key)),
    ]
    for request, result in pairs:
        assert codec.decode_reply(request, codec.encode_ok(result)) == result


def test_errors_come_back_with_their_causes() -> None:
    frame = codec.encode_error(WireError("outer", WireError("middle", WireError("inner"))))
    with pytest.raises(WireError) as caught:
        codec.decode_reply(GetPublicKey(0), frame)
    assert [*caught.value.chain()] == ["outer", "middle", "inner"]
    assert str(caught.value) == "outer: middle: inner"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"Sign": {"handle": 0, "message": b"m"}}, Sign(0, b"m", SigningVersion.LATEST)),
        ({"Sign": {"handle": 0, "message": [109], "version": 1}}, Sign(0, b"m", SigningVersion.V1)),
        ({"Import": [1, 255]}, Import(b"\x01\xff")),
        ({"Initialize": {"wip_provider_path": "p"}}, Initialize(Credentials("p"))),
        ({"Sign": {"handle": 0, "message": bytes(32768)}}, Sign(0, bytes(32768))),
    ],
)
def test_what_peers_send_is_tolerated(call: object, expected: Request) -> None:
    assert codec.decode_request(cbor2.dumps(call)) == expected


@pytest.mark.parametrize(
    "call",
    [
        {"Nope": 1},
        {"initialize": {}},
        {},
        [],
        5,
        None,
        "Initialize",
        {"Initialize": {}, "PublicKey": 0},
        {b"Initialize": {}},
        {1: {}},
        {"Initialize": None},
        {"Initialize": []},
        {"Initialize": {"aws": "x"}},
        {"Initialize": {"wip_provider_path": 1}},
        {"Initialize": {"wip_provider_path": "x" * 1025}},
        {"Sign": [0, b"m", 2]},
        {"Sign": {"handle": 0}},
        {"Sign": {"message": b"m"}},
        {"Sign": {"handle": 0, "message": "text", "version": 2}},
        {"Sign": {"handle": 0, "message": b"m", "version": 3}},
        {"Sign": {"handle": 0, "message": b"m", "version": None}},
        {"Sign": {"handle": 0, "message": b"m", "version": True}},
        {"Sign": {"handle": 0, "message": b"m", "version": 2.0}},
        {"Sign": {"handle": 0, "message": b"m", "extra": 1}},
        {"Sign": {"handle": -1, "message": b"m"}},
        {"Sign": {"handle": True, "message": b"m"}},
        {"Sign": {"handle": 2**64, "message": b"m"}},
        {"Sign": {"handle": 0, "message": [256]}},
        {"Sign": {"handle": 0, "message": [True]}},
        {"Sign": {"handle": 0, "message": bytes(32769)}},
        {"Sign": {"handle": 0, "message": [0] * 32769}},
        {"ProvePossessionOf": 0},
        {"ProvePossessionOf": {"handle": 0}},
        {"ProvePossessionOf": {"handle": 0, "public_key": {"Bls": bytes(47)}}},
        {"Reseal": b"blob"},
        {"Reseal": {"encrypted_private_key": b"blob"}},
        {"Reseal": {"encrypted_private_key": b"blob", "encryption_key_path": None}},
        {"Reseal": {"encrypted_private_key": b"blob", "encryption_key_path": "x" * 1025}},
        {"Import": bytes(4097)},
        {"Import": "blob"},
        {"Generate": "ed25519"},
        {"Generate": "Rsa"},
        {"Generate": 5},
        {"ImportUnencrypted": {"Ed25519": bytes(31)}},
        {"ImportUnencrypted": {"Ed25519": bytes(33)}},
        {"ImportUnencrypted": {}},
        {"ImportUnencrypted": {"Ed25519": bytes(32), "Bls": bytes(32)}},
        {"PublicKey": "0"},
    ],
)
def test_what_no_peer_sends_is_refused(call: object) -> None:
    with pytest.raises(BadMessage):
        codec.decode_request(cbor2.dumps(call))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff",
        cbor2.dumps({"PublicKey": 0}) + b"\0",
        cbor2.dumps({"PublicKey": 0})[:-1],
        bytes.fromhex("bf695075626c69634b657900ff"),  # indefinite map
        bytes.fromhex("a2") + b"\x61a\x00" + b"\x61a\x01",  # one key twice
        cbor2.dumps(cbor2.CBORTag(1, 0)),
        cbor2.dumps(cbor2.CBORTag(35, "a*")),
        cbor2.dumps({"PublicKey": cbor2.CBORTag(4711, 0)}),
        b"\x81" * 1000,
        b"\x9b" + b"\xff" * 8,
        b"\xa1" + b"\x7b" + b"\xff" * 8,
        bytes.fromhex("a1695075626c69634b6579f7"),  # undefined
    ],
)
def test_what_is_not_strict_cbor_is_refused(frame: bytes) -> None:
    with pytest.raises(BadMessage):
        codec.decode_request(frame)


@pytest.mark.parametrize(
    "reply",
    [
        {"Ok": {"Ed25519": bytes(64)}, "Err": None},
        {"Ok": {"Ed25519": bytes(63)}},
        {"Ok": {"Rsa": bytes(64)}},
        {"Ok": None},
        {"Fine": None},
        {},
        {"Err": "text"},
        {"Err": {"source": None}},
        {"Err": {"message": 1, "source": None}},
        {"Err": {"message": "x" * 4097, "source": None}},
    ],
)
def test_garbled_replies_are_not_taken_for_answers(reply: object) -> None:
    with pytest.raises(BadMessage):
        codec.decode_reply(Sign(0, b"m"), cbor2.dumps(reply))


def test_a_reply_of_another_kind_is_garbled() -> None:
    with pytest.raises(BadMessage):
        codec.decode_reply(Import(b""), codec.encode_ok(Signature(KeyType.ED25519, bytes(64))))


def test_tee_signers_integer_arrays_are_read() -> None:
    reply = cbor2.dumps({"Ok": {"Ed25519": list(range(64))}})
    assert codec.decode_reply(Sign(0, b"m"), reply) == Signature(KeyType.ED25519, bytes(range(64)))


def test_error_texts_do_not_quote_what_was_sent() -> None:
    secret = b"\x7f" * 32
    for call in ({"ImportUnencrypted": {"Ed25519": secret + b"\0"}}, {"ImportUnencrypted": {secret: secret}}):
        with pytest.raises(BadMessage) as caught:
            codec.decode_request(cbor2.dumps(call))
        assert "7f7f" not in str(caught.value)
        assert "\\x7f" not in str(caught.value)
