"""`enclave-host doctor`: what it finds, beside a running host and without one, and that it leaves nothing behind."""

import json
import re
import socket
from pathlib import Path

import pytest

from host_backend.watermark.file.place import require_file_system
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    base,
    import_keys,
    in_use_file,
    key_file,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import Enclave
from tests.doubles.terminal import on_terminal

TZ1, TZ2, TZ3, TZ4 = FOUR
ENCLAVE = f"enclave of vault {VAULT}"
KEY_FILE = f"key file of vault {VAULT}"


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    config = write_config(tmp_path, local.port, {TZ1.pkh: BAKER})
    import_keys(config, TZ1, TZ2)
    return config


def examined(config: Path, code: int) -> list[tuple[str, str, str]]:
    """Run the doctor; return check, state and text of each line, which must be told alike in both forms."""
    outcome = run_command("doctor", "-c", config, "--json")
    assert outcome.code == code, outcome.stderr
    found = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert all(list(check) == ["check", "state", "text"] for check in found)
    checks = [(check["check"], check["state"], check["text"]) for check in found]
    plain = run_command("doctor", "-c", config)
    assert plain.code == code
    heads = [f"{state}: {name}: " for name, state, _ in checks]
    assert all(map(str.startswith, plain.stdout.splitlines(), heads))
    assert len(plain.stdout.splitlines()) == len(heads)
    assert (code == 1) == any(state == "failed" for _, state, _ in checks)
    return checks


def texts(checks: list[tuple[str, str, str]], name: str, state: str) -> list[str]:
    return [text for found, how, text in checks if (found, how) == (name, state)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_all_is_well(config: Path) -> None:
    before = contents(config.parent)
    checks = examined(config, 0)
    # Temporary folders may be in memory, or in a container's layer.
    warning = require_file_system(store_file(config), in_memory_allowed=True)
    assert texts(checks, "watermarks", "warning") == ([] if warning is None else [warning])
    assert {name for name, state, _ in checks if state != "ok"} <= (
        set() if warning is None else {"watermarks", "disk"}
    )
    assert texts(checks, ENCLAVE, "ok")[0].endswith("answers, 2 keys opened and compared")
    assert texts(checks, KEY_FILE, "ok") == [f"{key_file(config)}: 2 keys"]
    assert texts(checks, "watermarks", "ok") == ["0 marks, all whole; no host runs"]
    ((_, text),) = [(state, text) for name, state, text in checks if name == "disk"]
    assert re.match(rf"syncing {base(config)} takes \d+\.\d (ms, \d+\.\d ms|µs) at most", text)
    assert "whether it is right cannot be known from here" in texts(checks, "clock", "ok")[0]
    assert texts(checks, "curves", "ok") == ["all give their known answers"]
    assert texts(checks, "server.address", "ok") == ["127.0.0.1:0: this machine only"]
    assert contents(config.parent) == before


def test_opening_many_keys_shows_how_far_it_is_on_a_terminal(config: Path) -> None:
    shown = on_terminal(["doctor", "-c", str(config)])
    assert b"opening keys" in shown
    assert b"2/2" in shown
    assert "opening keys" not in run_command("doctor", "-c", config).stderr


def test_beside_a_running_host(config: Path) -> None:
    with running_host(config) as host:
        assert host.sign(TZ1.pkh, attestation(1)).status == 200
        checks = examined(config, 0)
        assert texts(checks, "watermarks", "ok") == [f"1 marks, all whole; in use by process {host.pid}"]
        # It goes on as before.
        assert host.sign(TZ1.pkh, attestation(2)).status == 200
        assert host.health() == (200, {"ready": True})
        assert host.stop() == 0


def test_after_a_host_that_was_killed(config: Path) -> None:
    with running_host(config) as host:
        assert host.sign(TZ1.pkh, attestation(3)).status == 200
        host.discard()
    before = contents(config.parent)
    text = texts(examined(config, 0), "watermarks", "warning")[-1]
    assert text.startswith("1 marks, all whole; the last host did not end in order: ")
    assert contents(config.parent) == before
    # A store that is lost is told, and looking makes none in its place.
    store_file(config).unlink()
    (text,) = texts(examined(config, 1), "watermarks", "failed")
    assert text.startswith(
        f"no watermark store at {store_file(config)}, though the last host here did not end in order"
    )
    assert "`enclave-host watermark rebuild --above-level N`" in text
    assert not store_file(config).exists()
    assert in_use_file(config).exists()


def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    checks = examined(tmp_path / "nowhere.yaml", 1)
    assert [name for name, _, _ in checks] == ["configuration", "curves", "clock"]
    assert checks[0][1:] == ("failed", f"{tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory")


def test_a_new_installation(tmp_path: Path, local: Enclave) -> None:
    checks = examined(write_config(tmp_path, local.port, {TZ3.pkh: ""}), 0)
    for name in ("base_dir", KEY_FILE, "watermarks", "disk"):
        assert "not there yet" in texts(checks, name, "warning")[0] or name == "watermarks"
    assert texts(checks, "watermarks", "warning")[0].startswith("no store yet: the first generate, import or")
    assert texts(checks, "keys", "warning") == [f"under `tezos` and ready in no vault: {TZ3.pkh}: they cannot sign"]
    assert not (tmp_path / "host").exists()


def test_an_enclave_that_is_away(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = re.sub(r"port: \d+\}", f"port: {port}}}", config.read_text())
    config.write_text(text)
    checks = examined(config, 1)
    (text,) = texts(checks, ENCLAVE, "failed")
    assert text.startswith(f"the enclave at 127.0.0.1:{port} cannot be reached: Connection refused: ")
    assert text.endswith(f"start enclave-signer, or correct vaults.{VAULT}.config")
    # All else is looked at nevertheless.
    assert texts(checks, "disk", "ok")


def test_a_key_out_of_service_and_one_that_stands_twice(config: Path) -> None:
    stored = json.loads(key_file(config).read_text())
    stored[0]["encrypted_private_key"] = stored[1]["encrypted_private_key"]
    key_file(config).write_text(json.dumps([*stored, stored[1]]))
    checks = examined(config, 1)
    (text,) = texts(checks, ENCLAVE, "failed")
    assert text.startswith(f"{TZ1.pkh} is out of service: its blob holds another key")
    assert texts(checks, ENCLAVE, "ok")[0].endswith("answers, 1 keys opened and compared")
    assert texts(checks, KEY_FILE, "warning") == [f"{TZ2.pkh} stand there several times: one good entry is enough"]
    assert texts(checks, "keys", "warning") == [f"under `tezos` and ready in no vault: {TZ1.pkh}: they cannot sign"]


def test_files_that_others_can_reach(config: Path) -> None:
    folder = base(config)
    folder.chmod(0o755)
    key_file(config).chmod(0o620)
    checks = examined(config, 1)
    assert texts(checks, "base_dir", "warning") == [f"{folder} can be read by others: chmod go-rwx {folder}"]
    file = key_file(config)
    assert texts(checks, KEY_FILE, "failed") == [f"{file} can be changed by others: chmod go-rwx {file}"]


def test_files_that_are_not_what_they_should_be(config: Path) -> None:
    key_file(config).write_text("{")
    store_file(config).write_bytes(b"no store, but long enough to be looked at" * 4)
    checks = examined(config, 1)
    assert "is not JSON" in texts(checks, KEY_FILE, "failed")[0]
    (text,) = texts(checks, "watermarks", "failed")
    assert text.startswith(f"watermark store {store_file(config)}: neither of its two headers is whole: ")
    assert "`enclave-host watermark rebuild --above-level N`" in text
    assert "is not JSON" in texts(checks, ENCLAVE, "failed")[0]


def test_a_base_dir_that_is_no_folder(config: Path) -> None:
    file = config.with_name("file")
    file.write_text("")
    lines = run_command("doctor", "-c", config, "--base-dir", file).stdout.splitlines()
    assert (
        f"failed: base_dir: {file} is no folder that this user may write to: run as its owner, or correct base_dir"
        in lines
    )


def test_a_lost_store(config: Path) -> None:
    store = store_file(config)
    store.unlink()
    (text,) = texts(examined(config, 1), "watermarks", "failed")
    assert text.startswith(f"no store in {store.parent}: ")
    assert "`enclave-host watermark init`" in text
    folder = store.with_name("watermark_v2")
    folder.mkdir()
    state = {"level": 100, "round": 2, "hash": None}
    (folder / "NetXo5iVw1vBoxM.json").write_text(json.dumps({TZ2.pkh: {"block": state}}))
    assert texts(examined(config, 0), "watermarks", "ok") == [
        "no store yet: the first serve makes one of the 1 marks that others left"
    ]
    assert not store.exists()


def test_what_is_open_to_other_machines(config: Path) -> None:
    config.write_text(config.read_text().replace("'127.0.0.1:0'", "':0'"))
    checks = examined(config, 0)
    assert "whoever reaches it may have signed what the policy allows" in texts(checks, "server.address", "warning")[0]
    assert texts(checks, "server.utility_address", "warning") == [
        ":0 is open to other machines: let a firewall say which"
    ]


def test_warnings_of_the_configuration_are_told(config: Path) -> None:
    config.write_text(config.read_text().replace("attestation: ,", "endorsement: ,", 1))
    assert any("old name" in text for text in texts(examined(config, 0), "configuration", "warning"))
