"""How clients come in: TLS with and without certificates of theirs, Unix sockets, tokens, the policy hook, metrics."""

import datetime
import http.client
import json
import re
import signal
import socket
import ssl
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from host_backend.addresses import Address, UnixAddress
from host_backend.api import listeners
from host_backend.api.listeners import UNIX_SOCKET_MODE, bind, listening, tls_context
from host_backend.config import TlsConfig
from host_backend.errors import ConfigError
from tests.doubles import oracles
from tests.doubles.certificates import Authority
from tests.doubles.host_process import BAKER, Host, ask, base, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, attestation, block, transaction
from tests.doubles.octez_client import OctezClient
from tests.doubles.policy_service import Reply, running_policy_service
from tests.doubles.processes import PATIENCE_S, Enclave, running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
USER = "{password: 'a Password 1 of some length', secret: 'a Secret 1 of more than thirty-two characters'}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("listeners")


@pytest.fixture(scope="module")
def sealed(folder: Path) -> Iterator[Enclave]:
    with running_local_enclave(folder / "sealing.key") as enclave:
        yield enclave


def configured(folder: Path, enclave: Enclave, server: str = "", *more: str) -> Path:
    """Write a configuration whose section `server` has these fields as well."""
    folder.mkdir(exist_ok=True)
    config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR}, more=more)
    config.write_text(
        config.read_text().replace("utility_address", f"{server}, utility_address" if server else "utility_address")
    )
    import_keys(config, *FOUR)
    return config


def client_context(authority: Authority, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if files is not None:
        context.load_cert_chain(*files)
    return context


def status_over_tls(host: Host, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", host.port, timeout=PATIENCE_S, context=context)
    try:
        connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(1).hex()))
        return connection.getresponse().status
    finally:
        connection.close()


def test_tls(folder: Path, sealed: Enclave) -> None:
    authority = Authority(folder)
    certificate, key = authority.certificate("server")
    # Old clients cannot be made with every OpenSSL.
    assert tls_context(TlsConfig(certificate, key)).minimum_version is ssl.TLSVersion.TLSv1_2
    config = configured(folder / "tls", sealed, f"tls: {{certificate: {certificate}, key: {key}}}")
    with running_host(config) as host:
        assert status_over_tls(host, client_context(authority)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            status_over_tls(host, client_context(Authority(folder, "stranger")))
        # Who speaks no TLS disturbs no one; metrics and health stay plain.
        with socket.create_connection(("127.0.0.1", host.port), PATIENCE_S) as stream:
            stream.sendall(b"GET /authorized_keys HTTP/1.1\r\n\r\n")
            assert b"200" not in stream.recv(100)
        assert status_over_tls(host, client_context(authority)) == 200
        assert host.health() == (200, {"ready": True})
        assert host.stop() == 0
        assert "Traceback" not in host.log


def test_tls_with_certificates_of_clients(folder: Path, sealed: Enclave) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    authority, stranger = Authority(folder, "clients"), Authority(folder, "strangers")
    certificate, key = authority.certificate("server2")
    tls = f"tls: {{certificate: {certificate}, key: {key}, client_ca: {authority.file}}}"
    with running_host(configured(folder / "clients", sealed, tls)) as host:
        client = authority.certificate("client")
        assert status_over_tls(host, client_context(authority, client)) == 200
        day = datetime.timedelta(days=1)
        others = (
            None,
            stranger.certificate("stranger"),
            Authority(elsewhere, "clients").certificate("of the same name"),
            authority.certificate("expired", begins=-2 * day, ends=-day),
            authority.certificate("not yet valid", begins=day, ends=2 * day),
            authority.certificate("for servers", usage=ExtendedKeyUsageOID.SERVER_AUTH),
            authority.under("client").certificate("by a client"),
        )
        for files in others:
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                status_over_tls(host, client_context(authority, files))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(authority, client)
            context.minimum_version = context.maximum_version = version
            assert status_over_tls(host, context) == 200


def test_tls_files_that_cannot_be_used(folder: Path) -> None:
    authority = Authority(folder, "files")
    certificate, key = authority.certificate("good")
    _, encrypted = authority.certificate("encrypted", b"password")
    with pytest.raises(ConfigError, match=rf"^server\.tls: {folder}/absent cannot be read: No such file"):
        tls_context(TlsConfig(certificate, folder / "absent"))
    for wrong in (certificate, encrypted, authority.certificate("another")[1]):
        with pytest.raises(
            ConfigError, match=r"^server\.tls: .* must be a certificate in PEM form and its key, not encr"
        ):
            tls_context(TlsConfig(certificate, wrong))
    with pytest.raises(ConfigError, match=r"^server\.tls\.client_ca: .* has no certificates in PEM form$"):
        tls_context(TlsConfig(certificate, key, key))


def test_a_unix_socket_from_start_to_stop(folder: Path, sealed: Enclave) -> None:
    path = folder / "socket"
    config = configured(folder / "unix", sealed)
    config.write_text(config.read_text().replace("{address: '127.0.0.1:0'", f"{{address: 'unix:{path}'"))
    with running_host(config, prefix=("sh", "-c", 'umask 0 && exec "$@"', "sh")) as host:
        assert stat.S_IMODE(path.stat().st_mode) == UNIX_SOCKET_MODE
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in base(config).rglob("*")}
        assert modes.pop("watermark_v2") == 0o750
        assert len(modes) >= 4
        assert set(modes.values()) == {0o600}
        oracles.verify(TZ1, OctezClient(path).sign(TZ1.pkh, transaction(1)), transaction(1))
        host.process.kill()
        host.process.wait(PATIENCE_S)
    # Left behind, no one listens.
    assert stat.S_ISSOCK(path.stat().st_mode)
    with running_host(config) as host:
        oracles.verify(TZ1, OctezClient(path).sign(TZ1.pkh, transaction(2)), transaction(2))
        assert host.stop() == 0
    assert not path.exists()


def test_unix_sockets_that_cannot_be_had(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "socket")
    with listening(address):
        with pytest.raises(ConfigError, match=r"another process is listening there$"), listening(address):
            pass
        assert address.path.exists()
    assert not address.path.exists()
    address.path.write_text("something of value")
    with pytest.raises(ConfigError, match=r"the file there is not a socket"), listening(address):
        pass
    assert address.path.read_text() == "something of value"
    with (
        pytest.raises(ConfigError, match=r"No such file or directory$"),
        listening(UnixAddress(tmp_path / "no/socket")),
    ):
        pass
    with bind(Address("127.0.0.1", 0)) as tcp:
        assert tcp.getsockname()[1]


def test_of_two_that_start_at_once_one_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = UnixAddress(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(address.path))
    remove_stale = listeners._remove_stale
    others: list[UnixAddress] = []

    def while_another_starts(address: UnixAddress) -> None:
        remove_stale(address)
        if not others:
            others.append(address)
            with pytest.raises(ConfigError, match=r"another process is listening there$"), listening(address):
                pass

    monkeypatch.setattr(listeners, "_remove_stale", while_another_starts)
    with listening(address), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address.path))
    assert others
    # The left-over lock is in no one's way.
    with listening(address):
        pass


def test_the_lock_follows_no_link_of_another_user(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "socket")
    victim = tmp_path / "victim"
    victim.write_text("something of value")
    (tmp_path / "socket.lock").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"socket\.lock: "), listening(address):
        pass
    assert victim.read_text() == "something of value"


def test_a_unix_socket_that_another_took_over_stays(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "socket")
    with listening(address):
        address.path.unlink()
        address.path.write_text("another's")
    assert address.path.exists()


def test_tokens(folder: Path, sealed: Enclave) -> None:
    config = configured(folder / "jwt", sealed, f"jwt: {{users: {{alice: {USER}}}}}")
    with running_host(config) as host:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S)
        connection.request("POST", "/login", headers={"username": "alice", "password": "a Password 1 of some length"})
        response = connection.getresponse()
        assert response.status == 201
        headers = {"Authorization": f"Bearer {response.read().decode()}", "username": "alice"}
        for given, status in ((headers, 200), ({}, 401), ({**headers, "username": "bob"}, 401)):
            connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(1).hex()), given)
            response = connection.getresponse()
            assert response.status == status
            response.read()
        connection.close()
        assert host.stop() == 0
        for secret in ("Password 1", "Secret 1", headers["Authorization"][7:]):
            assert secret not in host.log


def test_the_policy_hook_decides_before_the_watermark(folder: Path, sealed: Enclave) -> None:
    with running_policy_service() as service:
        config = configured(folder / "hook", sealed, "", f"policy_hook: {{address: {service.address!r}}}")
        proves = f"  {TZ4.pkh}: {{allow_proof_of_possession: true, "
        config.write_text(config.read_text().replace(f"  {TZ4.pkh}: {{", proves))
        with running_host(config) as host:
            service.reply = lambda _: Reply(403)
            answer = host.sign(TZ1.pkh, attestation(5))
            assert (answer.status, answer.message) == (403, "policy hook: 403 Forbidden")
            service.reply = lambda _: Reply(500)
            assert host.sign(TZ1.pkh, attestation(5)).status == 503
            service.reply = lambda _: Reply(200)
            # No mark was moved: another message of that level is signed.
            assert host.sign(TZ1.pkh, attestation(5, payload=b"\x44" * 32)).status == 200
            # What the policy forbids is not asked.
            asked = len(service.questions)
            assert host.sign(TZ1.pkh, b"\x05\x00\x01").status in {400, 403}
            assert len(service.questions) == asked
            assert service.questions[-1]["source"] == "127.0.0.1"
            # A proof is asked for, too, without a message.
            assert host.ask("GET", f"/bls_prove_possession/{TZ4.pkh}").status == 200
            assert (service.questions[-1]["request"], service.questions[-1]["public_key_hash"]) == (None, TZ4.pkh)
            service.reply = lambda _: Reply(403)
            assert host.ask("GET", f"/bls_prove_possession/{TZ4.pkh}").status == 403


def samples(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the samples of one metric, by labels."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line):
            labels = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', match[1] or "")))
            found[labels] = float(match[2])
    return found


def test_metrics_add_up_to_what_was_sent(folder: Path, sealed: Enclave) -> None:
    with running_host(configured(folder / "metrics", sealed)) as host:
        sent: Counter[int] = Counter()
        for number in range(1, 31):
            for key, message in (
                (TZ1, block(number, chain=9)),
                (TZ1, attestation(number, chain=9)),
                (TZ4, attestation(number, chain=9)),
                (TZ2, transaction(number)),
                (TZ1, attestation(number, chain=9, payload=b"\x99" * 32)),
                (KEYS["alice"], transaction(number)),
                (TZ3, b"\x03garbage"),
                (TZ3, bytes.fromhex("05" + "00" + "01")),
            ):
                sent[host.sign(key.pkh, message).status] += 1
        host.ask("POST", "/keys/made-up", '"03"')
        sent[400] += 1
        page = ask(host.utility_port, "GET", "/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = page.body.decode()
        assert "# HELP signatory_build_info" in text

        handled = samples(text, "sign_handler_requests_total")
        by_status: Counter[int] = Counter()
        for labels, count in handled.items():
            by_status[int(dict(labels)["status"])] += int(count)
        assert by_status == sent
        assert sent[200] == 120
        durations = samples(text, "sign_handler_request_duration_milliseconds_count")
        by_status.subtract({int(dict(labels)["status"]): int(count) for labels, count in durations.items()})
        assert not any(by_status.values())
        assert sum(samples(text, "signing_ops_total").values()) == sent[200]
        assert sum(samples(text, "vault_sign_request_duration_milliseconds_count").values()) == sent[200]
        assert sum(samples(text, "watermark_rejection_total").values()) == sent[409]
        assert sum(samples(text, "policy_violation_total").values()) == sent[403]
        assert sum(samples(text, "consensus_round_total").values()) == 90
        marks = Counter({dict(labels)["result"]: 0 for labels in samples(text, "watermark_operations_total")})
        for labels, count in samples(text, "watermark_operations_total").items():
            marks[dict(labels)["result"]] += int(count)
        assert marks == {"success": 90, "rejected": sent[409]}
        # One request after the other, so nothing shares a write.
        ((labels, writes),) = samples(text, "watermark_io_operations_total").items()
        assert dict(labels) == {"backend": "file", "operation": "write", "result": "success", "table_name": ""}
        assert writes == sum(samples(text, "watermark_io_latency_seconds_count").values()) == 90
        ((labels, count),) = samples(text, "vault_sign_request_error_total").items()
        assert (dict(labels)["code"], dict(labels)["vault"], count) == ("409", "ConfidentialSpace", sent[409])
        assert samples(text, "enclave_link_up") == {(("vault_name", "enclave"),): 1}
        assert samples(text, "enclave_keys_ready") == {(("vault_name", "enclave"),): 4}
        stages = samples(text, "signing_stage_duration_seconds_count")
        assert stages[(("stage", "sign"),)] == sent[200]
        assert stages[(("stage", "watermark"),)] == 90
        assert 'le="0.0005"' in text
        # Nothing that a client made up is a label.
        assert "made-up" not in text
        assert KEYS["alice"].pkh not in text


def test_the_log_tells_of_every_request_once(folder: Path, sealed: Enclave) -> None:
    config = configured(folder / "log", sealed)
    with running_host(config) as host:
        assert host.sign(TZ1.pkh, attestation(70)).status == 200
        assert host.sign(TZ1.pkh, attestation(69)).status == 409
        assert host.ask("POST", f"/keys/{TZ1.pkh}", '"zz"').status == 400
        assert host.ask("GET", f"/keys/{TZ1.pkh}").status == 200
        assert host.ask("GET", "/nope").status == 404
        assert host.stop(signal.SIGINT) == 0
        _, _, requests = host.log.partition('"HTTP server is listening')
    lines = requests.splitlines()[1:]
    told = [line for line in lines if "pkh=" in line or "method=" in line]
    assert len(told) == 4, requests
    signed, refused, malformed, read = told
    assert 'level=info msg="Signed attestation successfully"' in signed
    for field in (
        f"pkh={TZ1.pkh}",
        "request=attestation",
        "lvl=70",
        "round=0",
        "chain_id=NetXo5iVw1vBoxM",
        "status=200",
    ):
        assert field in signed
    for stage in ("check_ms", "watermark_ms", "sign_ms"):
        assert re.search(rf"{stage}=\d+\.\d", signed)
    assert "level=warning" in refused
    assert "status=409" in refused
    assert "level=info" in malformed
    assert f'msg="POST /keys/{TZ1.pkh}"' in malformed
    assert "status=400" in malformed
    assert f'msg="GET /keys/{TZ1.pkh}"' in read
    assert attestation(70).hex() not in host.log


def test_payloads_are_logged_only_for_keys_that_say_so(folder: Path, sealed: Enclave) -> None:
    config = configured(folder / "payloads", sealed)
    text = config.read_text()
    before, after = text.split(f"  {TZ2.pkh}: ")
    config.write_text(f"{before}  {TZ2.pkh}: {{log_payloads: true, {after.removeprefix('{')}")
    with running_host(config, "--log", "debug") as host:
        for key in (TZ1, TZ2):
            assert host.sign(key.pkh, transaction(1)).status == 200
            assert host.sign(key.pkh, transaction(1) + b"\0").status == 400
        assert host.stop() == 0
    with_payload = [line for line in host.log.splitlines() if "raw=" in line]
    assert [f"pkh={TZ2.pkh}" in line for line in with_payload] == [True, True]
    assert f"raw={transaction(1).hex()} " in with_payload[0]
    assert f"raw={transaction(1).hex()}00 " in with_payload[1]
    assert host.log.count(transaction(1).hex()) == 2
