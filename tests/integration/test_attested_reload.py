"""At SIGHUP the host reads the policy of its enclave, and its own certificate, again."""

import signal
from collections.abc import Iterator

import pytest

from tests.doubles.attested_world import OLDER, POLICY, AttestedWorld, attested_world, calls
from tests.doubles.client_certificates import client_files
from tests.doubles.google.tokens import DIGEST
from tests.doubles.host_process import BAKER, Host, import_keys, running_host
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import Enclave

TZ1 = FOUR[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttestedWorld]:
    with attested_world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(scope="module")
def enclave(world: AttestedWorld) -> Iterator[Enclave]:
    with world.enclave() as enclave:
        yield enclave


@pytest.fixture(scope="module")
def host(world: AttestedWorld, enclave: Enclave) -> Iterator[Host]:
    config = world.host_config(enclave.port, {TZ1.pkh: BAKER})
    import_keys(config, TZ1)
    with running_host(config, "--log", "debug") as host:
        assert host.sign(TZ1.pkh, attestation(1)).status == 200
        yield host


def hang_up(host: Host, expected: str) -> None:
    """Send SIGHUP, and return when the host has said this since."""
    said = len(host.log)
    host.process.send_signal(signal.SIGHUP)
    host.wait_for(f"(?s:.{{{said}}}.*){expected}")


def test_a_policy_that_no_longer_matches_stops_the_host_and_one_that_does_again_starts_it(
    world: AttestedWorld, host: Host
) -> None:
    # A policy counts although no new token can be had.
    world.away = True
    world.policy.write_text(POLICY.replace(DIGEST, OLDER))
    hang_up(host, 'level=error msg="no link to the enclave: the evidence was refused')
    assert host.sign(TZ1.pkh, attestation(2)).status == 503
    status, health = host.health()
    assert (status, "image_digest" in str(health["reasons"])) == (503, True)
    world.away = False
    world.policy.write_text(POLICY)
    hang_up(host, "the link to the enclave is ready")
    assert host.sign(TZ1.pkh, attestation(3)).status == 200


def test_a_policy_that_cannot_be_read_changes_nothing(world: AttestedWorld, enclave: Enclave, host: Host) -> None:
    asked = calls(enclave)
    world.policy.write_text("audience: [")
    hang_up(host, "the certificate for the enclave and the policy were not reloaded, the old ones stay: .*policy.yaml")
    assert host.sign(TZ1.pkh, attestation(4)).status == 200
    assert set(calls(enclave)[len(asked) :]) <= {"Sign", "GetPublicKey"}
    assert host.health() == (200, {"ready": True})
    world.policy.write_text(POLICY)


def test_another_certificate_is_shown_on_a_new_connection_beside_the_one_in_service(
    world: AttestedWorld, enclave: Enclave, host: Host
) -> None:
    other = client_files(world.folder, "other")
    former = world.client.certificate.read_bytes(), world.client.key.read_bytes()
    world.client.certificate.write_bytes(other.certificate.read_bytes())
    hang_up(host, "not reloaded, the old ones stay: .*client.key: is not the key of")
    # The image does not list it: the connection in service stays, and it is said why no other can be had.
    world.client.key.write_bytes(other.key.read_bytes())
    hang_up(
        host, f"could not be renewed, it signs on until .*see whether its image lists this host's key, {other.digest}"
    )
    enclave.wait_for(f"its key {other.digest} is not listed")
    assert host.sign(TZ1.pkh, attestation(5)).status == 200
    for path, data in zip((world.client.certificate, world.client.key), former, strict=True):
        path.write_bytes(data)
    hang_up(host, "all keys are on a new connection to the enclave")
    assert host.sign(TZ1.pkh, attestation(6)).status == 200
    assert host.health() == (200, {"ready": True})
