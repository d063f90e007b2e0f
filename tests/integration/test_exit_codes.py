"""Exit codes: 2 is for the configuration and wrong usage alone; anything held, taken, missing or away is 1."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, HostError, MalformedRequest, StateConflict
from host_backend.problems import PlacedError, SeveralErrors
from host_backend.watermark.file.place import held_folder
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    base,
    run_command,
    store_file,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, FOUR
from tests.doubles.processes import PATIENCE_S, ROOT

TZ1, *_ = FOUR
MARK = (CHAIN_ID, TZ1.pkh, "block")


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, taken: int) -> Path:
    """A host with a watermark store and a mark at level 10, whose addresses are taken; no enclave runs."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        enclave = free.getsockname()[1]
    config = write_config(tmp_path_factory.mktemp("host"), enclave, {TZ1.pkh: BAKER})
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken}"))
    base(config).mkdir()
    assert run_command("watermark", "init", "-c", config).code == 0
    assert run_command("watermark", "raise", "-c", config, *MARK, "10").code == 0
    return config


#: A name that no file system takes: to a program it is as a folder that its user may not enter.
IMPOSSIBLE = f"/tmp/{'x' * 300}"


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["doctor"],
        ["watermark", "export"],
        ["watermark", "export", "--to-octez", IMPOSSIBLE],
        ["watermark", "migrate", "--from-octez", IMPOSSIBLE, "--stopped-in-order"],
        ["import", "-v", VAULT, "--from-octez", IMPOSSIBLE],
        ["backup", "create", IMPOSSIBLE],
        ["config", "init", "-c", IMPOSSIBLE],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_place_that_cannot_be_looked_at_is_no_bug(config: Path, tmp_path: Path, words: list[str]) -> None:
    elsewhere = tmp_path / "elsewhere.yaml"
    storage = f"storage: {{driver: file, config: '{tmp_path / 'keys.json'}'}}, host:"
    text = config.read_text().replace("host:", storage, 1)
    elsewhere.write_text(text.replace(str(base(config)), f"{IMPOSSIBLE}/base", 1))
    assert elsewhere.read_text().startswith(f"base_dir: {IMPOSSIBLE}")
    outcome = run_command(*(words if "-c" in words else [*words, "-c", str(elsewhere)]))
    assert outcome.code == 1, outcome.stderr
    assert "File name too long" in outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        # The configuration, and wrong usage.
        (["list", "-c", "/nowhere.yaml"], 2),
        (["lst"], 2),
        (["list", "--jsn"], 2),
        (["generate", "-v", "other"], 2),
        (["keys", "allow", TZ1.pkh, "--for", "stakin"], 2),
        (["watermark", "raise", CHAIN_ID, f"{TZ1.pkh}x", "block", "11"], 2),
        (["watermark", "raise", *MARK, "2147483648"], 2),
        # Away, taken, there already, not confirmed, refused.
        (["list"], 1),
        (["generate", "-v", VAULT], 1),
        (["reload"], 1),
        (["doctor"], 1),
        (["serve"], 1),
        (["watermark", "init"], 1),
        (["config", "init"], 1),
        (["watermark", "reset", *MARK, "1"], 1),
        (["watermark", "raise", *MARK, "9"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_the_rule(config: Path, words: list[str], code: int) -> None:
    named = words if "-c" in words else [*words, "-c", str(config)]
    outcome = run_command(*named)
    assert outcome.code == code, outcome.stderr


@contextmanager
def _damaged(config: Path) -> Iterator[None]:
    whole = store_file(config).read_bytes()
    store_file(config).write_bytes(whole[:-1])
    yield
    store_file(config).write_bytes(whole)


@contextmanager
def _missing(config: Path) -> Iterator[None]:
    path = store_file(config)
    path.rename(path.with_name("elsewhere"))
    yield
    path.with_name("elsewhere").rename(path)


@contextmanager
def _held(config: Path) -> Iterator[None]:
    with held_folder(base(config)) as claim:
        claim()
        yield


@pytest.mark.parametrize("state", [_damaged, _missing, _held])
def test_an_unusable_store_is_not_a_wrong_configuration(
    config: Path, state: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with state(config):
        outcome = run_command("watermark", "raise", "-c", config, *MARK, "11")
    assert outcome.code == 1, outcome.stderr


def test_the_daemon_keeps_the_rule(tmp_path: Path, taken: int) -> None:
    def code(*words: str) -> int:
        command = [sys.executable, "-m", "enclave_signer", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False).returncode

    key = ("--sealing-key", str(tmp_path / "key"), "--make-sealing-key")
    assert code("--nosuch") == 2
    assert code() == 2
    assert code(*key, "--listen", f"127.0.0.1:{taken}") == 1
    assert not (tmp_path / "key").exists()


def test_of_all_errors_only_those_of_the_configuration_and_of_input_have_2() -> None:
    def kinds(kind: type[HostError]) -> Iterator[type[HostError]]:
        yield kind
        for inner in kind.__subclasses__():
            yield from kinds(inner)

    wrong = {kind for kind in kinds(HostError) if kind.exit_code == 2}
    assert wrong >= {ConfigError, PlacedError, SeveralErrors, MalformedRequest}
    assert all(issubclass(kind, ConfigError | MalformedRequest) for kind in wrong)
    assert StateConflict not in wrong


def test_a_failure_is_json_too(config: Path) -> None:
    for words, code in ((["list", "--json"], 1), (["list", "--json", "--nosuch"], 2), (["doctor", "--json"], 1)):
        outcome = run_command(*words, "-c", config)
        assert outcome.code == code
        answer = json.loads(outcome.stdout)
        if words == ["doctor", "--json"]:
            assert answer["failed"] > 0
            assert "error" not in answer
        else:
            assert answer["exit"] == code
            assert outcome.error == answer["error"]
