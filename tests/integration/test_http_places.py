"""Strangers by the thousand at the host's ports keep no one from signing, and the host from nothing that it needs."""

import http.client
import json
import resource
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from host_backend.descriptors import SIGNING_PLACES, UTILITY_PLACES
from tests.doubles.certificates import Authority
from tests.doubles.host_process import BAKER, Host, ask, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.policy_service import Question, Reply, running_policy_service
from tests.doubles.processes import PATIENCE_S, Enclave, kept, running_local_enclave

TZ1 = FOUR[0]
#: Files that a starved host may have open; some 150 of them it keeps for itself.
FEW_FILES = 300
STARVED = (sys.executable, "-m", "tests.doubles.few_files", str(FEW_FILES))
USER = "{password: 'a Password 1 of some length', secret: 'a Secret 1 of more than thirty-two characters'}"


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * SIGNING_PLACES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def enclave(tmp_path: Path) -> Iterator[Enclave]:
    with running_local_enclave(tmp_path / "sealing.key") as running:
        yield running


def configured(folder: Path, enclave: Enclave, server: str = "", *more: str) -> Path:
    config = write_config(folder, enclave.port, {TZ1.pkh: BAKER}, more=more)
    config.write_text(config.read_text().replace("server: {", f"server: {{{server}"))
    import_keys(config, TZ1)
    return config


def connect(port: int, number: int, *, addresses: int) -> socket.socket:
    """Connect from one of so many addresses of this machine."""
    source = f"127.1.{number % addresses // 250}.{number % addresses % 250 + 1}"
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S, source_address=(source, 0))


def asks_for_mode(client: socket.socket) -> None:
    client.sendall(b"GET /mode HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200")


@contextmanager
def kept_alive(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.connect()
    # It would reconnect without a word.
    connection.auto_open = 0
    try:
        yield connection
    finally:
        connection.close()


def signs(connection: http.client.HTTPConnection, number: int) -> None:
    connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(attestation(number).hex()))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    response.read()


@pytest.mark.parametrize(("addresses", "served"), [(1, True), (500, True), (1, False)], ids=["one", "many", "silent"])
def test_a_new_baker_is_served_beside_silent_strangers(
    tmp_path: Path, enclave: Enclave, addresses: int, *, served: bool
) -> None:
    with running_host(configured(tmp_path, enclave)) as host, ExitStack() as stack, kept_alive(host.port) as baker:
        signs(baker, 1)
        for number in range(SIGNING_PLACES):
            stranger = stack.enter_context(connect(host.port, number, addresses=addresses))
            if served:
                asks_for_mode(stranger)
            if number % 1000 == 0:
                signs(baker, 2 + number)
        for number in range(20):
            assert host.sign(TZ1.pkh, transaction(number)).status == 200
        # A client that asks is not displaced.
        signs(baker, 2 + SIGNING_PLACES)
        assert host.stop() == 0
        assert 'msg="clients that were silent longest closed for newcomers"' in host.log
        assert "source=" in next(line for line in host.log.splitlines() if "silent longest" in line)


def test_a_new_baker_is_served_beside_handshakes_that_do_not_end(tmp_path: Path, enclave: Enclave) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.certificate("server")
    client_certificate = authority.certificate("baker")
    tls = f"tls: {{certificate: {certificate}, key: {key}, client_ca: {authority.file}}}, "
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(*client_certificate)
    config = configured(tmp_path, enclave, tls)
    with running_host(config, prefix=STARVED) as host, ExitStack() as stack:
        for number in range(FEW_FILES):
            stack.enter_context(connect(host.port, number, addresses=1 + number % 7))
        for number in range(10):
            connection = http.client.HTTPSConnection("127.0.0.1", host.port, timeout=PATIENCE_S, context=context)
            connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(number).hex()))
            assert connection.getresponse().status == 200
            connection.close()
        assert host.stop() == 0
        signed = [line for line in host.log.splitlines() if "Signed" in line]
        assert len(signed) == 10
        assert all("certificate=" in line and "CN=baker" in line and "source=" in line for line in signed)
        assert "Too many open files" not in host.log


def test_files_for_the_enclave_stay_free_while_clients_and_the_hook_have_all_they_can(
    tmp_path: Path, enclave: Enclave
) -> None:
    released = threading.Event()

    def hangs(_: Question) -> Reply:
        released.wait(PATIENCE_S)
        return Reply(200)

    with running_policy_service() as service, ExitStack() as stack:
        stack.callback(released.set)
        hook = f"policy_hook: {{address: {service.address!r}, timeout: 30}}"
        host = stack.enter_context(running_host(configured(tmp_path, enclave, "", hook), prefix=STARVED))
        places = int(host.wait_for(r"the limit of open files \(ulimit -Hn\) allows (\d+) clients at once")[1])
        service.reply = hangs
        body = json.dumps(transaction(1).hex()).encode()
        request = b"POST /keys/%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (
            TZ1.pkh.encode(),
            len(body),
            body,
        )
        asking = [stack.enter_context(connect(host.port, 0, addresses=1)) for _ in range(places)]
        for client in asking:
            client.sendall(request)
        utility = [stack.enter_context(connect(host.utility_port, 0, addresses=1)) for _ in range(2 * UTILITY_PLACES)]
        host.wait_for("silent longest")
        for _ in range(FEW_FILES):
            stack.enter_context(connect(host.port, 0, addresses=1))
        host.wait_for("answers are due to all others")
        port = enclave.port
        assert enclave.stop() == 0
        host.wait_for("no link to the enclave")
        command = [
            sys.executable,
            "-m",
            "enclave_signer",
            "--sealing-key",
            str(tmp_path / "sealing.key"),
            "--make-sealing-key",
        ]
        stack.enter_context(kept(Enclave([*command, "--listen", f"127.0.0.1:{port}"])))
        host.wait_for("(?s)no link to the enclave.*the link to the enclave is ready")
        assert host.health()[0] == 200
        assert "Too many open files" not in host.log
        released.set()
        for client in asking:
            assert client.recv(1000).startswith(b"HTTP/1.1 200"), host.log
        assert host.sign(TZ1.pkh, transaction(2)).status == 200
        del utility


def login(host: Host, password: str, user: str = "alice") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/login", headers={"username": user, "password": password})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_right_password_gets_through_while_strangers_guess(tmp_path: Path, enclave: Enclave) -> None:
    with running_host(configured(tmp_path, enclave, f"jwt: {{users: {{alice: {USER}}}}}, ")) as host:
        answers: list[int] = []

        def guess(number: int) -> None:
            answers.extend(login(host, f"wrong {number} {each}") for each in range(3))

        guessing = [threading.Thread(target=guess, args=(number,)) for number in range(30)]
        for thread in guessing:
            thread.start()
        statuses = [login(host, "a Password 1 of some length") for _ in range(30)]
        for thread in guessing:
            thread.join()
        assert statuses == [201] * 30
        assert set(answers) == {401, 429}
        assert login(host, "wrong", "a Password in the wrong place") == 401
        assert ask(host.port, "GET", "/known_keys").status == 401
        assert host.stop() == 0
        refused = [line for line in host.log.splitlines() if 'msg="POST /login"' in line]
        assert len(refused) == 91
        assert all('source="127.0.0.1:' in line and "level=warning" in line for line in refused)
        assert sum("user=alice" in line for line in refused) == 90
        assert "a Password" not in host.log
        (without,) = (line for line in host.log.splitlines() if 'msg="GET /known_keys"' in line)
        assert 'error="token required"' in without
        assert 'source="127.0.0.1:' in without


def test_who_asked_stands_in_every_line_also_behind_a_proxy(tmp_path: Path, enclave: Enclave) -> None:
    config = configured(tmp_path, enclave, "trusted_proxies: [127.0.0.1], ")
    with running_host(config) as host:
        for client in ("192.0.2.1", "198.51.100.7, 192.0.2.2"):
            connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S)
            for body in (
                json.dumps(attestation(1).hex()),
                json.dumps(attestation(1, payload=b"\x99" * 32).hex()),
                '"zz"',
            ):
                connection.request("POST", f"/keys/{TZ1.pkh}", body, {"X-Forwarded-For": client})
                connection.getresponse().read()
            connection.close()
        assert host.stop() == 0
        lines = [line for line in host.log.splitlines() if "status=" in line]
        assert len(lines) == 6
        for line, client in zip(lines, ["192.0.2.1"] * 3 + ["192.0.2.2"] * 3, strict=True):
            assert f"source={client} " in line
            assert 'proxy="127.0.0.1:' in line
        assert [line.split("status=")[1][:3] for line in lines] == ["200", "409", "400"] * 2


def test_what_happens_to_the_link_is_nobodys_request(tmp_path: Path, enclave: Enclave) -> None:
    with running_host(configured(tmp_path, enclave)) as host:
        assert host.sign(TZ1.pkh, transaction(1)).status == 200
        enclave.process.send_signal(signal.SIGSTOP)
        assert host.sign(TZ1.pkh, transaction(2)).status == 503
        host.wait_for("no link to the enclave")
        enclave.process.send_signal(signal.SIGCONT)
        assert host.stop() == 0
        assert [("source=" in line) for line in host.log.splitlines() if "status=" in line] == [True, True]
        assert not [line for line in host.log.splitlines() if "no link to" in line and "source=" in line]


def test_the_hook_is_told_the_client_behind_a_proxy(tmp_path: Path, enclave: Enclave) -> None:
    with running_policy_service() as service:
        hook = f"policy_hook: {{address: {service.address!r}}}"
        for trusted, source in (("127.0.0.1", "192.0.2.1"), ("127.0.0.2", "127.0.0.1")):
            folder = tmp_path / trusted
            folder.mkdir()
            with running_host(configured(folder, enclave, f"trusted_proxies: [{trusted}], ", hook)) as host:
                connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S)
                headers = {"Forwarded": "for=192.0.2.1"}
                connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(1).hex()), headers)
                assert connection.getresponse().status == 200
                connection.close()
                assert service.questions[-1]["source"] == source
