"""`enclave-host` as processes: what its commands print, keep, refuse, and exit with."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.host_process import (
    VAULT,
    Outcome,
    base,
    import_keys,
    key_file,
    refused,
    run_command,
    running_host,
    store_file,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, FOUR
from tests.doubles.processes import ROOT, Enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
HASH = r"tz[1-4][1-9A-HJ-NP-Za-km-z]{33,34}"


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    return write_config(
        tmp_path, local.port, {TZ1.pkh: "{allow: {block: , generic: [transaction, reveal]}}", TZ2.pkh: ""}
    )


def entry(pkh: str, public_key: str, *policy: str) -> str:
    """Return the text printed for a key, in Signatory's form."""
    lines = [
        f"Public Key Hash:           {pkh}",
        f"Public Key:                {public_key}",
        "Vault:                     ConfidentialSpace",
        f"Active:                    {'true' if policy else 'false'}",
        *policy,
    ]
    return "\n".join(lines) + "\n\n"


@pytest.mark.parametrize(
    ("kind", "pkh", "public_key"),
    [
        ("tz1", "tz1", "edpk"),
        ("ed25519", "tz1", "edpk"),
        ("tz2", "tz2", "sppk"),
        ("secp256k1", "tz2", "sppk"),
        ("tz3", "tz3", "p2pk"),
        ("p256", "tz3", "p2pk"),
        ("tz4", "tz4", "BLpk"),
        ("bls", "tz4", "BLpk"),
    ],
)
def test_generate(config: Path, kind: str, pkh: str, public_key: str) -> None:
    outcome = run_command("generate", "-c", config, "-n", "2", "-t", kind, "-v", VAULT)
    assert outcome.code == 0, outcome.stderr
    form = entry(f"({pkh}\\w{{33,34}})", f"({public_key}\\w+)")
    found = re.fullmatch(form * 2, outcome.stdout)
    assert found, outcome.stdout
    assert stored_hashes(config) == [found[1], found[3]]
    assert run_command("list", "-c", config).stdout == outcome.stdout


def test_generate_makes_one_tz1_key_unless_told_otherwise(config: Path) -> None:
    outcome = run_command("generate", "--config", config, "--vault", VAULT)
    assert re.fullmatch(entry("tz1\\w{33}", "edpk\\w+"), outcome.stdout)
    assert key_file(config).stat().st_mode & 0o777 == 0o600
    assert key_file(config).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("command", ["generate", "import"])
def test_vaults_that_are_not_named_well(config: Path, command: str) -> None:
    words = [TZ1.secret] if command == "import" else []
    outcome = run_command(command, "-c", config, "--vault", "nosuch", *words)
    assert refused(outcome, 2) == f"vault nosuch is not found, the configuration has: {VAULT}"
    second = "other: {driver: confidentialspace, config: {host: 127.0.0.1, port: 1, storage: {config: other.json}}}"
    config.write_text(config.read_text().replace("tezos:", f"  {second}\ntezos:"))
    outcome = run_command(command, "-c", config, *words)
    assert refused(outcome, 2) == f"name a vault with --vault, the configuration has: {VAULT}, other"
    assert stored_hashes(config) == []


def test_the_only_vault_needs_no_name(config: Path) -> None:
    assert run_command("generate", "-c", config).code == 0
    assert run_command("import", "-c", config, "-", given=TZ1.secret).stdout.endswith(f"in vault {VAULT}\n")
    assert len(stored_hashes(config)) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "-v", VAULT, "-t", "tz9"],
        ["generate", "-v", VAULT, "-n", "0"],
        ["generate", "-v", VAULT, "-n", "x"],
        ["list", "--nosuch"],
        ["list", "--log", "loud"],
        ["nosuch"],
        ["watermark", "raise", CHAIN_ID, TZ1.pkh, "endorsement", "1"],
        ["watermark", "raise", CHAIN_ID, TZ1.pkh, "block"],
    ],
)
def test_words_that_mean_nothing(config: Path, words: list[str]) -> None:
    outcome = run_command("-c", config, *words)
    assert outcome.code == 2
    assert outcome.error
    assert "Traceback" not in outcome.stderr
    assert not base(config).exists()


@pytest.mark.parametrize("words", [["generate", "-v", VAULT], ["import", "--vault", VAULT, "-"], ["list"]])
def test_an_enclave_that_cannot_be_reached(tmp_path: Path, words: list[str]) -> None:
    config = write_config(tmp_path, 1)
    before = files(tmp_path)
    outcome = run_command(*words, "-c", config, given=TZ1.secret)
    fix = ": start enclave-signer" if words == ["list"] else ""
    assert refused(outcome, 1) == f"the enclave at 127.0.0.1:1 cannot be reached: Connection refused{fix}"
    # No store, no key file: the next try begins where this one did.
    assert files(tmp_path) == before


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_list(config: Path) -> None:
    outcome = run_command("list", "-c", config)
    assert (outcome.code, outcome.stdout) == (0, "")
    assert f'level=error msg="No valid keys found in the vault {VAULT}"' in outcome.stderr
    import_keys(config, TZ3, TZ2, TZ1)
    outcome = run_command("list", "-c", config)
    requests = "Allowed Requests:          [block generic]"
    operations = "Allowed Operations:        [reveal transaction]"
    proof = "Allow Proof of Possession: false"
    assert outcome.stdout == (
        entry(TZ3.pkh, TZ3.public_key)
        + entry(
            TZ2.pkh,
            TZ2.public_key,
            "Allowed Requests:          [attestation block preattestation]",
            "Allowed Operations:        []",
            proof,
        )
        + entry(TZ1.pkh, TZ1.public_key, requests, operations, proof)
    )


def test_flags_may_stand_before_and_after_the_command(config: Path, tmp_path: Path) -> None:
    import_keys(config, TZ1)
    expected = run_command("list", "-c", config).stdout
    assert expected
    assert run_command("-c", config, "list").stdout == expected
    assert run_command("--config", config, "--log", "error", "list").stderr == ""
    assert run_command("list", "--log", "error", "-c", config).stderr == ""
    # What stands nearer to the command wins.
    assert (
        run_command("-c", tmp_path / "nowhere", "--log", "debug", "list", "-c", config, "--log", "error").stderr == ""
    )
    other = str(tmp_path / "other")
    for words in (["--base-dir", other, "list"], ["list", "--base-dir", other]):
        assert "No valid keys found" in run_command("-c", config, *words).stderr
    for words in (["-c", str(config), "watermark", "init"], ["watermark", "-c", str(config), "init"]):
        assert "a watermark store is never overwritten" in run_command(*words).error


def test_json_log(config: Path) -> None:
    import_keys(config, TZ1)
    for words in (
        ["--json-log", "--log", "info", "list"],
        ["list", "--log", "info", "--json-log"],
        ["import", "--log", "info", "--vault", VAULT, "--json-log", TZ1.secret],
    ):
        lines = run_command("-c", config, *words).stderr.splitlines()
        assert lines
        for line in lines:
            assert {"level", "msg", "time"} <= json.loads(line).keys()
    with running_host(config, "--json-log") as host:
        host.stop()
        messages = [json.loads(line)["msg"] for line in host.log.splitlines()]
    assert messages[-1] == "stopped"
    assert [message for message in messages if message.startswith(("Captured", "Shutting"))] == [
        "Captured terminated",
        "Shutting down...",
    ]
    assert not [message for message in messages if "\n" in message]


def test_the_path_of_a_configuration_is_taken_as_it_is(tmp_path: Path, local: Enclave) -> None:
    # A file by that name is read; nothing is replaced for the check and then not for the reading.
    folder = tmp_path / "$HOME"
    folder.mkdir()
    config = write_config(folder, local.port)
    assert run_command("config", "check", "-c", config).code == 0
    nowhere = tmp_path / "$HOME" / "nowhere.yaml"
    assert refused(run_command("config", "check", "-c", nowhere), 2).startswith(f"{nowhere}: cannot be read")


@pytest.mark.parametrize("words", [[], ["--no-list"]])
def test_the_keys_are_listed_at_the_start_unless_told_otherwise(config: Path, words: list[str]) -> None:
    import_keys(config, TZ1, TZ4)
    with running_host(config, *words) as host:
        assert host.health() == (200, {"ready": True, "degraded": [f"{TZ2.pkh}: in no vault"]})
        assert host.stop() == 0
        # One that is not listed under `tezos` signs nothing.
        assert TZ4.pkh not in host.log
        assert (f'msg="key ready" active=true pkh={TZ1.pkh} vault={VAULT}' in host.log) == (words == [])


def test_list_and_generate_print_json(config: Path) -> None:
    generated = run_command("generate", "-c", config, "-v", VAULT, "-n", "2", "--json")
    import_keys(config, TZ1, TZ2)
    listed = run_command("list", "-c", config, "--json")
    keys = json.loads(listed.stdout)["keys"]
    assert keys[:2] == json.loads(generated.stdout)["keys"]
    assert [key["public_key_hash"] for key in keys] == stored_hashes(config)
    common = {"vault": VAULT, "out_of_service": None}
    assert keys[2] == {
        **common,
        "public_key_hash": TZ1.pkh,
        "public_key": TZ1.public_key,
        "active": True,
        "allowed_requests": ["block", "generic"],
        "allowed_operations": ["reveal", "transaction"],
        "allowed_chains": None,
        "allow_proof_of_possession": False,
    }
    assert (keys[0]["active"], keys[0]["allowed_requests"]) == (False, None)
    stored = json.loads(key_file(config).read_text())
    stored[2]["encrypted_private_key"] = stored[3]["encrypted_private_key"]
    key_file(config).write_text(json.dumps(stored))
    last = json.loads(run_command("list", "-c", config, "--json").stdout)["keys"][-1]
    assert last == {
        "public_key_hash": TZ1.pkh,
        "vault": VAULT,
        "out_of_service": f"its blob holds another key, {TZ2.pkh}",
    }


def test_configurations_that_cannot_be_used(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.yaml"
    for command in ("serve", "list"):
        outcome = run_command(command, "-c", nowhere)
        assert refused(outcome, 2) == f"{nowhere}: cannot be read: No such file or directory"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("server:\n  adress: ':1'\n")
    outcome = run_command("serve", "-c", wrong)
    assert refused(outcome, 2) == f"{wrong}:2: server.adress: unknown field, did you mean address?"


def test_warnings_of_the_configuration_are_logged(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port, {TZ1.pkh: "{allow: {endorsement: }}"})
    stderr = run_command("list", "-c", config).stderr
    assert (
        f"level=warning msg=\"tezos.{TZ1.pkh}.allow.endorsement: 'endorsement' is the old name of 'attestation'\""
        in stderr
    )


def test_keys_without_a_watermark_store_do_not_start(config: Path) -> None:
    import_keys(config, TZ1)
    store_file(config).unlink()
    text = refused(run_command("serve", "-c", config), 1)
    assert text.startswith(f"no watermark store at {store_file(config)}: ")
    assert "`enclave-host watermark init`" in text
    assert "`enclave-host watermark rebuild --above-level N`" in text
    # Nor does another key make one: the keys that are there may have signed.
    assert run_command("import", "-c", config, "--vault", VAULT, TZ2.secret).code == 0
    refused(run_command("serve", "-c", config), 1)
    assert run_command("watermark", "init", "-c", config).code == 0
    with running_host(config) as host:
        assert host.health() == (200, {"ready": True})


def test_one_folder_has_one_host(config: Path) -> None:
    import_keys(config, TZ1)
    with running_host(config) as host:
        text = refused(run_command("serve", "-c", config), 1)
        assert text == (
            f"{base(config)} is in use by process {host.pid} (lock file watermark.lock): stop it first, or use another folder"
        )
        raised = run_command("watermark", "raise", "-c", config, CHAIN_ID, TZ1.pkh, "block", "5")
        assert refused(raised, 1) == text
        # Other commands go on.
        assert run_command("list", "-c", config).code == 0
        assert host.health() == (200, {"ready": True, "degraded": [f"{TZ2.pkh}: in no vault"]})


def test_an_address_that_is_taken(config: Path) -> None:
    import_keys(config, TZ1)
    with running_host(config) as host:
        other = config.with_name("other.yaml")
        other.write_text(config.read_text().replace("address: '127.0.0.1:0'", f"address: '127.0.0.1:{host.port}'", 1))
        outcome = run_command("serve", "-c", other, "--base-dir", config.parent / "second")
        assert outcome.code == 2
        assert run_command("watermark", "init", "-c", other, "--base-dir", config.parent / "second").code == 0
        outcome = run_command("serve", "-c", other, "--base-dir", config.parent / "second")
        assert refused(outcome, 1) == f"cannot listen on 127.0.0.1:{host.port}: Address already in use"


def test_watermark_init(config: Path) -> None:
    store = store_file(config)
    outcome = run_command("watermark", "init", "-c", config)
    assert (outcome.code, outcome.stdout) == (0, f"Made the watermark store in {store.parent}\n")
    assert store.stat().st_mode & 0o777 == 0o600
    # Room for two headers, and for both copies of 256 slots.
    assert store.stat().st_size == (2 + 2 * 256) * 4096
    before = store.read_bytes()
    text = refused(run_command("watermark", "init", "-c", config), 1)
    assert text == (
        f"{store} exists and has 0 marks: a watermark store is never overwritten, and there is nothing to make"
    )
    assert store.read_bytes() == before


def test_watermark_raise(config: Path) -> None:
    def watermark_raise(*words: str) -> Outcome:
        return run_command("watermark", "raise", "-c", config, *words)

    assert "is not a folder: make it, or correct base_dir" in refused(
        watermark_raise(CHAIN_ID, TZ1.pkh, "block", "1"), 2
    )
    import_keys(config, TZ1)
    assert watermark_raise(CHAIN_ID, TZ1.pkh, "block", "100").code == 0
    assert watermark_raise(CHAIN_ID, TZ1.pkh, "block", "100", "--round", "3").code == 0
    for level, round_ in (("100", "3"), ("100", "0"), ("99", "9")):
        text = refused(watermark_raise(CHAIN_ID, TZ1.pkh, "block", level, "--round", round_), 1)
        assert "moves only up" in text
    assert "both must be from 0 to 2147483647" in refused(watermark_raise(CHAIN_ID, TZ1.pkh, "block", "2147483648"), 2)
    for chain_id, pkh in (
        (CHAIN_ID[:-1], TZ1.pkh),
        ("mainnet", TZ1.pkh),
        (CHAIN_ID, TZ1.pkh[:-1]),
        (CHAIN_ID, TZ1.secret),
    ):
        outcome = watermark_raise(chain_id, pkh, "block", "200")
        assert refused(outcome, 2)
        assert TZ1.secret not in outcome.stderr


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["-h"], ["help"], ["serve", "--help"], ["import", "--help"], ["help", "doctor"]]
)
def test_help_reads_no_configuration_and_load_little(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "host_backend", *words]
    # What measures coverage loads modules of its own into every process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}
    assert "click" in loaded
    heavy = {"cryptography", "nacl", "coincurve", "ckzg", "cffi", "cbor2", "base58", "uvicorn", "uvloop", "starlette"}
    assert not loaded & (heavy | {"httptools", "yaml", "sqlite3", "_sqlite3", "asyncio", "ssl", "trio"})
    assert outcome.stdout
