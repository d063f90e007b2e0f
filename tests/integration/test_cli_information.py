"""Commands that need no enclave: names, version, help, completion, and what authenticates a request."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enclave_signer import __version__
from host_backend.authentication import authentication_bytes
from tests.doubles.host_process import refused, run_command
from tests.doubles.known_keys import FOUR, KEYS, PAYLOADS, SIGNATORY, KnownKey
from tests.doubles.processes import PATIENCE_S, ROOT

TZ1, TZ2, TZ3, TZ4 = FOUR
REQUESTS = ["attestation", "attestation_with_dal", "block", "generic", "pack", "preattestation"]
#: As Signatory's `list-ops` prints them.
OPERATIONS = [
    "activate_account",
    "attestations_aggregate",
    "ballot",
    "dal_entrapment_evidence",
    "dal_publish_commitment",
    "delegation",
    "double_baking_evidence",
    "double_consensus_operation_evidence",
    "drain_delegate",
    "failing_noop",
    "finalize_unstake",
    "increase_paid_storage",
    "origination",
    "preattestations_aggregate",
    "proposals",
    "register_global_constant",
    "reveal",
    "seed_nonce_revelation",
    "set_delegate_parameters",
    "set_deposits_limit",
    "signature_prefix",
    "smart_rollup_add_messages",
    "smart_rollup_cement",
    "smart_rollup_execute_outbox_message",
    "smart_rollup_originate",
    "smart_rollup_publish",
    "smart_rollup_recover_bond",
    "smart_rollup_refute",
    "smart_rollup_timeout",
    "stake",
    "transaction",
    "transfer_ticket",
    "unstake",
    "update_companion_key",
    "update_consensus_key",
    "vdf_revelation",
    "zk_rollup_origination",
    "zk_rollup_publish",
    "zk_rollup_update",
]


@pytest.mark.parametrize(
    ("command", "what", "names"), [("list-requests", "request", REQUESTS), ("list-ops", "operation", OPERATIONS)]
)
def test_names(command: str, what: str, names: list[str]) -> None:
    text = f"Possible {what} types:\n" + "".join(f"    - {name}\n" for name in names)
    assert run_command(command).stdout == text
    assert json.loads(run_command(command, "--json").stdout) == {f"{what}s": names}


def test_there_are_39_operations() -> None:
    assert len(OPERATIONS) == 39


PROTOCOL_NAMES = [
    "024 PtTALLiNtPec7mE7yY4m3k26J8Qukef3E3ehzhfXgFZKGtDdAXu",
    "025 PsUshuai9QapM5TGj1JpuVGkdxz5GykdnEvS6Rh8SUVrARvZLCY",
    "alpha ProtoALphaALphaALphaALphaALphaALphaALphaALphaDdp3zK",
]


@pytest.mark.parametrize("command", ["version", "v"])
def test_version(command: str) -> None:
    outcome = run_command(command)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines() == [
        f"Release Version: {__version__}",
        f"Protocols: {', '.join(PROTOCOL_NAMES)}",
    ]
    assert json.loads(run_command(command, "--json").stdout) == {
        "version": __version__,
        "protocols": [dict(zip(("name", "hash"), name.split(), strict=True)) for name in PROTOCOL_NAMES],
    }


def test_help_needs_no_configuration(tmp_path: Path) -> None:
    expected = run_command("--help").stdout
    assert expected.startswith("Usage: enclave-host")
    nowhere = tmp_path / "nowhere.yaml"
    for words in ([], ["help"], ["-c", nowhere], ["-c", nowhere, "help"]):
        outcome = run_command(*words)
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, expected, "")
    assert run_command("help", "watermark", "raise").stdout == run_command("watermark", "raise", "--help").stdout
    for words in (["help", "nosuch"], ["help", "list", "more"], ["nosuch"]):
        outcome = run_command(*words)
        assert outcome.code == 2
        assert outcome.error.startswith("No such command")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    outcome = run_command("-c", tmp_path / "nowhere.yaml", "completion", shell)
    assert outcome.code == 0
    variable = f"_ENCLAVE_HOST_COMPLETE={shell}_complete"
    assert variable in outcome.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["gen"], {"generate"}),
        (["watermark", "r"], {"raise", "rebuild", "reset"}),
        (["generate", "--ty"], {"--type"}),
        (["generate", "--type", "tz"], {"tz1", "tz2", "tz3", "tz4"}),
    ],
)
def test_what_a_shell_is_told(typed: list[str], expected: set[str]) -> None:
    environment = {
        **os.environ,
        "_ENCLAVE_HOST_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["enclave-host", *typed]),
        "COMP_CWORD": str(len(typed)),
    }
    command = [sys.executable, "-m", "host_backend"]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert expected <= {line.partition(",")[2] for line in run.stdout.splitlines()}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["generate", "-c", "FILE", "--vault", ""], {"enclave", "spare"}),
        (["-c", "FILE", "reseal", "-v", "sp"], {"spare"}),
        (["watermark", "raise", "-c", "FILE", "NetXdQprcVkpaWU", "tz"], {TZ1.pkh}),
        (["-c", "/nowhere.yaml", "generate", "--vault", ""], set()),
        (["-c", "FOLDER", "generate", "--vault", ""], set()),
    ],
)
def test_a_shell_completes_from_the_configuration_and_is_silent_without(
    typed: list[str], expected: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "signatory.yaml"
    vaults = [
        f"{name}: {{driver: confidentialspace, config: {{host: h, storage: {{driver: file, config: /{name}.json}}}}}}"
        for name in ("enclave", "spare")
    ]
    file.write_text(f"base_dir: {tmp_path}\nvaults: {{{', '.join(vaults)}}}\ntezos: {{{TZ1.pkh}: }}\n")
    words = [word.replace("FILE", str(file)).replace("FOLDER", str(tmp_path)) for word in typed]
    environment = {
        **os.environ,
        "_ENCLAVE_HOST_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["enclave-host", *words]),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "host_backend"]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert {line.partition(",")[2] for line in run.stdout.split()} == expected
    assert run.stderr == ""


def test_a_word_that_is_close_is_suggested() -> None:
    for words, text in (
        (["keys", "allow", TZ1.pkh, "--for", "stakin"], "did you mean staking?"),
        (["watermark", "raise", "NetXdQprcVkpaWU", TZ1.pkh, "atestation", "1"], "did you mean attestation?"),
        (["genrate"], "generate"),
    ):
        assert text in run_command(*words).error
    assert "did you mean" not in run_command("keys", "allow", TZ1.pkh, "--for", "xyz").error


def test_nothing_is_told_of_an_unknown_shell() -> None:
    assert "'tcsh' is not one of" in run_command("completion", "tcsh").error


def test_the_vectors_of_authentication(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(KEYS["auth"].secret + "\n")
    secret.chmod(0o600)
    for item in SIGNATORY["authentication"]:
        message = PAYLOADS[item["payload"]] if item["payload"] else b""
        assert authentication_bytes(item["target_pkh"], message).hex() == item["authenticated_bytes_hex"]
        words = ("authenticate", item["target_pkh"], *([message.hex()] if message else []))
        outcome = run_command(*words, "--from", secret)
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, f"{item['authentication']}\n", "")
        found = json.loads(run_command(*words, "-f", "-", "--json", given=KEYS["auth"].secret).stdout)
        assert found == {
            "authentication": item["authentication"],
            "public_key": KEYS["auth"].public_key,
            "public_key_hash": KEYS["auth"].pkh,
            "signed_bytes": item["authenticated_bytes_hex"],
        }


@pytest.mark.parametrize("client", FOUR, ids=lambda key: key.name)
def test_every_curve_authenticates_and_is_verified(client: KnownKey) -> None:
    made = run_command("authenticate", TZ1.pkh, "0x0301", "-f", "-", given=client.secret).stdout.strip()
    verify = ("--verify", made, "--public-key", client.public_key)
    assert run_command("authenticate", TZ1.pkh, "0301", *verify).code == 0
    assert json.loads(run_command("authenticate", TZ1.pkh, "0301", *verify, "--json").stdout)["valid"] is True
    for pkh, message in ((TZ1.pkh, "0302"), (TZ1.pkh, ""), (TZ2.pkh, "0301")):
        outcome = run_command("authenticate", pkh, message, *verify)
        assert refused(outcome, 1) == "the signature is not this key's over this request"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        # As Signatory's own tool was meant to be called: the secret key first.
        ([TZ1.secret, TZ1.pkh], "wrong kind: got a secret key (edsk…) where a public key hash is needed"),
        ([TZ1.pkh, "xyz"], "the message must be hex, without spaces around it"),
        ([TZ1.pkh, "0x0"], "the message must be hex, without spaces around it"),
        ([TZ1.pkh, "03"], "no terminal to ask for the secret key: use --from FILE, or - for standard input"),
        (
            [TZ1.pkh, "--verify", "edsig"],
            "--verify and --public-key go together: the signature, and the key that should have made it",
        ),
        (
            [TZ1.pkh, "--public-key", TZ1.pkh],
            "--verify and --public-key go together: the signature, and the key that should have made it",
        ),
        (
            [TZ1.pkh, "--verify", "edsig", "--public-key", TZ1.pkh],
            "wrong kind: got a public key hash (tz1…) where a public key is needed",
        ),
        (
            [TZ1.pkh, "--verify", "edsig", "--public-key", TZ1.public_key],
            "invalid checksum where a signature is needed; copy it again in full",
        ),
    ],
)
def test_what_cannot_be_authenticated(words: list[str], text: str) -> None:
    outcome = run_command("authenticate", *words)
    assert refused(outcome, 2) == text
    assert TZ1.secret not in outcome.stderr
