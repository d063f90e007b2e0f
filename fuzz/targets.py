"""The targets: each takes any bytes, and returns, or raises what is a bug.

An error that callers know (a refusal, a protocol error) is an answer. What is accepted is compared with a second reading
where there is one.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jwt

from enclave_signer.errors import ConfigError as EnclaveConfigError
from enclave_signer.image import parse_image
from enclave_signer.protocol import cbor, codec
from enclave_signer.protocol.blob import parse_blob
from enclave_signer.protocol.errors import BadBlob, BadMessage, ProtocolError
from enclave_signer.protocol.framing import FrameDecoder
from enclave_signer.protocol.messages import Credentials, GetPublicKey, Import, Initialize, Sign
from enclave_signer.tezos import CONSENSUS_MAGIC
from fuzz.store import open_changed
from host_backend.api.tokens import Tokens
from host_backend.attestation.policy import Policy
from host_backend.attestation.verifier import AttestationRefused, TrustedKeys, verify
from host_backend.config import JwtCredentials, JwtUser, load_config
from host_backend.errors import ConfigError, MalformedRequest, NotAuthenticated
from host_backend.octez.wire import Frames, NotOctez, parse_request
from host_backend.operations.messages import parse_message
from tests.doubles import strict_cbor
from tests.doubles.google.tokens import AUDIENCE, DIGEST, NONCE, PROJECT, Issuer, rsa_key
from tests.endurance import agreement, framing, reencoding

_FRAME_LIMIT_BYTES = 64
_DEPTH = 4
_SECRET, _USER = "0" * 32, "user"
_REQUESTS = (Sign(0, b""), Import(b""), GetPublicKey(0), Initialize(Credentials()))


def frame_decoder(data: bytes) -> None:
    """Frames of the wire: the same ones however the bytes are cut. The first byte says how."""
    if data:
        assert _frames(data[1:], data[0]) == _frames(data[1:], len(data))


def _frames(data: bytes, step: int) -> list[bytes | None]:
    decoder, found = FrameDecoder(_FRAME_LIMIT_BYTES), list[bytes | None]()
    for at in range(0, len(data), step or 1):
        decoder.feed(data[at : at + (step or 1)])
        try:
            while (frame := decoder.next_frame()) is not None:
                found.append(frame)
        except ProtocolError:
            return [*found, None]
    return found


def cbor_items(data: bytes) -> None:
    """CBOR: what is accepted is what a strict reader of the RFC sees, and all that it sees with text keys."""
    try:
        seen = strict_cbor.read(data, _DEPTH)
    except strict_cbor.NotStrict:
        seen = strict_cbor.Other(b"")
    try:
        item = cbor.decode(data, max_depth=_DEPTH)
    except BadMessage:
        assert not _plain(seen), seen
        return
    assert seen != strict_cbor.Other(b""), item
    assert not _plain(seen) or (item == seen and repr(item) == repr(seen)), (item, seen)


def _plain(item: object) -> bool:
    """Whether an item has text keys and no floats."""
    if isinstance(item, dict):
        return all(isinstance(key, str) for key in item) and all(map(_plain, item.values()))
    return all(map(_plain, item)) if isinstance(item, list) else not isinstance(item, strict_cbor.Other)


def request_decoder(data: bytes) -> None:
    """Calls to the enclave: what is read can be written, and is then read as the same."""
    with suppress(ProtocolError):
        request = codec.decode_request(data)
        assert codec.decode_request(codec.encode_request(request)) == request


def reply_decoder(data: bytes) -> None:
    """Replies of the enclave, to each kind of call."""
    for request in _REQUESTS:
        with suppress(ProtocolError):
            codec.decode_reply(request, data)


def blob_header(data: bytes) -> None:
    """Headers of sealed keys: authenticated bytes and ciphertext are the whole blob."""
    with suppress(BadBlob):
        _, authenticated, ciphertext = parse_blob(data)
        assert authenticated + ciphertext == data


def tezos_message(data: bytes) -> None:
    """Messages to sign: host, guard and two independent readings agree on consensus messages and operations."""
    if data and data[0] in CONSENSUS_MAGIC:
        read = agreement.Counts()
        agreement.compare(data, read)
        assert not read.disagreements, read.disagreements
    elif data[:1] == b"\x03":
        operations_table(data[33:])
    else:
        with suppress(MalformedRequest):
            parse_message(data)


def operations_table(data: bytes) -> None:
    """Operations after a branch: an independent decoder reads the same, and writes the same bytes again."""
    read = reencoding.Counts()
    reencoding.check(b"\x03" + bytes(32) + data, read)
    assert not read.faults, read.faults


def token_verifier(data: bytes) -> None:
    """Tokens of clients: raw text, or a payload signed with the user's key. Whoever is let in is the user of the token."""
    tokens = Tokens({_USER: JwtUser(JwtCredentials(_SECRET, _SECRET))}, clock=lambda: 1e9)
    raw = data[:1] == b"\0"
    text = data[1:].decode("latin-1") if raw else jwt.api_jws.PyJWS().encode(data, _SECRET, "HS256")
    with suppress(NotAuthenticated):
        assert tokens.check(f"Bearer {text}", _USER) == _USER
        claims: Any = json.loads(jwt.api_jws.PyJWS().decode(text, _SECRET, ["HS256"]))
        assert claims["user"] == _USER
        assert claims["exp"] > 1e9


@cache
def _attested() -> tuple[TrustedKeys, Policy]:
    issuer = Issuer()
    policy = Policy(audience=AUDIENCE, image_digests=frozenset({DIGEST}), projects=frozenset({PROJECT}))
    return TrustedKeys.from_jwks(issuer.jwks()), policy


def attestation_verifier(data: bytes) -> None:
    """Tokens of attestation: raw text, or a payload with a good signature. A refusal has reasons that can be printed."""
    keys, policy = _attested()
    if data[:1] == b"\0":
        token = data[1:].decode("latin-1")
    else:
        header = {"kid": "kid-1", "typ": "JWT"}
        token = jwt.api_jws.PyJWS().encode(data, rsa_key("kid-1"), "RS256", header)
    try:
        verify(token, trust=keys, policy=policy, nonce=NONCE, now=time.time())
    except AttestationRefused as refused:
        assert refused.reasons
        assert all(reason.isprintable() for reason in refused.reasons)


@cache
def _config_file() -> Path:
    # In memory, where there is such a folder.
    memory = Path("/dev/shm")  # noqa: S108 - the folder is a new one
    return Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / "signatory.yaml"


def yaml_configuration(data: bytes) -> None:
    """The host's configuration: whole, or errors that name the file."""
    file = _config_file()
    file.write_bytes(data)
    try:
        load_config(file)
    except ConfigError as error:
        assert str(file) in str(error)
    finally:
        file.unlink()


def image_configuration(data: bytes) -> None:
    """An image's configuration: whole, or an error that names the file."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        parse_image(text, "image.toml")
    except EnclaveConfigError as error:
        assert str(error).startswith("image.toml")


@cache
def _http() -> tuple[asyncio.Runner, framing.Ours]:
    return asyncio.Runner(), framing.Ours()


def finish() -> None:
    """Close what targets keep open between two calls."""
    if _http.cache_info().currsize:
        _http()[0].close()
        _http.cache_clear()
    if _config_file.cache_info().currsize:
        _config_file().parent.rmdir()
        _config_file.cache_clear()


def http_heads(data: bytes) -> None:
    """HTTP: nothing is executed that h11 does not see at that place. The first byte says how the bytes are cut."""
    if not data:
        return
    runner, ours = _http()
    step, rest = data[0] >> 2 or len(data), data[1:]
    reads = [rest[at : at + step] for at in range(0, len(rest), step)]
    ours.answers_early = bool(data[0] & 1)
    theirs = framing.by_h11(reads)
    reading = runner.run(ours.read(reads, hasty=bool(data[0] & 2)))
    text = framing.fault(reading, theirs)
    assert text is None, (text, reading, theirs)


def octez_frames(data: bytes) -> None:
    """Octez' frames: the same requests however the bytes are cut. The first byte says how."""
    if data:
        assert _octez_requests(data[1:], data[0]) == _octez_requests(data[1:], len(data))


def _octez_requests(data: bytes, step: int) -> list[object]:
    frames, found = Frames(), list[object]()
    for at in range(0, len(data), step or 1):
        frames.feed(data[at : at + (step or 1)])
        try:
            while (frame := frames.next()) is not None:
                found.append(parse_request(frame))
        except NotOctez:
            return [*found, None]
    return found


def slot_file(data: bytes) -> None:
    """The file of marks: damage is seen, and no mark becomes older."""
    open_changed(data)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(frame_decoder, cbor_items, request_decoder, reply_decoder, blob_header, tezos_message, operations_table),
        *(token_verifier, attestation_verifier, yaml_configuration, image_configuration, http_heads, octez_frames),
        slot_file,
    )
}
