"""An enclave that dies, or never answers: told at once and in words, nothing is lost, no mark is moved."""

import signal
import socket
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import running_local_enclave

TZ1, *_ = FOUR


def check_refusals(host: Host) -> None:
    for key in FOUR:
        for message in (transaction(1), attestation(1)):
            answer = host.sign(key.pkh, message)
            assert answer.status == 503
            assert answer.message.startswith("the connection to the enclave was lost")
        # What needs no enclave goes on.
        assert host.ask("GET", f"/keys/{key.pkh}").status == 200
    assert host.sign(TZ1.pkh, b"\x03").status == 400
    status, health = host.health()
    assert (status, health["ready"]) == (503, False)
    assert str(health["reasons"]).startswith("['enclave: the connection to the enclave was lost")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_enclave_that_ends_is_told_at_once_and_moves_no_mark(tmp_path: Path, number: signal.Signals) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            enclave.stop(number)
            check_refusals(host)
            assert host.stop() == 0
            assert "Traceback" not in host.log
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
        with running_host(config) as host:
            for key in FOUR:
                other = attestation(1, payload=b"\x55" * 32)
                oracles.verify(key, host.sign(key.pkh, other).signature, other)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_host_can_be_stopped_while_it_waits_for_its_enclave(tmp_path: Path, number: signal.Signals) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        import_keys(write_config(tmp_path, enclave.port), TZ1)
    # The kernel takes the connection, and nobody ever answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host(write_config(tmp_path, silent.getsockname()[1]))
        try:
            host.wait_for("connecting to the enclave")
            assert host.stop(number) == 0
            assert 'msg="stopped before it was ready"' in host.log
        finally:
            host.discard()
