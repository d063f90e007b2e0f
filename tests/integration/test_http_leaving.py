"""Strangers who ask for what takes long, and leave or stay, at the host's ports: no one else is refused for that."""

import http.client
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.policy_service import PolicyService, Question, Reply, running_policy_service
from tests.doubles.processes import PATIENCE_S, running_local_enclave

TZ1 = FOUR[0]
#: Files that the host may have open; some 150 of them it keeps for itself.
FEW_FILES = 300
STARVED = (sys.executable, "-m", "tests.doubles.few_files", str(FEW_FILES))
STRANGER, HONEST = "127.0.0.1", "127.0.0.2"
LEFT = "the client left before its answer"


@contextmanager
def serving(folder: Path, hook: PolicyService | None = None, *, enclave_away: bool = False) -> Iterator[Host]:
    with running_local_enclave(folder / "sealing.key") as enclave:
        more = () if hook is None else (f"policy_hook: {{address: {hook.address!r}, timeout: 30}}",)
        config = write_config(folder, enclave.port, {TZ1.pkh: BAKER}, more=more)
        import_keys(config, TZ1)
        with running_host(config, prefix=STARVED) as host:
            if enclave_away:
                assert enclave.stop() == 0
                host.wait_for("no link to the enclave")
            yield host
            assert host.stop() == 0
            assert "Traceback" not in host.log


def asking(host: Host, message: bytes = transaction(1)) -> socket.socket:
    """Return a stranger's connection on which a request for a signature was sent."""
    body = json.dumps(message.hex())
    client = socket.create_connection(("127.0.0.1", host.port), PATIENCE_S, (STRANGER, 0))
    client.sendall(f"POST /keys/{TZ1.pkh} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return client


def honest(host: Host, method: str = "GET", path: str = "/mode", body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S, source_address=(HONEST, 0))
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_request_that_waits_for_the_enclave_ends_when_its_client_leaves(tmp_path: Path) -> None:
    with serving(tmp_path, enclave_away=True) as host:
        asking(host).close()
        host.wait_for(f'level=info msg="{LEFT}.*source="{STRANGER}:')


def test_whoever_asks_and_leaves_takes_nothing_from_others(tmp_path: Path) -> None:
    with serving(tmp_path, enclave_away=True) as host:
        for number in range(2 * FEW_FILES):
            asking(host).close()
            if number % 50 == 49:
                assert honest(host)[0] == 200


class HangingHook:
    """Answers no one until it is released."""

    def __init__(self, service: PolicyService) -> None:
        self.released = threading.Event()
        self.asked = threading.Semaphore(0)
        service.reply = self._reply

    def _reply(self, _: Question) -> Reply:
        self.asked.release()
        self.released.wait(PATIENCE_S)
        return Reply(200)


def test_a_question_to_the_hook_ends_when_its_client_leaves(tmp_path: Path) -> None:
    with running_policy_service() as service, serving(tmp_path, service) as host:
        hook = HangingHook(service)
        try:
            with asking(host, attestation(1)):
                assert hook.asked.acquire(timeout=PATIENCE_S)
            host.wait_for(LEFT)
        finally:
            hook.released.set()
        # Its mark was not moved.
        assert (
            honest(host, "POST", f"/keys/{TZ1.pkh}", json.dumps(attestation(1, payload=b"\x99" * 32).hex()))[0] == 200
        )


def test_one_address_that_is_being_answered_everywhere_keeps_no_other_out(tmp_path: Path) -> None:
    with running_policy_service() as service, serving(tmp_path, service) as host, ExitStack() as stack:
        hook = HangingHook(service)
        stack.callback(hook.released.set)
        for _ in range(int(host.wait_for(r"allows (\d+) clients at once")[1])):
            stack.enter_context(asking(host))
            assert hook.asked.acquire(timeout=PATIENCE_S)
        stack.enter_context(asking(host))
        host.wait_for("answers are due to all others")
        for _ in range(3):
            assert honest(host) == (200, b'{"mode":"remote-signer","authentication":"none"}\n')
