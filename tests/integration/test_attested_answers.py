"""Real programs: what `enclave-host attest` says of a vault's enclave, and what `GET /attestation` shows of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.attested_world import AttestedWorld, attested_world, calls
from tests.doubles.host_process import BAKER, VAULT, Host, ask, import_keys, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import Enclave

NONCE = "made-up-by-an-auditor"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AttestedWorld]:
    with attested_world(tmp_path) as world:
        yield world


def test_an_enclave_is_asked_over_a_connection_that_it_proves(world: AttestedWorld) -> None:
    with world.enclave() as enclave:
        config = world.host_config(enclave.port)
        plain = run_command("attest", "-c", config, "--vault", VAULT)
        assert plain.code == 0, plain.stderr
        first, *lines = plain.stdout.splitlines()
        assert first.startswith("bound to a connection: ")
        assert lines[-1].startswith("accepted")
        assert any(line.startswith("matched     eat_nonce") for line in lines)
        as_json = run_command("attest", "-c", config, "--vault", VAULT, "--json")
        assert (as_json.code, json.loads(as_json.stdout)["bound"]) == (0, True)
        # Nothing but the question was sent.
        enclave.stop()
        assert calls(enclave) == ["Attest", "Attest"]


def test_every_mismatch_of_an_enclave_is_told(world: AttestedWorld) -> None:
    world.changes = {"dbgstat": "enabled", "submods.gce.project_id": "somebody-else"}
    with world.enclave() as enclave:
        outcome = run_command("attest", "-c", world.host_config(enclave.port), "--vault", VAULT)
        assert outcome.code == 1
        refused = [line.split(":")[0] for line in outcome.stdout.splitlines() if line.startswith("refused  ")]
        assert refused == ["refused     dbgstat", "refused     submods.gce.project_id"]
        enclave.stop()
        assert calls(enclave) == ["Attest"]


def test_a_replayed_token_is_refused(world: AttestedWorld) -> None:
    world.kept_token = world.answer_for("0" * 64)
    with world.enclave() as enclave:
        outcome = run_command("attest", "-c", world.host_config(enclave.port), "--vault", VAULT)
        assert outcome.code == 1
        assert "refused     eat_nonce" in outcome.stdout


def test_an_enclave_without_tls_can_prove_no_connection(world: AttestedWorld, local: Enclave) -> None:
    outcome = run_command("attest", "-c", write_config(world.folder, local.port), "--vault", VAULT)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "not TLS" in outcome.stderr
    assert run_command("attest", "-c", write_config(world.folder, local.port), "--vault", "none").code == 2


@contextmanager
def serving(config: Path) -> Iterator[Host]:
    """Run a host that has a key."""
    import_keys(config, FOUR[0])
    with running_host(config) as host:
        yield host


def shown(host: Host, query: str) -> tuple[int, str]:
    """Return what the utility address answers."""
    answer = ask(host.utility_port, "GET", f"/attestation?{query}")
    return answer.status, answer.body.decode()


def test_a_host_shows_a_token_which_an_auditor_verifies(world: AttestedWorld) -> None:
    report, policy = world.folder / "report.json", world.policy
    with world.enclave() as enclave, serving(world.host_config(enclave.port, {FOUR[0].pkh: BAKER})) as host:
        landing = ask(host.utility_port, "GET", "/").body.decode()
        assert "Checked: the enclave has proven" in landing
        assert "<a href='attestation'>" in landing
        asked = len(world.asked)
        status, body = shown(host, f"nonce={NONCE}")
        assert status == 200, body
        assert shown(host, f"nonce={NONCE}") == (200, body)
        assert [shown(host, f"nonce=stranger-{number:04}")[0] for number in range(100)] == [429] * 100
        # One token was made for all of them.
        assert len(world.asked) == asked + 1
        assert host.health() == (200, {"ready": True})
    report.write_text(body)
    words = ("attest", "--report", report, "--policy", policy, "--root", world.root)
    good = run_command(*words, "--nonce", NONCE)
    assert good.code == 0, good.stdout
    assert good.stdout.startswith("not bound to a connection: ")
    # The token alone proves the same, but not whom it was made for.
    token = world.folder / "token"
    token.write_text(json.loads(body)["raw_token"])
    alone = run_command("attest", "--token", token, "--policy", policy, "--root", world.root)
    assert (alone.code, alone.stdout.startswith("not bound to a connection: ")) == (0, True)
    assert run_command("attest", "--token", token, "--root", world.root).code == 1
    # Another nonce, another inventory, and no nonce at all.
    assert "refused     eat_nonce" in run_command(*words, "--nonce", f"{NONCE}-2").stdout
    changed = json.loads(body)
    changed["nonce_info"]["inventory"] = "00" * 32
    report.write_text(json.dumps(changed))
    assert run_command(*words, "--nonce", NONCE).code == 1
    assert run_command(*words).code == 2
    report.write_text("[]")
    assert run_command(*words, "--nonce", NONCE).code == 2


def test_outside_a_confidential_machine_there_is_nothing_to_show(world: AttestedWorld, local: Enclave) -> None:
    config = write_config(world.folder, local.port, {FOUR[0].pkh: BAKER})
    with serving(config) as host:
        status, body = shown(host, f"nonce={NONCE}")
    assert (status, json.loads(body)["status"]) == (503, "not_in_confidential_space")


def test_google_away_is_told_and_the_link_stays(world: AttestedWorld) -> None:
    with world.enclave() as enclave, serving(world.host_config(enclave.port, {FOUR[0].pkh: BAKER})) as host:
        world.away = True
        status, body = shown(host, f"nonce={NONCE}")
        assert (status, json.loads(body)["status"]) == (503, "attestation_error")
        assert host.health() == (200, {"ready": True})
