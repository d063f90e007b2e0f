"""The enclave's end of TLS: who gets in, what others learn, and what those who never end their handshake cost others."""

import json
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from enclave_signer.protocol.binding import key_digest
from enclave_signer.serving.peers import tcp_peer
from enclave_signer.serving.tls import HANDSHAKE_BYTES, TlsServer, TlsStream
from tests.doubles.certificates import Authority
from tests.doubles.client_certificates import ClientFiles, client_files, show_unreadable
from tests.doubles.daemon_in_trio import frame
from tests.doubles.host_process import VAULT, refused, run_command, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import rule
from tests.doubles.processes import Enclave, kept

SIGN = frame({"Sign": {"handle": 0, "message": b"m", "version": 2}})


@pytest.fixture
def files(tmp_path: Path) -> ClientFiles:
    return client_files(tmp_path)


@contextmanager
def running_for(folder: Path, *files: ClientFiles, rules: str = "") -> Iterator[Enclave]:
    image = folder / "image.toml"
    image.write_text(
        'development = true\nsealers = ["local"]\nlisteners = ["127.0.0.1:0"]\n'
        f'[local]\nsealing_key = "{folder / "key"}"\n[tls]\nclients = {json.dumps([each.digest for each in files])}\n{rules}'
    )
    command = [sys.executable, "-m", "tests.doubles.passthrough_image", "--image", str(image), "--log", "debug"]
    with kept(Enclave(command)) as enclave:
        yield enclave


@pytest.fixture
def enclave(tmp_path: Path, files: ClientFiles) -> Iterator[Enclave]:
    with running_for(tmp_path, files) as enclave:
        yield enclave


def context_of(files: ClientFiles | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


class Client:
    """A blocking client."""

    def __init__(self, stack: ExitStack, enclave: Enclave, context: ssl.SSLContext) -> None:
        plain = stack.enter_context(socket.create_connection(enclave.address, 60))
        self.stream = stack.enter_context(context.wrap_socket(plain, do_handshake_on_connect=False))
        self.stream.do_handshake()

    def ask(self, request: object) -> object:
        self.stream.sendall(frame(request))
        return self.answer()

    def answer(self) -> object:
        head = self._exactly(4)
        return cbor2.loads(self._exactly(int.from_bytes(head, "big")))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.stream.recv(size - len(data))
            assert part, "ended"
            data += part
        return data


def signing(enclave: Enclave, files: ClientFiles, stack: ExitStack) -> Client:
    client = Client(stack, enclave, context_of(files))
    assert client.ask({"Initialize": {}}) == {"Ok": None}
    assert "Ok" in str(client.ask({"Import": FOUR[0].clear_blob}))
    return client


def said_to(enclave: Enclave, context: ssl.SSLContext) -> str:
    """Return what a refused client learns: by its handshake, or at its first read."""
    with ExitStack() as stack, pytest.raises(ssl.SSLError) as refusal:
        Client(stack, enclave, context).ask({"Initialize": {}})
    return str(refusal.value)


def test_who_is_not_listed_is_told_so(enclave: Enclave, files: ClientFiles, tmp_path: Path) -> None:
    other = client_files(tmp_path, "other")
    assert "ALERT_UNKNOWN_CA" in said_to(enclave, context_of(other))
    assert "CERTIFICATE_REQUIRED" in said_to(enclave, context_of(None))
    old = context_of(files)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "ALERT_PROTOCOL_VERSION" in said_to(enclave, old)
    with ExitStack() as stack:
        signing(enclave, files, stack)


def test_a_key_that_is_shown_and_not_held_is_not_let_in(enclave: Enclave, files: ClientFiles, tmp_path: Path) -> None:
    """A certificate is public: the listed one, presented with other company or another key, opens nothing."""
    chain = client_files(tmp_path, "chain")
    chain.certificate.write_bytes(chain.certificate.read_bytes() + files.certificate.read_bytes())
    assert "ALERT" in said_to(enclave, context_of(chain))


def test_a_listed_key_counts_whoever_signed_it_and_no_company_with_it(tmp_path: Path) -> None:
    """An authority's certificates would have to be verified before anyone knows who it is."""
    authority = Authority(tmp_path)
    certificate, key = authority.certificate("signed")
    digest = key_digest(
        x509.load_pem_x509_certificate(certificate.read_bytes())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    signed = ClientFiles(certificate, key, digest)
    with running_for(tmp_path, signed) as enclave:
        with ExitStack() as stack:
            signing(enclave, signed, stack)
        certificate.write_bytes(certificate.read_bytes() + authority.file.read_bytes())
        assert "ALERT" in said_to(enclave, context_of(signed))


def test_rules_name_clients_by_their_keys(tmp_path: Path, files: ClientFiles) -> None:
    shop, other = client_files(tmp_path, "shop"), client_files(tmp_path, "other")
    tz1, tz2 = FOUR[:2]
    rules = rule([f"client:{files.digest}"], ["*"], ["*"])
    rules += rule([f"client:{shop.digest}"], ["UseKey", "PublicKey"], [tz1.pkh])
    with running_for(tmp_path, files, shop, other, rules=rules) as enclave, ExitStack() as stack:
        host = signing(enclave, files, stack)
        assert "Ok" in str(host.ask({"Import": tz2.clear_blob}))
        client = Client(stack, enclave, context_of(shop))
        assert "Ok" in str(client.ask({"UseKey": tz1.pkh}))
        assert client.ask({"PublicKey": 0}) == {"Ok": {"Ed25519": tz1.public_key_bytes}}
        calls: list[object] = [{"UseKey": tz2.pkh}, {"Sign": {"handle": 0, "message": b""}}, {"Initialize": {}}]
        for call in calls:
            assert "not allowed: no rule lets this client make the call" in str(client.ask(call))
        # Listed as a client, and in no rule.
        with pytest.raises((AssertionError, ConnectionError)):
            Client(stack, enclave, context_of(other)).ask({"UseKey": tz1.pkh})
        enclave.wait_for(f"no rule in `rights` of the image names its key {other.digest}")


def test_no_session_is_resumed(enclave: Enclave, files: ClientFiles) -> None:
    context = context_of(files)
    with ExitStack() as stack:
        first = Client(stack, enclave, context)
        assert first.ask({"Initialize": {}}) == {"Ok": None}
        again = stack.enter_context(
            context.wrap_socket(
                stack.enter_context(socket.create_connection(enclave.address, 60)),
                do_handshake_on_connect=False,
                session=first.stream.session,
            )
        )
        # Its session is offered, and the handshake is a whole one, or none.
        with suppress(OSError):
            again.do_handshake()
        assert not again.session_reused


def test_silent_clients_stop_nobody(enclave: Enclave, files: ClientFiles) -> None:
    context = context_of(files)
    with ExitStack() as stack:
        client = signing(enclave, files, stack)
        for _ in range(256):
            Client(stack, enclave, context)
        assert "Ok" in str(client.ask({"Sign": {"handle": 0, "message": b"m", "version": 2}}))
        # A newcomer finds a place, too.
        signing(enclave, files, stack)


def test_handshakes_that_never_end_stop_nobody(enclave: Enclave, files: ClientFiles) -> None:
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context_of(files).wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    greeting = hello.read()
    with ExitStack() as stack:
        client = signing(enclave, files, stack)
        for number in range(1000):
            stranger = socket.create_connection(enclave.address, 60)
            stack.callback(stranger.close)
            # Some say half a word.
            stranger.sendall(greeting if number % 2 else greeting[: len(greeting) // 2])
            if number % 50 == 0:
                assert "Ok" in str(client.ask({"Sign": {"handle": 0, "message": b"m", "version": 2}}))
        assert "Ok" in str(client.ask({"Sign": {"handle": 0, "message": b"m", "version": 2}}))
        signing(enclave, files, stack)


def test_a_pipeline_of_many_records_is_answered_whole(enclave: Enclave, files: ClientFiles) -> None:
    with ExitStack() as stack:
        client = signing(enclave, files, stack)
        many = 2000
        client.stream.sendall(SIGN * many)
        assert all("Ok" in str(client.answer()) for _ in range(many))
        # The longest message that is signed, in frames of several records.
        message = bytes(32 * 1024)
        assert "Ok" in str(client.ask({"Sign": {"handle": 0, "message": message, "version": 2}}))


def test_who_speaks_no_tls_is_told_so_in_a_frame(enclave: Enclave) -> None:
    with socket.create_connection(enclave.address, 60) as plain, plain.makefile("rb") as stream:
        plain.sendall(frame({"Initialize": {}}))
        head, *_ = struct.unpack(">I", stream.read(4))
        text = "this enclave speaks TLS only: configure `tls` of the vault"
        assert cbor2.loads(stream.read(head)) == {"Err": {"message": text, "source": None}}
        assert stream.read() == b""
    enclave.wait_for("connection lost: TLS: it does not speak TLS")


def test_a_host_without_tls_is_told_what_to_configure(enclave: Enclave, tmp_path: Path) -> None:
    said = refused(run_command("generate", "-c", write_config(tmp_path, enclave.port), "--vault", VAULT), 1)
    assert "this enclave speaks TLS only: configure `tls` of the vault" in said


def test_who_shows_no_certificate_is_refused_whatever_openssl_thinks() -> None:
    refusals: list[str] = []
    server = TlsServer([], lambda _, why: refusals.append(why))
    server._context.set_verify(SSL.VERIFY_NONE)
    here, there = socket.socketpair()
    with there, closing(TlsStream(here, server, tcp_peer("127.0.0.1", 1))) as stream:
        for end in (here, there):
            end.setblocking(False)
        client = context_of(None).wrap_socket(there, do_handshake_on_connect=False)

        def greet() -> None:
            for _ in range(10):
                with suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                assert stream.receive(4096) is None

        with client, pytest.raises(OSError, match="TLS: it showed no certificate"):
            greet()
    assert refusals == ["it showed no certificate"]


def refused_in_memory(context: SSL.Context, piece: int = 1 << 20) -> str:
    """Return why the enclave refuses a client, which sends so many bytes at once."""
    refusals: list[str] = []
    server = TlsServer([], lambda _, why: refusals.append(why))
    here, there = socket.socketpair()
    with there, closing(TlsStream(here, server, tcp_peer("127.0.0.1", 1))) as stream:
        for end in (here, there):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client = SSL.Connection(context, None)
        client.set_connect_state()

        def greet() -> None:
            for _ in range(10):
                with suppress(SSL.WantReadError):
                    client.do_handshake()
                with suppress(SSL.WantReadError):
                    while data := client.bio_read(piece):
                        there.sendall(data)
                        assert stream.receive(4096) is None
                with suppress(BlockingIOError):
                    client.bio_write(there.recv(65536))

        with pytest.raises(OSError, match="TLS: ") as lost:
            greet()
    assert [lost.value.strerror] == [f"TLS: {why}" for why in refusals]
    return refusals[0]


def test_a_certificate_that_cannot_be_read_is_refused_with_words(tmp_path: Path) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    show_unreadable(context, tmp_path)
    assert refused_in_memory(context) == "its certificate cannot be read"


@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_certificates_of_company_are_not_even_parsed(piece: int, files: ClientFiles) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate_file(str(files.certificate))
    context.use_privatekey_file(str(files.key))
    for _ in range(200):
        context.add_extra_chain_cert(x509.load_pem_x509_certificate(files.certificate.read_bytes()))
    assert refused_in_memory(context, piece).startswith(f"its handshake has more than {HANDSHAKE_BYTES} bytes")
