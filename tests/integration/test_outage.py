"""An enclave that dies, or never answers: reported in words, no mark is moved, and it all comes back by itself."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.enclave_proxy import enclave_proxy
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import Enclave, running_enclave, running_local_enclave

TZ1, *_, TZ4 = FOUR


def check_refusals(host: Host) -> None:
    """Pass when no one gets a signature, at a time when there is no enclave."""
    asked = [(key.pkh, message) for key in FOUR for message in (transaction(1), attestation(1))]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda request: host.sign(*request), asked))
    for answer in answers:
        assert answer.status == 503
        assert "enclave" in answer.message
    # What needs no enclave goes on.
    for key in FOUR:
        assert host.ask("GET", f"/keys/{key.pkh}").status == 200
    assert host.sign(TZ1.pkh, b"\x03").status == 400
    status, health = host.health()
    assert (status, health["ready"]) == (503, False)
    assert "enclave: " in str(health["reasons"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_enclave_that_ends_moves_no_mark_and_is_found_again(tmp_path: Path, number: signal.Signals) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        port = enclave.port
        config = write_config(tmp_path, port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            enclave.stop(number)
            check_refusals(host)
            with running_local_enclave(tmp_path / "sealing.key", "--listen", f"127.0.0.1:{port}"):
                # The first request after the port is back, of each key: no one did anything, and no mark had moved.
                for key in FOUR:
                    other = attestation(1, payload=b"\x55" * 32)
                    oracles.verify(key, host.sign(key.pkh, other).signature, other)
                assert host.health() == (200, {"ready": True})
            assert host.stop() == 0
            assert "Traceback" not in host.log


def test_a_host_starts_before_its_enclave(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        port = enclave.port
        config = write_config(tmp_path, port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
    with running_host(config) as host:
        status, health = host.health()
        assert (status, health["ready"]) == (503, False)
        # Stored, so it is not unknown; never opened, so its public key is.
        assert host.ask("GET", f"/keys/{TZ1.pkh}").status == 503
        answer = host.sign(TZ1.pkh, attestation(1))
        assert (answer.status, "cannot be reached: Connection refused" in answer.message) == (503, True)
        with running_local_enclave(tmp_path / "sealing.key", "--listen", f"127.0.0.1:{port}"):
            for key in FOUR:
                oracles.verify(key, host.sign(key.pkh, attestation(1)).signature, attestation(1))
            host.wait_for(f'msg="key ready" active=true pkh={TZ4.pkh}')
            assert host.health() == (200, {"ready": True})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_host_can_be_stopped_while_its_enclave_never_answers(tmp_path: Path, number: signal.Signals) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        import_keys(write_config(tmp_path, enclave.port), TZ1)
    # The kernel takes the connection, and no one ever answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host(write_config(tmp_path, silent.getsockname()[1]))
        try:
            host.wait_for("connecting to the enclave")
            assert host.stop(number) == 0
            assert 'msg="stopped' in host.log
            assert "Traceback" not in host.log
        finally:
            host.discard()


def test_version_0_of_a_bls_key_never_reaches_the_wire(tmp_path: Path) -> None:
    with running_enclave() as enclave, enclave_proxy(enclave.address) as proxy:
        config = write_config(tmp_path, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            for message in (transaction(1), attestation(1)):
                answer = host.sign(TZ4.pkh, message, "?version=0")
                assert (answer.status, answer.message) == (
                    400,
                    "version 0 cannot be signed by a tz4 key: use version 1 or 2",
                )
            assert proxy.messages == []
            # No one else pays, and no mark has moved.
            for key in FOUR:
                other = attestation(1, payload=b"\x55" * 32)
                oracles.verify(key, host.sign(key.pkh, other).signature, other)
            assert len(proxy.messages) == len(FOUR)


def test_keys_of_another_process_appear_in_a_running_host(tmp_path: Path, enclave: Enclave) -> None:
    config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
    import_keys(config, TZ1)
    with running_host(config) as host:
        assert host.sign(TZ4.pkh, attestation(1)).status == 404
        import_keys(config, *FOUR[1:])
        for key in FOUR:
            # The host has looked a moment ago, and looks again in a second.
            while (answer := host.sign(key.pkh, attestation(1))).status == 404:
                pass
            oracles.verify(key, answer.signature, attestation(1))
