"""The keyprovider's pure parts, its sources of keys, and its time limits."""

import base64
import json
import math
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived
from trio.testing import MockClock

from enclave_signer.errors import (
    BlobCorrupt,
    ConfigError,
    NotReleased,
    SealingError,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.keyprovider import kek_file
from enclave_signer.keyprovider.config import parse_config
from enclave_signer.keyprovider.connection import MAX_CALLS, MAX_CALLS_IN_ALL, Answer, GrpcConnection
from enclave_signer.keyprovider.errors import (
    BadRequest,
    KekDamaged,
    KekUnavailable,
    KeyproviderError,
    NotAllowed,
    Status,
)
from enclave_signer.keyprovider.grpc_messages import read_body, trailers, write_body
from enclave_signer.keyprovider.kek_source import SealedFile
from enclave_signer.keyprovider.keks import OPENING_S, Kek, Keks
from enclave_signer.keyprovider.messages import Unwrap, Wrap, read_request
from enclave_signer.keyprovider.packets import make_packet, open_packet, read_packet
from enclave_signer.keyprovider.parameters import key_id_of
from enclave_signer.keyprovider.strict_json import MAX_MESSAGE_BYTES
from enclave_signer.protocol.key_types import KeyType
from enclave_signer.protocol.messages import PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.kbs_config import KbsKey
from enclave_signer.sealing.kbs_kek import commitment
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.serving.peers import Peer
from enclave_signer.serving.stream import PlainStream
from enclave_signer.sparse_log import SparseLog

KEK, NONCE, DATA = bytes(range(32)), bytes(12), b"a layer's key"
KEY = "kbs:///default/key/k1"
CONFIG = f'image = "image.toml"\nlisteners = ["unix:/run/kp.sock"]\n[[keks]]\nid = "{KEY}"\nfile = "k1.kek"\n'


def test_a_packet_opens_under_its_key_alone() -> None:
    packet = read_packet(make_packet(KEK, KEY, NONCE, DATA))
    assert packet.key_id == KEY
    assert open_packet(KEK, packet) == DATA
    with pytest.raises(BadRequest, match="was altered"):
        open_packet(bytes(32), packet)


@pytest.mark.parametrize(
    ("member", "value"),
    [("key_id", "another"), ("nonce", "AAAAAAAAAAAAAAAB"), ("algorithm", "A256CTR"), ("version", 2), ("more", 1)],
)
def test_an_altered_packet_does_not_open(member: str, value: object) -> None:
    entries = json.loads(make_packet(KEK, KEY, NONCE, DATA))
    with pytest.raises(BadRequest):
        open_packet(KEK, read_packet(json.dumps({**entries, member: value}).encode()))


def test_bytes_may_be_an_array_of_integers() -> None:
    for value in (base64.b64encode(DATA).decode(), [*DATA]):
        data = json.dumps({"op": "keywrap", "keywrapparams": {"optsdata": value}}).encode()
        assert read_request(data, "name") == Wrap(None, DATA)
        data = json.dumps({"op": "keyunwrap", "keyunwrapparams": {"annotation": value}}).encode()
        assert read_request(data, "name") == Unwrap(DATA)


@pytest.mark.parametrize("value", [None, 7, "", "no base64", "YQ", [256], [-1], [True], [1.0], {}, [[1]]])
def test_other_bytes_are_refused(value: object) -> None:
    data = json.dumps({"op": "keywrap", "keywrapparams": {"optsdata": value}}).encode()
    with pytest.raises(BadRequest, match="optsdata must"):
        read_request(data, "name")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"7",
        b"{}",
        b'{"op":"other"}',
        b'{"op":"keywrap","keywrapparams":null}',
        b'{"op":"keywrap","keywrapparams":{"optsdata":"YQ==","ec":[]}}',
        b'{"op":"keywrap","keywrapparams":{"optsdata":"YQ==","ec":{"Parameters":{"name":["YQ==","YQ=="]}}}}',
        b'{"op":"keywrap","keywrapparams":{"optsdata":"YQ==","ec":{"Parameters":{"name":["/w=="]}}}}',
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_a_request_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        read_request(data, "name")


def test_no_secret_is_in_a_repr_or_an_error() -> None:
    request = read_request(b'{"op":"keywrap","keywrapparams":{"optsdata":"c2VjcmV0"}}', "name")
    assert "secret" not in repr(request)
    with pytest.raises(BadRequest) as refused:
        read_request(b'{"op":"keywrap","keywrapparams":{"optsdata":"secret!"}}', "name")
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("parameters", "key_id"),
    [
        (KEY, KEY),
        (f"cc_kbc::{KEY}", KEY),
        (f"keyid={KEY}", KEY),
        (f"keyid={KEY}::algorithm=A256GCM", KEY),
        ("algorithm=A256GCM", None),
        ("cc_kbc::null", None),
        ("null", None),
        ("Enabled", None),
        ("", None),
        (None, None),
    ],
)
def test_parameters_name_a_key(parameters: str | None, key_id: str | None) -> None:
    assert key_id_of(parameters) == key_id


@pytest.mark.parametrize(
    "parameters",
    ["sample=true", "keypath=/kek", f"keyid={KEY}::keyid={KEY}", f"keyid={KEY}::x", "keyid=", "a\0", "k" * 513],
)
def test_other_parameters_are_refused(parameters: str) -> None:
    with pytest.raises(BadRequest):
        key_id_of(parameters)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, MAX_MESSAGE_BYTES])
def test_a_body_has_one_message(length: int) -> None:
    assert read_body(write_body(bytes(length))) == bytes(length)


@pytest.mark.parametrize(
    "message", [b"", b"\x0a", b"\x0a\x02a", b"\x0a\x01ab", b"\x12\x01a", b"\x0a\x80\x80\x80\x80\x80\x01", b"\x08\x01"]
)
def test_another_message_is_refused(message: bytes) -> None:
    with pytest.raises(BadRequest, match="one field, number 1"):
        read_body(b"\0" + len(message).to_bytes(4, "big") + message)


def test_a_text_of_a_status_stays_in_its_header() -> None:
    assert trailers(Status.NOT_FOUND, "no 'key' 100%\r\nä")[1] == (b"grpc-message", b"no 'key' 100%25%0D%0A%C3%A4")


def test_a_configuration_lists_its_keys() -> None:
    config = parse_config(CONFIG, "kp.toml")
    assert config.provider == "attestation-agent"
    assert [(kek.key_id, kek.path, kek.wrap, kek.make) for kek in config.keks] == [(KEY, Path("k1.kek"), False, False)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("unix:/run/kp.sock", "0.0.0.0:50011", "can be reached by other machines"),
        ("unix:/run/kp.sock", "50011", "must be unix:PATH or 127.0.0.1:PORT"),
        ('file = "k1.kek"', "", "id: needs file, or commitment"),
        ('file = "k1.kek"', 'commitment = "00"', "id: needs file, or commitment"),
        ('file = "k1.kek"', 'file = "k1.kek"\ncommitment = "00"', "commitment: '00' must have 64 digits"),
        ('file = "k1.kek"', 'file = "k1.kek"\nwrap = true', "wrap: needs the commitment that store-kek printed"),
        ('file = "k1.kek"', f'file = "k1.kek"\ncommitment = "{"00" * 32}"\nmake = true', "make: a commitment names"),
        ('file = "k1.kek"', f'commitment = "{"00" * 32}"\nmake = true', "make: the key broker makes its keys"),
        (f'id = "{KEY}"\nfile = "k1.kek"', f'id = "k1"\ncommitment = "{"00" * 32}"', "the form kbs:///"),
        ('file = "k1.kek"', 'file = "k1.kek"\nother = 1', "other: is not known here"),
        ("[[keks]]", '[[keks]]\nid = "x"\nfile = "k1.kek"\n[[keks]]', "two have one file"),
        ("[[keks]]", f'[[keks]]\nid = "{KEY}"\nfile = "x"\n[[keks]]', "two have one id"),
        (CONFIG, 'image = "image.toml"', "keks: must name at least one key"),
        (CONFIG, "image = ", "kp.toml: "),
        (KEY, "k" * 513, "at most 512 characters"),
    ],
)
def test_a_wrong_configuration_is_named(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(CONFIG.replace(old, new), "kp.toml")


def test_a_key_may_be_a_resource_of_a_key_broker() -> None:
    (kek,) = parse_config(CONFIG.replace('file = "k1.kek"', f'commitment = "{"0a" * 32}"'), "kp.toml").keks
    assert (kek.path, kek.resource) == (None, KbsKey("default/key/k1", "0a" * 32))


def opener(sealer: Sealer) -> Callable[[], Awaitable[Sealer]]:
    async def open_sealer() -> Sealer:
        return sealer

    return open_sealer


def stored(path: Path, key_id: str = KEY) -> LocalSealer:
    sealer = LocalSealer(bytes(32))
    trio.run(SealedFile(key_id, path, opener(sealer)).store, KEK)
    return sealer


def test_a_stored_key_comes_back_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "k"
    sealer = stored(path)
    assert trio.run(SealedFile(KEY, path, opener(sealer)).fetch) == KEK
    assert KEK not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(KekDamaged, match="holds another key"):
        trio.run(SealedFile("another", path, opener(sealer)).fetch)
    with pytest.raises(NotAllowed, match="is not opened"):
        trio.run(SealedFile(KEY, path, opener(LocalSealer(bytes([1]) * 32))).fetch)
    with pytest.raises(FileExistsError):
        trio.run(SealedFile(KEY, path, opener(sealer)).store, bytes(32))


def test_a_key_that_another_program_had_sealed_is_not_the_one_of_the_commitment(tmp_path: Path) -> None:
    path, committed = tmp_path / "k", commitment(KEK)
    sealer = stored(path)
    assert trio.run(SealedFile(KEY, path, opener(sealer), committed).fetch) == KEK
    other = SealedFile(KEY, tmp_path / "other", opener(sealer), committed)
    with pytest.raises(KekDamaged, match="is not the one of its commitment"):
        trio.run(other.store, bytes(32))
    trio.run(SealedFile(KEY, tmp_path / "other", opener(sealer)).store, bytes(32))
    with pytest.raises(KekDamaged, match="is not the one of its commitment"):
        trio.run(other.fetch)


@pytest.mark.parametrize("member", ["id", "blob", "nonce", "kek", "version"])
def test_a_file_that_was_altered_gives_no_key(tmp_path: Path, member: str) -> None:
    path = tmp_path / "k"
    sealer = stored(path)
    stored(tmp_path / "other")
    entries, others = (json.loads(file.read_bytes()) for file in (path, tmp_path / "other"))
    others |= {"id": "another", "version": 2}
    path.write_text(json.dumps({**entries, member: others[member]}))
    with pytest.raises(KekDamaged):
        trio.run(SealedFile(KEY, path, opener(sealer)).fetch)
    path.write_text(json.dumps({name: value for name, value in entries.items() if name != member}))
    with pytest.raises(KekDamaged):
        trio.run(SealedFile(KEY, path, opener(sealer)).fetch)


def test_the_blob_of_a_signing_key_is_no_key_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "k"
    sealer = stored(path)
    signing = PrivateKey(KeyType.ED25519, KEK)
    blob = trio.run(sealer.seal, signing, PublicKey(KeyType.ED25519, bytes(32)))
    file = kek_file.read(path)
    (tmp_path / "other").write_bytes(kek_file.encode(kek_file.KekFile(KEY, blob, file.nonce, file.sealed)))
    with pytest.raises(KekDamaged):
        trio.run(SealedFile(KEY, tmp_path / "other", opener(sealer)).fetch)


class FailingSealer:
    """Opens nothing."""

    shared_s = math.inf

    def __init__(self, error: SealingError) -> None:
        self._error = error

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        raise self._error

    async def unseal(self, blob: bytes) -> UnsealedKey:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SealingUnavailable("no answer"), Status.UNAVAILABLE),
        (NotReleased("later"), Status.UNAVAILABLE),
        (SealingRefused("no"), Status.PERMISSION_DENIED),
        (BlobCorrupt("blob corrupt"), Status.INTERNAL),
    ],
)
def test_a_sealer_that_fails_has_its_status(tmp_path: Path, error: SealingError, status: Status) -> None:
    stored(tmp_path / "k")
    with pytest.raises(KeyproviderError) as refused:
        trio.run(SealedFile(KEY, tmp_path / "k", opener(FailingSealer(error))).fetch)
    assert refused.value.status is status


class CountedSource:
    """Gives a key after a pause, and counts."""

    def __init__(self, pause_s: float = 1.0, kek: bytes = KEK) -> None:
        self.asked = 0
        self._pause_s = pause_s
        self._kek = kek

    async def fetch(self) -> bytes:
        self.asked += 1
        await trio.sleep(self._pause_s)
        return self._kek


def test_a_key_is_opened_once_however_many_want_it() -> None:
    source = CountedSource()
    kek = Kek(KEY, source, wrap=True)
    assert KEK.hex() not in repr(kek)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(kek.opened)
        assert await kek.opened() == KEK

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert source.asked == 1


def test_a_key_that_takes_too_long_is_unavailable_and_asked_for_again() -> None:
    source = CountedSource(OPENING_S + 1)
    kek = Kek(KEY, source, wrap=True)
    for asked in (1, 2):
        with pytest.raises(KekUnavailable, match="within 30 s"):
            trio.run(kek.opened, clock=MockClock(autojump_threshold=0))
        assert source.asked == asked
    with pytest.raises(KekDamaged, match="has 44 bytes"):
        trio.run(Kek(KEY, CountedSource(0, bytes(44)), wrap=True).opened)


def test_a_client_that_names_no_key_gets_the_only_one_that_wraps() -> None:
    one, two = (Kek(name, CountedSource(), wrap=True) for name in ("one", "two"))
    old = Kek("old", CountedSource(), wrap=False)
    assert Keks({"one": one, "old": old}).to_wrap(None) is one
    with pytest.raises(BadRequest, match="name a key: 2 keys"):
        Keks({"one": one, "two": two}).to_wrap(None)
    with pytest.raises(NotAllowed, match="its wrap is not true"):
        Keks({"one": one, "old": old}).to_wrap("old")


async def never(data: bytes, operation: str) -> bytes:
    raise AssertionError


def answered(sent: bytes, answer: Answer = never) -> bytes:
    """Return what a client gets who sends this and then waits, to the end of the connection."""

    async def main(stream: socket.socket) -> None:
        await GrpcConnection(PlainStream(stream, Peer("test", "test")), answer, SparseLog()).serve()

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(sent)
        trio.run(main, ours, clock=MockClock(autojump_threshold=0))
        theirs.settimeout(60)
        parts = []
        while part := theirs.recv(65536):
            parts.append(part)
    return b"".join(parts)


HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("sent", [b"", HELLO])
def test_a_client_that_says_nothing_is_gone_after_its_time(sent: bytes) -> None:
    events = H2Connection().receive_data(answered(sent))
    assert isinstance(events[-1], ConnectionTerminated)


def client() -> H2Connection:
    h2 = H2Connection(H2Configuration(header_encoding=None))
    h2.initiate_connection()
    return h2


def begin(h2: H2Connection, stream_id: int) -> None:
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/keyprovider.KeyProviderService/WrapKey",
        ":authority": "-",
    }
    h2.send_headers(stream_id, [*names.items(), ("content-type", "application/grpc")])


def test_calls_that_are_given_up_end_the_connection() -> None:
    h2 = client()
    for number in range(3 * MAX_CALLS_IN_ALL):
        begin(h2, 2 * number + 1)
        h2.reset_stream(2 * number + 1)
    events = h2.receive_data(answered(h2.data_to_send()))
    assert isinstance(events[-1], ConnectionTerminated)


def test_more_calls_at_once_than_allowed_end_the_connection() -> None:
    h2 = client()
    for number in range(MAX_CALLS + 1):
        begin(h2, 2 * number + 1)
    events = h2.receive_data(answered(h2.data_to_send()))
    assert any(isinstance(event, ConnectionTerminated) and event.error_code for event in events)


def test_a_bug_is_internal_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(data: bytes, operation: str) -> bytes:
        raise RuntimeError

    h2 = client()
    begin(h2, 1)
    h2.send_data(1, write_body(b"{}"), end_stream=True)
    events = h2.receive_data(answered(h2.data_to_send(), broken))
    (response,) = (event for event in events if isinstance(event, ResponseReceived))
    assert (b"grpc-status", b"13") in [tuple(header) for header in response.headers or ()]
    assert "bug: a call was not answered" in caplog.text
