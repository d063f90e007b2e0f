"""`enclave-host doctor`: what it finds, beside a running host and without one, and that it leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from host_backend.watermark.file.place import require_file_system
from tests.doubles.certificates import Authority
from tests.doubles.client_certificates import unreadable_certificate
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
from tests.doubles.processes import Enclave, running_local_enclave
from tests.doubles.terminal import on_terminal

TZ1, TZ2, TZ3, TZ4 = FOUR
ENCLAVE = f"enclave of vault {VAULT}"
IMPATIENT = "tests.doubles.impatient_host"
KEY_FILE = f"key file of vault {VAULT}"


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    config = write_config(tmp_path, local.port, {TZ1.pkh: BAKER})
    import_keys(config, TZ1, TZ2)
    return config


def examined(config: Path, code: int, module: str = "host_backend") -> list[tuple[str, str, str]]:
    """Run the doctor; return check, state and text of each line, which must be the same in both forms."""
    outcome = run_command("doctor", "-c", config, "--json", module=module)
    assert outcome.code == code, outcome.stderr
    answer = json.loads(outcome.stdout)
    found = answer["checks"]
    assert all(list(check) == ["check", "state", "text"] for check in found)
    checks = [(check["check"], check["state"], check["text"]) for check in found]
    plain = run_command("doctor", "-c", config, module=module)
    assert plain.code == code
    heads = [f"{state}: {name}: " for name, state, _ in checks]
    *lines, summary = plain.stdout.splitlines()
    assert all(map(str.startswith, lines, heads))
    assert len(lines) == len(heads)
    failed = sum(state == "failed" for _, state, _ in checks)
    assert summary.startswith(f"{len(checks)} checks: {failed} failed, ")
    assert answer["failed"] == failed
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
    fix = "right for keys that have never signed; for others, `enclave-host watermark raise`"
    assert texts(checks, "keys without a mark", "ok") == [f"{TZ1.pkh}: {fix}"]
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
        assert texts(checks, "watermarks", "ok") == [f"1 mark, all whole; in use by process {host.pid}"]
        assert texts(checks, "keys without a mark", "ok") == []
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
    assert text.startswith("1 mark, all whole; the last host did not end in order: ")
    assert contents(config.parent) == before
    # A lost store is reported, and looking makes none in its place.
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
    config = write_config(tmp_path, local.port, {TZ3.pkh: ""})
    (text,) = texts(examined(config, 1), "base_dir", "failed")
    assert "`serve` does not start while keys are listed" in text
    checks = examined(write_config(tmp_path, local.port), 0)
    for name in ("base_dir", KEY_FILE, "watermarks", "disk"):
        assert "not there yet" in texts(checks, name, "warning")[0] or name == "watermarks"
    assert texts(checks, "watermarks", "warning")[0].startswith("no store yet: the first generate, import or")
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
    assert texts(checks, ENCLAVE, "ok")[0].endswith("answers, 1 key opened and compared")
    assert texts(checks, KEY_FILE, "warning") == [f"{TZ2.pkh} are stored several times: one good entry is enough"]
    assert texts(checks, "keys", "warning") == [
        f"listed under `tezos`, but ready in no vault: {TZ1.pkh}: they cannot sign"
    ]


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
        f"failed: base_dir: {file} is not a folder that this user may write to: run as its owner, or correct base_dir"
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
        "no store yet: the first serve makes one of 1 mark that others left"
    ]
    assert not store.exists()


def test_what_is_open_to_other_machines(config: Path) -> None:
    config.write_text(config.read_text().replace("'127.0.0.1:0'", "':0'"))
    checks = examined(config, 0)
    assert (
        "anyone who reaches it can get signed what the policy allows" in texts(checks, "server.address", "warning")[0]
    )
    assert texts(checks, "server.utility_address", "warning") == [
        ":0 is open to other machines: limit them with a firewall"
    ]


def test_warnings_of_the_configuration_are_told(config: Path) -> None:
    config.write_text(config.read_text().replace("attestation: ,", "endorsement: ,", 1))
    assert any("old name" in text for text in texts(examined(config, 0), "configuration", "warning"))


def with_addresses(config: Path, address: str, utility: str = "127.0.0.1:0", more: str = "") -> None:
    line = f"server: {{address: '{address}', utility_address: '{utility}'{more}}}"
    config.write_text(re.sub("^server: .*$", line, config.read_text(), flags=re.MULTILINE))


def test_addresses_that_cannot_be_had(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with_addresses(config, f"127.0.0.1:{port}")
        (text,) = texts(examined(config, 1), "server.address", "failed")
        assert text == f"process {os.getpid()} listens on 127.0.0.1:{port} already: stop it, or name another port"
    with_addresses(config, f"127.0.0.1:{port}", f"127.0.0.1:{port}")
    (text,) = texts(examined(config, 1), "server.utility_address", "failed")
    assert text == f"127.0.0.1:{port} is that of server.address, too: give each its own"
    # An address for documents: this machine has it not.
    with_addresses(config, "127.0.0.1:0", "192.0.2.1:9583")
    (text,) = texts(examined(config, 1), "server.utility_address", "failed")
    assert text == "192.0.2.1:9583 cannot be had: Cannot assign requested address: name another one"
    with_addresses(config, f"unix:{config.parent}/nowhere/socket")
    (text,) = texts(examined(config, 1), "server.address", "failed")
    assert text.startswith(f"{config.parent}/nowhere is not a folder")
    with_addresses(config, f"unix:{config}")
    (text,) = texts(examined(config, 1), "server.address", "failed")
    assert text == f"{config} exists and is not a socket: name another path"


def test_octez_sockets_that_cannot_be_had(config: Path) -> None:
    """`serve` does not start without these either."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with_addresses(config, "127.0.0.1:0", more=f", octez: {{unix: '{config}', tcp: '127.0.0.1:{port}'}}")
        checks = examined(config, 1)
    assert texts(checks, "server.octez.unix", "failed") == [f"{config} exists and is not a socket: name another path"]
    (text,) = texts(checks, "server.octez.tcp", "failed")
    assert text == f"process {os.getpid()} listens on 127.0.0.1:{port} already: stop it, or name another port"
    with_addresses(config, f"127.0.0.1:{port}", more=f", octez: {{tcp: '127.0.0.1:{port}'}}")
    (text,) = texts(examined(config, 1), "server.octez.tcp", "failed")
    assert text == f"127.0.0.1:{port} is that of server.address, too: give each its own"
    with_addresses(config, "127.0.0.1:0", more=", octez: {tcp: ':0'}")
    (text,) = texts(examined(config, 0), "server.octez.tcp", "warning")
    assert "anyone who reaches it can get signed what the policy allows" in text


@pytest.mark.parametrize("unix", [False, True])
def test_addresses_of_the_running_host_are_its_own(config: Path, unix: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with_addresses(config, f"unix:{config.parent}/clients" if unix else f"127.0.0.1:{port}")
    with running_host(config) as host:
        assert host.address == (config.parent / "clients" if unix else port)
        assert texts(examined(config, 0), "server.address", "failed") == []
        # Another host that would serve a folder of its own there.
        other = config.with_name("other.yaml")
        other.write_text(config.read_text().replace(f"base_dir: {base(config)}", f"base_dir: {config.parent}/other"))
        (config.parent / "other").mkdir(mode=0o700)
        (text,) = texts(examined(other, 1), "server.address", "failed")
        assert ("another program listens" if unix else f"process {host.pid} listens") in text


def test_files_of_tls(config: Path) -> None:
    folder = config.parent
    certificate, key = folder / "server.crt", folder / "server.key"
    with_addresses(config, "127.0.0.1:0", more=f", tls: {{certificate: {certificate}, key: {key}}}")
    (text,) = texts(examined(config, 1), "server.tls", "failed")
    assert text == f"{certificate} cannot be read: No such file or directory"
    authority = Authority(folder)
    (one, its_key), (_, other_key) = authority.certificate("one"), authority.certificate("other")
    shutil.copy(one, certificate)
    shutil.copy(other_key, key)
    (text,) = texts(examined(config, 1), "server.tls", "failed")
    assert "must be a certificate in PEM form and its key" in text
    shutil.copy(its_key, key)
    key.chmod(0o644)
    checks = examined(config, 0)
    assert texts(checks, "server.tls", "warning") == [f"{key} can be read by others: chmod go-rwx {key}"]
    assert texts(checks, "server.tls", "ok")[0].startswith(f"{certificate} fits its key and is good until ")
    key.chmod(0o600)
    own = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_text(ssl.DER_cert_to_PEM_cert(unreadable_certificate(own)))
    (text,) = texts(examined(config, 0), "server.tls", "warning")
    assert text.startswith(f"{certificate} cannot be read as clients may read it: 4 is not a valid X509 version")


def test_an_enclave_that_stands_still_is_a_finding_and_list_shows_what_is_stored(config: Path, tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "other.key") as enclave:
        config.write_text(re.sub(r"port: \d+\}", f"port: {enclave.port}}}", config.read_text()))
        enclave.process.send_signal(signal.SIGSTOP)
        (text,) = texts(examined(config, 1, IMPATIENT), ENCLAVE, "failed")
        assert "did not answer in time: start enclave-signer" in text
        outcome = run_command("list", "-c", config, module=IMPATIENT)
        enclave.process.send_signal(signal.SIGCONT)
    assert outcome.code == 1
    assert outcome.error.endswith("did not answer in time: start enclave-signer")
    assert re.findall(r"^Out of Service: +(\S+)$", outcome.stdout, re.MULTILINE) == [TZ1.pkh, TZ2.pkh]
    assert outcome.stdout.count("stored, and not opened: ") == 2


def test_a_configuration_with_passwords_that_others_read(config: Path) -> None:
    users = (
        "{alice: {password: 'a Password 1 of some length', secret: 'a Secret 1 of more than thirty-two characters'}}"
    )
    config.write_text(config.read_text().replace("server: {", f"server: {{jwt: {{users: {users}}}, "))
    for mode, expected in ((0o644, 1), (0o640, 0)):
        config.chmod(mode)
        found = texts(examined(config, 0), "configuration", "warning")
        assert len([text for text in found if text.startswith(f"{config} has passwords")]) == expected
