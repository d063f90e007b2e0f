"""Real programs over TLS: the host sends nothing but a nonce before the enclave has proven what it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.attested_world import OLDER, AttestedWorld, attested_world, calls, wait_for_calls
from tests.doubles.client_certificates import client_files
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    import_keys,
    key_file,
    refused,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import running_enclave

TZ1, *_, TZ4 = FOUR


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AttestedWorld]:
    with attested_world(tmp_path) as world:
        yield world


def test_keys_are_imported_and_sign_and_an_enclave_that_was_started_again_is_proven_again(world: AttestedWorld) -> None:
    with world.enclave() as enclave:
        port = enclave.port
        config = world.host_config(port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            for key in FOUR:
                oracles.verify(key, host.sign(key.pkh, attestation(1)).signature, attestation(1))
            assert host.health() == (200, {"ready": True})
            enclave.stop()
            with world.enclave(port) as again:
                oracles.verify(TZ4, host.sign(TZ4.pkh, attestation(2)).signature, attestation(2))
                # On its first connection the new process was asked for the proof that the old one gave, then for its own.
                wait_for_calls(again, "Attest", "Attest", "Initialize")


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"submods.container.image_digest": OLDER}, "image_digest"),
        ({"dbgstat": "enabled"}, "dbgstat"),
        ({"submods.gce.project_id": "somebody-else"}, "project_id"),
    ],
    ids=["an older digest", "a debug image", "a sister in another project"],
)
def test_another_enclave_in_its_place_stops_the_host_loudly(
    world: AttestedWorld, changes: dict[str, object], claim: str
) -> None:
    with world.enclave() as enclave:
        port = enclave.port
        config = world.host_config(port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            assert host.sign(TZ1.pkh, attestation(1)).status == 200
            world.changes = changes
            enclave.stop()
            with world.enclave(port) as other:
                host.wait_for('level=error msg="no link to the enclave: the evidence was refused')
                assert host.sign(TZ1.pkh, attestation(2)).status in {502, 503}
                status, health = host.health()
                assert status == 503
                assert claim in str(health["reasons"])
                wait_for_calls(other, "Attest")
                assert set(calls(other)) == {"Attest"}


def test_a_secret_key_is_not_sent_to_what_the_policy_does_not_trust(world: AttestedWorld) -> None:
    world.changes = {"submods.container.image_digest": OLDER}
    with world.enclave() as enclave:
        config = world.host_config(enclave.port)
        outcome = run_command("import", "-c", config, "--vault", VAULT, TZ1.secret)
        assert "image_digest" in refused(outcome, 1)
        assert not key_file(config).exists()
        assert not store_file(config).exists()
        wait_for_calls(enclave, "Attest")
        assert calls(enclave) == ["Attest"]


def test_a_token_of_yesterday_proves_nothing(world: AttestedWorld) -> None:
    with world.enclave() as enclave:
        config = world.host_config(enclave.port)
        world.kept_token = world.answer_for("9f" * 32)
        assert "eat_nonce" in refused(run_command("import", "-c", config, "--vault", VAULT, TZ1.secret), 1)
        wait_for_calls(enclave, "Attest")
        assert calls(enclave) == ["Attest"]


def test_without_tokens_there_is_no_first_connection(world: AttestedWorld) -> None:
    world.away = True
    with world.enclave() as enclave:
        outcome = run_command("import", "-c", world.host_config(enclave.port), "--vault", VAULT, TZ1.secret)
        assert "attestation unavailable: the launcher gave no token, HTTP status 500" in refused(outcome, 1)
        wait_for_calls(enclave, "Attest")
        assert calls(enclave) == ["Attest"]


def test_a_host_that_the_image_does_not_list_is_told_so(world: AttestedWorld) -> None:
    with world.enclave() as enclave:
        config = world.host_config(enclave.port)
        listed, world.client = world.client, client_files(world.folder, "other")
        text = config.read_text().replace(str(listed.certificate), str(world.client.certificate))
        config.write_text(text.replace(str(listed.key), str(world.client.key)))
        said = refused(run_command("generate", "-c", config, "--vault", VAULT), 1)
        assert f"see whether its image lists this host's key, {world.client.digest}, under `clients` of [tls]" in said
        enclave.wait_for(f"its key {world.client.digest} is not listed")
        assert calls(enclave) == []


def test_beyond_its_machine_without_tls_an_enclave_takes_no_key_in_clear(tmp_path: Path) -> None:
    """Such an enclave has to be asked for by a switch that says what it is; the rest works as ever."""
    with running_enclave("--listen", "0.0.0.0:0", "--insecure-plain-tcp") as enclave:
        config = write_config(tmp_path, enclave.port)
        outcome = run_command("import", "-c", config, "--vault", VAULT, TZ1.secret)
        assert "accepts no private key in clear" in refused(outcome, 1)
        assert not key_file(config).exists()
        assert run_command("generate", "-c", config, "--vault", VAULT).code == 0


def test_a_host_with_tls_at_an_enclave_without_it_is_told_so(world: AttestedWorld) -> None:
    with running_enclave("--log", "debug") as enclave:
        said = refused(run_command("generate", "-c", world.host_config(enclave.port), "--vault", VAULT), 1)
        assert "ended the connection during the TLS handshake: see whether it speaks TLS" in said
        enclave.wait_for("connection closed: the other side speaks TLS, and this one does not")
