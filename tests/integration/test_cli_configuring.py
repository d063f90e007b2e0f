"""From no configuration to a second key that signs, by commands alone: `config init`, `keys allow`, `reload`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import public_key_hash
from host_backend.cli import configuring
from host_backend.cli.configuring import next_steps
from host_backend.cli.presets import MAINNET, PRESETS, policy_lines
from host_backend.config import load_config
from host_backend.config.review import review
from host_backend.errors import EnclaveUnavailable
from tests.contract.markdown import DOCS, blocks
from tests.doubles.host_process import BAKER, VAULT, import_keys, refused, run_command, running_host, write_config
from tests.doubles.known_keys import CHAIN_ID, FOUR, attestation
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave

TZ1, TZ2, TZ3, TZ4 = FOUR


def test_a_first_configuration_is_written_once_and_loads(tmp_path: Path) -> None:
    file = tmp_path / "signatory.yaml"
    outcome = run_command("config", "init", "-c", file)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith(f"Wrote {file}\nNext: ")
    assert file.read_text().count("#") >= 7
    found = review(load_config(file))
    assert (found.ignored, found.dangers) == ((), ())
    before = file.read_bytes()
    assert refused(run_command("config", "init", "-c", file), 1).startswith(f"{file} exists: ")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "tezos:\n@"),
        ("base_dir: /x\n", "base_dir: /x\n\ntezos:\n@"),
        ("base_dir: /x", "base_dir: /x\n\ntezos:\n@"),
        ("tezos: {} # none\nbase_dir: /x\n", "tezos: # none\n@base_dir: /x\n"),
        ("tezos: {}", "tezos:\n@"),
        ("tezos: ~\n", "tezos:\n@"),
        ("tezos:\nbase_dir: /x\n", "tezos:\n@base_dir: /x\n"),
        (
            "tezos: # all\n  # a baker\n  tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb: {} # his\n\n# disks\nbase_dir: /x\n",
            "tezos: # all\n  # a baker\n  tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb: {} # his\n@\n# disks\nbase_dir: /x\n",
        ),
        (
            "tezos:\n      tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb:\n        allow:\n          block:\n",
            "tezos:\n      tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb:\n        allow:\n          block:\n      @",
        ),
    ],
)
def test_the_lines_of_a_key_are_added_and_all_else_stays(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "signatory.yaml"
    file.write_text(text)
    outcome = run_command("keys", "allow", "-c", file, TZ4.pkh)
    assert outcome.code == 0, outcome.stderr
    indent = "      " if "      @" in expected else "  "
    lines = "".join(f"{indent}{line.removeprefix('  ')}\n" for line in policy_lines(TZ4.pkh, "consensus", MAINNET))
    assert file.read_text() == expected.replace("      @", "@").replace("@", lines)
    assert TZ4.pkh in load_config(file).policies
    again = refused(run_command("keys", "allow", "-c", file, TZ4.pkh), 2)
    assert again.startswith(f"{file} lists {TZ4.pkh} already: ")


@pytest.mark.parametrize("text", ["tezos: {tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb: {}}\n", '{"base_dir": "/x"}\n'])
def test_where_lines_cannot_be_added_they_are_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "signatory.yaml"
    file.write_text(text)
    outcome = run_command("keys", "allow", "-c", file, TZ2.pkh, "--for", "paying")
    assert outcome.code == 2
    assert outcome.stderr.endswith("\n".join(policy_lines(TZ2.pkh, "paying", MAINNET)) + "\n")
    assert file.read_text() == text


def test_a_hash_or_chain_that_is_none_is_not_added(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("tezos: {}\n")
    for preset in ("consensus", "staking"):
        chain = ("--for", preset, "--chain", f"{MAINNET}x")
        said = refused(run_command("keys", "allow", "-c", tmp_path / "c", TZ1.pkh, *chain), 2)
        assert said == "invalid checksum where a chain id is needed; copy it again in full"
    assert run_command("keys", "allow", "-c", tmp_path / "c", f"{TZ1.pkh}x").code == 2
    assert (tmp_path / "c").read_text() == "tezos: {}\n"


def test_a_key_that_never_bakes_is_not_allowed_to(tmp_path: Path) -> None:
    config = tmp_path / "c"
    config.write_text("experimental: {tz5: true}\ntezos: {}\n")
    pkh = public_key_hash(PublicKey(KeyType.ML_DSA_44, bytes(KeyType.ML_DSA_44.facts.public_key_bytes)))
    for preset in ((), ("--for", "companion")):
        said = refused(run_command("keys", "allow", "-c", config, pkh, *preset), 2)
        assert said == "tz5 keys never bake: say with --for what it is for, one of staking, registering, paying"
    assert config.read_text() == "experimental: {tz5: true}\ntezos: {}\n"
    config.write_text("tezos: {}\n")
    said = refused(run_command("keys", "allow", "-c", config, pkh, "--for", "staking"), 2)
    assert said.startswith("tz5 keys are off, as not every chain has them: write `experimental: {tz5: true}`")
    assert "To stake and to vote:\n    enclave-host keys allow " in next_steps([pkh])
    assert f"{pkh} --for staking" in next_steps([pkh])


def test_a_file_that_is_not_in_utf_8_stays_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "c"
    config.write_text("tezos: {}\n", encoding="utf-16")
    before = config.read_bytes()
    said = refused(run_command("keys", "allow", "-c", config, TZ1.pkh), 2)
    assert said == f"{config} is not in UTF-8: lines are added to no other; convert it first"
    assert config.read_bytes() == before


def test_keys_that_are_allowed_at_once_are_all_listed(tmp_path: Path) -> None:
    config = tmp_path / "c"
    config.write_text("tezos: {}\n")
    words = [sys.executable, "-m", "host_backend", "keys", "allow", "-c", str(config)]
    running = [subprocess.Popen([*words, key.pkh], cwd=ROOT, stdout=subprocess.DEVNULL) for key in FOUR]
    assert [process.wait(PATIENCE_S) for process in running] == [0, 0, 0, 0]
    assert load_config(config).policies.keys() == {key.pkh for key in FOUR}


def test_a_reload_that_takes_too_long_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", deaf]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        host.stdout.readline()
        monkeypatch.setattr(configuring, "process_on", lambda _: host.pid)
        monkeypatch.setattr(configuring, "RELOAD_WAIT_S", 0.01)
        config = tmp_path / "c"
        config.write_text(f"base_dir: {tmp_path}\n")
        with pytest.raises(EnclaveUnavailable, match="has not noted within"):
            configuring.reload_host(load_config(config))


def test_presets_are_those_of_the_page() -> None:
    said = [block.splitlines()[1:] for block in blocks(DOCS / "policies.md", "yaml")]
    made = [policy_lines(lines[0].strip(" :"), preset, MAINNET) for preset in PRESETS for lines in said]
    assert all(lines in made for lines in said)


def test_a_second_key_signs_without_a_restart(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port, {TZ1.pkh: BAKER})
    import_keys(config, TZ1)
    assert refused(run_command("reload", "-c", config), 1).startswith("no host runs on ")
    with running_host(config) as host:
        outcome = run_command("import", "-c", config, "--vault", VAULT, "-", given=TZ2.secret)
        assert outcome.code == 0
        assert outcome.stdout == f"Imported {TZ2.pkh}, in vault {VAULT}\n"
        assert f"    enclave-host keys allow {TZ2.pkh} -c {config}" in outcome.stderr.splitlines()
        assert "level=info" not in outcome.stderr
        assert run_command("keys", "allow", "-c", config, "--chain", CHAIN_ID, TZ2.pkh).code == 0
        outcome = run_command("reload", "-c", config)
        assert (outcome.code, outcome.stderr) == (0, "")
        assert outcome.stdout == f"Process {host.pid} has reloaded its policies\n"
        assert host.sign(TZ2.pkh, attestation(5)).status == 200
        config.write_text(config.read_text().rstrip("\n"))
        said = refused(run_command("reload", "-c", config), 2)
        assert said.startswith(f"process {host.pid} goes on with the old policies: the file ends within a line")
        assert host.sign(TZ2.pkh, attestation(6)).status == 200
        assert host.stop() == 0


def test_both_programs_name_their_version() -> None:
    for word in ("--version", "-V"):
        assert re.fullmatch(r"enclave-host \d+\.\d+\.\d+\S*\n", run_command(word).stdout)
