"""`enclave-host import`: every way to hand over a secret key, and everything that is none."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.host_process import VAULT, import_keys, key_file, refused, run_command, stored_hashes, write_config
from tests.doubles.known_keys import FOUR, SIGNATORY, KnownKey
from tests.doubles.processes import ROOT, Enclave
from tests.doubles.terminal import drained, on_terminal

TZ1, TZ2, TZ3, TZ4 = FOUR


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    return write_config(tmp_path, local.port)


@pytest.fixture(scope="module")
def with_one_key(tmp_path_factory: pytest.TempPathFactory, local: Enclave) -> Path:
    """A configuration that no test changes."""
    config = write_config(tmp_path_factory.mktemp("one"), local.port, {TZ2.pkh: ""})
    import_keys(config, TZ2)
    return config


@pytest.mark.parametrize(
    ("key", "source"),
    [(TZ1, "file"), (TZ2, "from dash"), (TZ3, "argument"), (TZ4, "dash")],
    ids=lambda value: value.name if isinstance(value, KnownKey) else value,
)
def test_import(config: Path, tmp_path: Path, key: KnownKey, source: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"\n  {key.secret}\r\n\n")
    words: dict[str, list[str | Path]] = {
        "file": ["--from", secret],
        "dash": ["-"],
        "from dash": ["-f", "-"],
        "argument": [key.secret],
    }
    outcome = run_command("import", "-c", config, "--vault", VAULT, *words[source], given=f"{key.secret}\n")
    assert (outcome.code, outcome.stdout) == (0, f"Imported {key.pkh}, in vault {VAULT}\n"), outcome.stderr
    assert ("a secret key on the command line can be seen by others" in outcome.stderr) == (source == "argument")
    assert stored_hashes(config) == [key.pkh]
    assert key.secret not in outcome.stderr


def hear_ctrl_c() -> None:
    """Undo what a shell does to its background jobs, and these tests may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "typed", [TZ4.secret.encode() + b"\n", b"\x04", b"\x03"], ids=["key", "end of file", "interrupt"]
)
def test_import_by_prompt_shows_nothing_of_the_key(config: Path, typed: bytes) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "host_backend", "import", "-c", str(config), "--vault", VAULT]
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 -- it takes no lock
    ) as process:
        os.close(slave)
        assert process.stderr is not None
        said = b""
        # The blank after the colon comes when the terminal shows nothing any more.
        while not said.endswith(b"Enter the secret key: "):
            said += process.stderr.read(1)
        if typed == b"\x03":
            # The terminal is not the process's own, so it sends no signal.
            process.send_signal(signal.SIGINT)
        else:
            os.write(master, typed)
        said += process.stderr.read()
        shown = drained(master)
    result = f"Imported {TZ4.pkh}, in vault {VAULT}".encode()
    assert shown.strip() == (result if typed.startswith(b"BLsk") else b"")
    assert TZ4.secret.encode() not in said
    assert b"Traceback" not in said
    if typed.startswith(b"BLsk"):
        assert process.returncode == 0, said
        assert stored_hashes(config) == [TZ4.pkh]
    else:
        assert process.returncode == 1
        assert said.endswith(b"\nError: interrupted\n")
        assert stored_hashes(config) == []


def test_import_without_a_terminal_to_ask(config: Path) -> None:
    text = refused(run_command("import", "-c", config, "--vault", VAULT), 2)
    assert text == "no terminal to ask for the secret key: use --from FILE, or - for standard input"


def test_importing_a_key_twice_keeps_one_entry(config: Path) -> None:
    import_keys(config, TZ1, TZ2)
    before = key_file(config).read_bytes()
    import_keys(config, TZ1)
    import_keys(config, TZ2, TZ2)
    assert key_file(config).read_bytes() == before
    assert stored_hashes(config) == [TZ1.pkh, TZ2.pkh]


def test_importing_several_keys_keeps_their_order(config: Path) -> None:
    import_keys(config, TZ4, TZ1)
    import_keys(config, TZ3, TZ2)
    assert stored_hashes(config) == [TZ4.pkh, TZ1.pkh, TZ3.pkh, TZ2.pkh]


def test_a_wallet_is_imported_whole_or_not_at_all(config: Path, tmp_path: Path) -> None:
    keys = [{"name": key.name, "value": f"unencrypted:{key.secret}"} for key in (TZ1, TZ4)]
    wallet = tmp_path / "secret_keys"
    wallet.write_text(json.dumps([*keys, {"name": "device", "value": "ledger://a-b-c-d/ed25519/0h/0h"}]))
    wallet.chmod(0o600)
    error = refused(run_command("import", "-c", config, "--vault", VAULT, "--from", wallet), 2)
    assert error == "secret key 3: this is the address of a key in a Ledger: it cannot be taken out of the device"
    assert not key_file(config).exists()
    wallet.write_text(json.dumps(keys))
    assert run_command("import", "-c", config, "--vault", VAULT, "--from", wallet).code == 0
    assert stored_hashes(config) == [TZ1.pkh, TZ4.pkh]
    error = refused(run_command("authenticate", TZ1.pkh, "03ab", "--from", wallet), 2)
    assert error == "there are 2 secret keys: give only the client's"


WRONG_CHECKSUM = TZ1.secret[:-1] + ("1" if TZ1.secret[-1] != "1" else "2")
ENCRYPTED = "edesk1GXwWmGjXiLHBKxGBxwmNvG21vKBh6FBxc4CyJ8adQQE2avP5vBB57ZUZ93Anm7i4k8RmsHaPzVAvpnHkFF"
NEEDED = "a secret key or an encrypted secret key is needed"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"", f"empty text where {NEEDED}"),
        (b"\n", f"empty text where {NEEDED}"),
        (b"notakey", None),
        (WRONG_CHECKSUM.encode(), f"invalid checksum where {NEEDED}; copy it again in full"),
        (TZ1.secret[:-7].encode(), f"invalid checksum where {NEEDED}; copy it again in full"),
        (TZ1.secret[1:].encode(), f"invalid checksum where {NEEDED}; copy it again in full"),
        (
            TZ1.secret.replace("e", "0", 1).encode(),
            f"invalid character where {NEEDED}; base58 has no 0, O, I, l and no spaces",
        ),
        (
            f"{TZ1.secret} {TZ2.secret}".encode(),
            f"invalid character where {NEEDED}; base58 has no 0, O, I, l and no spaces",
        ),
        (ENCRYPTED.encode(), "no terminal to ask for the password: use --password-file FILE"),
        (TZ1.public_key.encode(), f"wrong kind: got a public key (edpk…) where {NEEDED}"),
        (TZ1.pkh.encode(), f"wrong kind: got a public key hash (tz1…) where {NEEDED}"),
        (b"x" * 5000, None),
        (b"\xff\xfe", "neither base58 nor PEM nor DER: this is not a secret key"),
        (b"-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n", None),
    ],
)
def test_imports_of_what_is_no_secret_key(with_one_key: Path, given: bytes, text: str | None) -> None:
    before = key_file(with_one_key).read_bytes()
    outcome = run_command("import", "-c", with_one_key, "--vault", VAULT, "-", given=given)
    error = refused(outcome, 2)
    assert text is None or error == text
    assert key_file(with_one_key).read_bytes() == before
    assert b"".join(given.split()).decode("latin-1") not in outcome.stderr or not given.strip()


def test_a_bad_key_among_several_stops_all(config: Path) -> None:
    outcome = run_command("import", "-c", config, "--vault", VAULT, TZ1.secret, WRONG_CHECKSUM)
    assert refused(outcome, 2) == f"secret key 2: invalid checksum where {NEEDED}; copy it again in full"
    assert stored_hashes(config) == []


def test_imports_from_files_that_cannot_be_read(config: Path, tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nowhere", "No such file or directory"), (tmp_path, "Is a directory")):
        outcome = run_command("import", "-c", config, "--vault", VAULT, "--from", path)
        assert refused(outcome, 2) == f"{path} cannot be read: {reason}"
        for way in (TZ1.secret, "-"):
            outcome = run_command("import", "-c", config, "--vault", VAULT, "--password-file", path, way)
            assert refused(outcome, 2) == f"{path} cannot be read: {reason}"
    assert stored_hashes(config) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"x" * 1025])
def test_password_files_that_hold_no_password(config: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    outcome = run_command("import", "-c", config, "--vault", VAULT, "--password-file", file, ENCRYPTED)
    assert refused(outcome, 2) == f"{file} must hold one line with the password, of at most 1024 bytes"


def test_import_of_encrypted_keys(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    for password, ending in (("test", "\n"), ("correct horse", "\r\n")):
        file.write_text(password + ending)
        items = [
            item
            for member in ("encrypted_secret_keys", "encrypted_secret_keys_derived")
            for item in SIGNATORY[member]
            if item["password"] == password
        ]
        words = ("--password-file", file, *(item["encrypted"] for item in items))
        outcome = run_command("import", "-c", config, "--vault", VAULT, *words)
        assert outcome.code == 0, outcome.stderr
        assert stored_hashes(config)[-len(items) :] == [item["pkh"] for item in items]
    assert len(stored_hashes(config)) == 5


def test_import_of_pem_files(config: Path, tmp_path: Path) -> None:
    for item in SIGNATORY["pem_keys"]:
        file = tmp_path / "key.pem"
        file.write_text("\n# the old key\n" + item["pkcs8_pem"])
        assert run_command("import", "-c", config, "--vault", VAULT, "--from", file).code == 0
        der = base64.b64decode("".join(item["pkcs8_pem"].splitlines()[1:-1]))
        assert run_command("import", "-c", config, "--vault", VAULT, "-", given=der).code == 0
    assert stored_hashes(config) == [item["pkh"] for item in SIGNATORY["pem_keys"]]


def test_a_password_as_an_argument(config: Path) -> None:
    words = ("import", "-c", config, "-v", VAULT, "--from", "-", "--password")
    outcome = run_command(*words, "wrong", given=ENCRYPTED)
    assert refused(outcome, 2) == "the password is wrong"
    assert "a password on the command line can be seen by others" in outcome.stderr
    assert run_command(*words, "test", given=ENCRYPTED).code == 0
    outcome = run_command(*words, "test", "--password-file", config, given=ENCRYPTED)
    assert refused(outcome, 2) == "--password and --password-file are both given: use one"


@pytest.mark.parametrize("password", ["test", "wrong"])
def test_a_password_by_prompt_is_not_shown(config: Path, password: str) -> None:
    shown, said, code = answered(config, [ENCRYPTED, password])
    assert shown.strip() == b"".join(f"Imported {pkh}, in vault {VAULT}".encode() for pkh in stored_hashes(config))
    assert ENCRYPTED.encode() not in said
    assert b"Enter the password: " in said
    if password == "test":
        assert (code, len(stored_hashes(config))) == (0, 1)
    else:
        assert code == 2
        assert said.endswith(b"\nError: the password is wrong\n")
        assert b"wrong" not in said.replace(b"the password is wrong", b"")


def answered(config: Path, answers: Sequence[str]) -> tuple[bytes, bytes, int]:
    """Import on a terminal, answering one question after the other; return what it showed, what was said, the code."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "host_backend", "import", "-c", str(config), "--vault", VAULT]
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 -- it takes no lock
    ) as process:
        os.close(slave)
        assert process.stderr is not None
        said = b""
        for number, answer in enumerate(answers, start=1):
            # The blank after the colon comes when the terminal shows nothing any more.
            while said.count(b": ") < number or not said.endswith(b": "):
                said += process.stderr.read(1)
            os.write(master, answer.encode() + b"\n")
        said += process.stderr.read()
        shown = drained(master)
    return shown, said, process.returncode


def test_json_tells_what_became_of_each_key(config: Path) -> None:
    words = ("import", "-c", config, "--vault", VAULT, "--json", TZ1.secret, TZ2.secret, TZ1.secret)
    outcome = run_command(*words)
    assert json.loads(outcome.stdout) == {
        "keys": [
            {"public_key_hash": TZ1.pkh, "vault": VAULT, "outcome": "imported"},
            {"public_key_hash": TZ2.pkh, "vault": VAULT, "outcome": "imported"},
            {"public_key_hash": TZ1.pkh, "vault": VAULT, "outcome": "already stored"},
        ]
    }
    assert "marks do not move with an imported key" in outcome.stderr
    again = run_command(*words)
    assert again.code == 0
    assert again.stdout.count('"already stored"') == 3
    assert "marks do not move" not in again.stderr


@pytest.mark.parametrize("item", [item for item in SIGNATORY["option_map_cases"] if item["item"] == ","])
def test_options_for_other_vaults_are_read_and_mean_nothing(config: Path, item: dict[str, Any]) -> None:
    outcome = run_command(
        "import", "--log", "info", "-c", config, "--vault", VAULT, "-o", item["text"], "-", given=TZ1.secret
    )
    if "error" in item:
        assert refused(outcome, 2) == f"--opt: {item['error']}"
        assert stored_hashes(config) == []
    else:
        assert outcome.code == 0
        assert '--opt means nothing to this kind of vault" options="name1, name2"' in outcome.stderr


def test_progress_is_shown_on_a_terminal_only(config: Path) -> None:
    keys = [TZ1.secret, TZ2.secret]
    words = ["import", "--log", "info", "-c", str(config), "--vault", VAULT]
    piped = run_command(*words, *keys).stderr
    assert "importing keys" not in piped
    assert "\x1b" not in piped
    assert b"importing keys" not in on_terminal([*words, keys[0]])
    shown = on_terminal([*words, *keys])
    assert b"importing keys" in shown
    assert b"2/2" in shown
    # Every line of the log stands on a line of its own, from its beginning.
    lines = [line.rpartition(b"\r\x1b[2K")[2] for line in shown.split(b"\r\n") if b"level=info" in line]
    assert lines
    assert all(line.startswith(b'time="') for line in lines)
