"""Octez' own sockets, as a real host serves them: signatures, proofs, lists, authentication; and the same signer as HTTP."""

import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import KeyType, Signature
from enclave_signer.tezos import encode_signature
from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, KnownKey, attestation, block, preattestation, transaction
from tests.doubles.octez_client import NoAuthorizedKey, OctezClient, signature_by, tagged
from tests.doubles.octez_socket import (
    OctezSocket,
    OctezSocketClient,
    SignerError,
    dynamic,
    framed,
    raw_signature,
    signing_request,
    value_of,
)
from tests.doubles.processes import PATIENCE_S, Enclave, running_local_enclave
from tests.unit.test_octez_wire import RECORDED

TZ1, TZ2, TZ3, TZ4 = FOUR
PROVER, CLOSED = KEYS["tz4pop"], KEYS["unit_test_bls"]
AUTH, STRANGER = KEYS["auth"], KEYS["bob"]
AUTHORIZED = (AUTH, TZ2, TZ3, PROVER)
NO_PROOF = "Request to prove possession is not allowed"


@dataclass(frozen=True, slots=True)
class Served:
    """A host that serves both of Octez' sockets, and whether it wants requests signed."""

    host: Host
    unix: Path
    port: int
    closed: bool

    @property
    def addresses(self) -> tuple[int | Path, ...]:
        return self.port, self.unix


@pytest.fixture(scope="module", params=["open", "authenticated"])
def closed(request: pytest.FixtureRequest) -> bool:
    """Whether requests must be signed."""
    return str(request.param) == "authenticated"


@pytest.fixture(scope="module")
def sealed(closed: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    """An enclave for each: its guard remembers what the other was asked for."""
    del closed
    with running_local_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


def configured(folder: Path, enclave: Enclave, octez: str, more: str = "") -> Path:
    """Write a configuration with Octez' sockets; import its keys."""
    folder.mkdir()
    policies = {key.pkh: BAKER for key in FOUR}
    policies[PROVER.pkh] = "{allow_proof_of_possession: {unsigned: true, others: any}}"
    policies[CLOSED.pkh] = "{allow_proof_of_possession: true}"
    config = write_config(folder, enclave.port, policies)
    config.write_text(config.read_text().replace("utility_address", f"{more}octez: {octez}, utility_address"))
    import_keys(config, *FOUR, PROVER, CLOSED)
    return config


def octez_port(host: Host) -> int:
    return int(host.wait_for(r"Octez TCP server is listening for connections on 127\.0\.0\.1:(\d+)")[1])


@pytest.fixture(scope="module")
def served(closed: bool, tmp_path_factory: pytest.TempPathFactory, sealed: Enclave) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("octez")
    unix = folder / "socket"
    keys = f"authorized_keys: [{', '.join(key.public_key for key in AUTHORIZED)}], " if closed else ""
    octez = f"{{unix: {unix}, tcp: '127.0.0.1:0', known_keys: {'false' if closed else 'true'}}}"
    config = configured(folder / "config", sealed, octez, keys)
    with running_host(config) as host:
        yield Served(host, unix, octez_port(host), closed)
        assert host.stop() == 0
        assert "Traceback" not in host.log
    assert not unix.exists()


def clients(served: Served) -> Iterator[OctezSocketClient]:
    for address in served.addresses:
        for key in AUTHORIZED if served.closed else AUTHORIZED[:1]:
            yield OctezSocketClient(address, [key])


def verify(key: KnownKey, data: bytes, message: bytes, version: int = 2) -> None:
    oracles.verify(key, encode_signature(Signature(key.key_type, data)), message, version=version)


def test_public_keys(served: Served) -> None:
    tags = {KeyType.ED25519: 0, KeyType.SECP256K1: 1, KeyType.P256: 2, KeyType.BLS: 3}
    for address in served.addresses:
        for key in FOUR:
            assert OctezSocketClient(address).public_key(key.pkh) == bytes([tags[key.key_type]]) + key.public_key_bytes
        with pytest.raises(SignerError, match=r"^this key not found in any vault$"):
            OctezSocketClient(address).public_key(STRANGER.pkh)


def test_signs_as_over_http(served: Served) -> None:
    """The marks are one, and so are the signatures: what one way has allowed, the other repeats, or refuses."""
    for number, client in enumerate(clients(served), start=100):
        over_http = OctezClient(served.host.port, [AUTH])
        for key in FOUR:
            for message in (block(number), preattestation(number), attestation(number), transaction(number)):
                signature = client.sign(key.pkh, message)
                if key is not TZ4:  # which takes py_ecc long; HTTP's is looked at elsewhere
                    verify(key, signature, message)
                assert raw_signature(over_http.sign(key.pkh, message)) == signature
        other = block(number, payload=b"\x33" * 32)
        with pytest.raises(SignerError, match=r"^watermark validation failed"):
            client.sign(TZ1.pkh, other)


def test_versions_of_tz4(served: Served) -> None:
    client = OctezSocketClient(served.port, [AUTH])
    for version, suite in ((1, 1), (2, 2), (3, 2)):
        verify(TZ4, client.sign(TZ4.pkh, transaction(1), version), transaction(1), suite)
    with pytest.raises(SignerError, match="version 0 cannot be signed by a tz4 key: use version 1 or 2"):
        client.sign(TZ4.pkh, transaction(1), 0)


def test_what_is_refused_says_why_in_octez_words(served: Served) -> None:
    client = OctezSocketClient(served.unix, [AUTH])
    with pytest.raises(SignerError, match=f"{STRANGER.pkh} is not listed in config"):
        client.sign(STRANGER.pkh, transaction(1))
    with pytest.raises(SignerError, match=r"^request kind `pack' is not allowed$"):
        client.sign(TZ1.pkh, b"\x05\x00\x00")
    with pytest.raises(SignerError, match=r"^message of 32769 bytes, the limit is 32768$"):
        client.sign(TZ1.pkh, b"\x03" + bytes(32768))
    for tag in (b"\x03", b"\x04"):
        with pytest.raises(SignerError, match=r"^deterministic nonces are not made here"):
            client.ask(tag + tagged(TZ1.pkh) + dynamic(b"\x00\x00\x05\x33"))
    assert client.ask(b"\x05" + tagged(TZ1.pkh)) == b"\x00"
    tz5 = b"\x04" + bytes(20)
    for payload in (b"\x00\x03" + tz5 + b"\x03" + dynamic(b"\x03"), b"\x01" + tz5, b"\x07" + tz5 + b"\x00"):
        with pytest.raises(
            SignerError, match=r"^Octez' sockets have no form for signatures of tz5 keys: use http:// or"
        ):
            client.ask(payload)


def test_lists_of_keys(served: Served) -> None:
    client = OctezSocketClient(served.unix)
    if served.closed:
        with pytest.raises(SignerError, match=r"^List known keys request not allowed\.$"):
            client.known_keys()
    else:
        assert client.known_keys() == [key.pkh for key in (*FOUR, PROVER, CLOSED)]


def test_proofs_of_possession(served: Served) -> None:
    for address in served.addresses:
        client = OctezSocketClient(address)
        over_http = OctezClient(served.host.port, [AUTH])
        assert client.prove_possession(PROVER.pkh) == raw_signature(over_http.prove_possession(PROVER.pkh))
        assert client.prove_possession(PROVER.pkh, PROVER.public_key_bytes) == client.prove_possession(PROVER.pkh)
        assert client.prove_possession(PROVER.pkh, TZ4.public_key_bytes) == raw_signature(
            over_http.prove_possession(PROVER.pkh, TZ4.public_key)
        )
        with pytest.raises(SignerError) as refusal:
            client.prove_possession(TZ4.pkh)
        assert str(refusal.value).partition(":")[0] == NO_PROOF
        if served.closed:
            with pytest.raises(SignerError, match=rf"^{NO_PROOF}: .*unsigned: true"):
                client.prove_possession(CLOSED.pkh)
        else:
            assert len(client.prove_possession(CLOSED.pkh)) == 96
            assert str(refusal.value) == NO_PROOF
        with pytest.raises(SignerError, match=f"^{NO_PROOF}: "):
            client.prove_possession(CLOSED.pkh, TZ4.public_key_bytes)


def test_authentication(served: Served) -> None:
    if not served.closed:
        assert OctezSocketClient(served.unix).ask(b"\x02") == b"\x00"
        return
    with pytest.raises(NoAuthorizedKey):
        OctezSocketClient(served.unix, [STRANGER]).sign(TZ1.pkh, transaction(1))
    message, other = transaction(7), transaction(8)
    signed = b"\x04\x01" + tagged(TZ1.pkh) + message

    def ask(key: KnownKey, data: bytes) -> None:
        authentication = raw_signature(signature_by(key, data))
        verify(TZ1, client.ask(signing_request(TZ1.pkh, message, authentication=authentication)), message)

    for address in served.addresses:
        client = OctezSocketClient(address)
        with pytest.raises(SignerError, match=r"^missing authentication signature field$"):
            client.ask(signing_request(TZ1.pkh, message))
        wrong = [
            (STRANGER, signed),
            (AUTH, b"\x04\x01" + tagged(TZ1.pkh) + other),
            (AUTH, b"\x04\x01" + tagged(TZ2.pkh) + message),
            (PROVER, signed + b"\x00"),
        ]
        for key, data in wrong:
            with pytest.raises(SignerError, match=r"^invalid authentication signature$"):
                ask(key, data)
        for key in AUTHORIZED:
            ask(key, signed)


def test_a_repeat_gets_the_same_signature(served: Served) -> None:
    """A client that waited too long asks again, on a new connection, up to three times."""
    client = OctezSocketClient(served.port, [AUTH])
    for key in FOUR:
        assert len({client.sign(key.pkh, attestation(500)) for _ in range(4)}) == 1


def test_frames_of_octez_split_at_every_byte(served: Served) -> None:
    for address in served.addresses:
        for name, text in RECORDED["requests"].items():
            frame, answers = bytes.fromhex(text), set()
            with OctezSocket(address) as stream:
                stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if address != served.unix else None
                for cut in range(1, len(frame)):
                    stream.send(frame[:cut])
                    stream.send(frame[cut:])
                    answers.add(stream.read())
            assert len(answers) == 1, name
        with OctezSocket(address) as stream:
            # Sent ahead: answered one after another.
            stream.send(b"".join(map(bytes.fromhex, RECORDED["requests"].values())))
            for _ in RECORDED["requests"]:
                stream.read()


@pytest.mark.parametrize("name", RECORDED["refused"])
def test_what_is_no_request_ends_the_connection(served: Served, name: str) -> None:
    for address in served.addresses:
        with OctezSocket(address) as stream:
            stream.send(bytes.fromhex(RECORDED["refused"][name]))
            assert stream.ended()
    assert OctezSocketClient(served.unix).public_key(TZ1.pkh)


def test_http_and_tls_are_told_at_once(served: Served) -> None:
    for head in (b"GET /keys/tz1 HTTP/1.1\r\nHost: h\r\n\r\n", b"POST /", b"\x00\x00"):
        with OctezSocket(served.port) as stream:
            stream.send(head)
            assert stream.ended()


def test_the_largest_frames(served: Served) -> None:
    for size in (0xFFFF - 26, 32768):
        message = b"\x03" + bytes(size - 1)
        with OctezSocket(served.port) as stream:
            stream.send(framed(signing_request(TZ1.pkh, message)))
            with pytest.raises(SignerError):
                value_of(stream.read())


def test_a_client_that_leaves_disturbs_no_other(served: Served) -> None:
    for address in served.addresses:
        for size in (0, 1, 2, 3, 20):
            with OctezSocket(address) as stream:
                stream.send(framed(signing_request(TZ4.pkh, block(600)))[:size])
        with OctezSocket(address) as stream:
            stream.send(framed(signing_request(TZ4.pkh, block(601))))
        assert OctezSocketClient(address).public_key(TZ1.pkh)


def test_sixteen_clients_at_once(served: Served) -> None:
    ready = threading.Barrier(16)

    def ask(number: int) -> None:
        client = OctezSocketClient(served.addresses[number % 2], [AUTH])
        ready.wait(PATIENCE_S)
        for branch in range(5):
            key, message = FOUR[number % 4], transaction(1000 + 10 * number + branch)
            signature = client.sign(key.pkh, message)
            if key is not TZ4:
                verify(key, signature, message)

    with ThreadPoolExecutor(16) as pool:
        assert [*pool.map(ask, range(16))] == [None] * 16


def test_the_log_and_the_metrics_are_those_of_http(served: Served) -> None:
    OctezSocketClient(served.port, [AUTH]).sign(TZ2.pkh, block(700))
    client = rf"client_pkh={AUTH.pkh} .*" if served.closed else ""
    line = rf"Signed block successfully.* {client}.*lvl=70%d .*pkh={TZ2.pkh} .*source=\"?%s"
    served.host.wait_for(line % (0, r"127\.0\.0\.1:\d+"))
    OctezSocketClient(served.unix, [AUTH]).sign(TZ2.pkh, block(701))
    served.host.wait_for(line % (1, r"unix:uid=\d+,pid=\d+"))
    page = OctezClient(served.host.utility_port).ask("GET", "/metrics").body.decode()
    assert f'sign_handler_requests_total{{address="{TZ2.pkh}",status="200"}}' in page


def test_a_unix_socket_is_for_the_group_and_no_other_takes_it(closed: bool, tmp_path: Path, sealed: Enclave) -> None:
    if closed:
        return
    path = tmp_path / "socket"
    config = configured(tmp_path / "config", sealed, f"{{unix: {path}}}")
    with running_host(config) as host:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        verify(TZ1, OctezSocketClient(path).sign(TZ1.pkh, transaction(1)), transaction(1))
        host.process.kill()
        host.process.wait(PATIENCE_S)
    with running_host(config) as host, OctezSocket(path) as silent:
        verify(TZ1, OctezSocketClient(path).sign(TZ1.pkh, transaction(2)), transaction(2))
        assert host.stop() == 0
        assert silent.ended()
    assert not path.exists()
