"""Both programs, and everything that can go wrong between them: no wrong signature, and service again afterwards."""

import asyncio
import socket
from pathlib import Path

from tests.doubles import oracles
from tests.doubles.fault_proxy import FAULTS, Fault, fault_proxy
from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import Enclave, running_slow_enclave
from tests.endurance.faulty_link import run
from tests.endurance.link_times import SEALER_MS, many_keys, restore

REQUESTS = 600


def test_signing_through_every_fault(tmp_path: Path) -> None:
    counts, place = asyncio.run(run(REQUESTS, tmp_path))
    assert (counts.wrong, counts.signed_though_refused, counts.strange) == (0, 0, 0)
    assert counts.requests >= REQUESTS
    assert counts.signatures > 0
    assert counts.given_up > 0
    assert counts.refused > 0
    # Every kind was done to something; the course only ends when there were signatures after it.
    assert [fault for fault in FAULTS if not place.proxy.done[fault]] == []


def test_a_host_survives_each_fault_without_a_restart(tmp_path: Path, enclave: Enclave) -> None:
    with fault_proxy(enclave.address, seed=1, one_in=1) as proxy:
        config = write_config(tmp_path, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            for number, fault in enumerate((Fault.DUPLICATE, Fault.TRUNCATE, Fault.RESET, Fault.AWAY, Fault.SPLIT)):
                proxy.begin(fault)
                # To every frame: there is no signature, or the right one.
                key, message = FOUR[number % 3], transaction(number)
                answer = host.sign(key.pkh, message)
                assert answer.status in (200, 502, 503)
                if answer.status == 200:
                    oracles.verify(key, answer.signature, message)
                proxy.heal()
                for key in FOUR[:3]:
                    message = attestation(1 + number)
                    oracles.verify(key, host.sign(key.pkh, message).signature, message)
            assert host.health() == (200, {"ready": True})


def test_callers_that_close_their_connection_shift_nobody_s_answer(tmp_path: Path, enclave: Enclave) -> None:
    with fault_proxy(enclave.address, seed=1, one_in=1) as proxy:
        config = write_config(tmp_path, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            proxy.begin(Fault.DELAY)
            for number in range(9):
                left = f'"{transaction(1000 + number).hex()}"'
                head = f"POST /keys/{FOUR[0].pkh} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(left)}\r\n\r\n"
                with socket.create_connection(("127.0.0.1", host.port)) as stream:
                    stream.sendall((head + left).encode())
                key = FOUR[number % 3]
                message = transaction(number)
                oracles.verify(key, host.sign(key.pkh, message).signature, message)
            proxy.heal()
            # Who closed had been asked for all the same: the line was never out of step.
            assert transaction(1000) in proxy.messages
            assert "no link to the enclave" not in host.log


def test_many_keys_of_a_slow_sealer() -> None:
    damaged = (3, 77, 149)
    keys = many_keys(150, damaged)
    with running_slow_enclave(SEALER_MS) as slow:
        restored = asyncio.run(restore(slow.port, keys))
    assert restored.served == 147
    assert restored.named == [keys.stored[number].pkh for number in damaged]
