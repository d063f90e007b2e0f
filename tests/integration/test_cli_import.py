"""`enclave-host import`: every way to hand over a secret key, and everything that is none."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.host_process import VAULT, import_keys, key_file, refused, run_command, stored_hashes, write_config
from tests.doubles.known_keys import FOUR, KnownKey
from tests.doubles.processes import ROOT, Enclave, running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with running_local_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


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
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.stderr
    assert f'msg="Successfully imported" pkh={key.pkh} vault=ConfidentialSpace' in outcome.stderr
    assert ("a secret key on the command line can be seen by others" in outcome.stderr) == (source == "argument")
    assert stored_hashes(config) == [key.pkh]
    assert key.secret not in outcome.stderr


@pytest.mark.parametrize(
    "typed", [TZ4.secret.encode() + b"\n", b"\x04", b"\x03"], ids=["key", "end of file", "interrupt"]
)
def test_import_by_prompt_shows_nothing_of_the_key(config: Path, typed: bytes) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "host_backend", "import", "-c", str(config), "--vault", VAULT]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, cwd=ROOT, start_new_session=True
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
        # The other side is closed; what was shown is still there to be read.
        shown = b""
        try:
            while part := os.read(master, 4096):
                shown += part
        except OSError:
            pass
        os.close(master)
    assert shown.strip() == b""
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
        (
            ENCRYPTED.encode(),
            "the secret key is encrypted (edesk…); decrypt it with its password first, then give it in clear",
        ),
        (TZ1.public_key.encode(), f"wrong kind: got a public key (edpk…) where {NEEDED}"),
        (TZ1.pkh.encode(), f"wrong kind: got a public key hash (tz1…) where {NEEDED}"),
        (b"x" * 5000, None),
        (b"\xff\xfe", "standard input holds no base58 secret key"),
        ("ä".encode(), "standard input holds no base58 secret key"),
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
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)))
    outcome = run_command("import", "-c", config, "--vault", VAULT, "--from", binary)
    assert refused(outcome, 2) == f"{binary} holds no base58 secret key"
    assert stored_hashes(config) == []
