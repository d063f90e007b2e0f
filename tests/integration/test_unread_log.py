"""With logs that are read, no longer read, or never read, both programs serve on, and end in order."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, ask, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave, kept, running_local_enclave
from tests.doubles.unread_log import UnreadHost, ended, start_enclave
from tests.doubles.wire import WireClient
from tests.endurance.unread_log import ask_enclave, ask_host

#: At `debug` that makes more lines than a pipe of 64 KiB holds, and fewer than may wait.
REQUESTS = 600
TZ1 = FOUR[0]


@pytest.mark.parametrize("read_again", [False, True])
def test_a_host_whose_log_nobody_reads(tmp_path: Path, *, read_again: bool) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        host = UnreadHost(config, "--log", "debug")
        with ended(host):
            host.ready()
            ask_host(host, REQUESTS)
            assert ask(host.utility_port, "GET", "/livez").status == 200
            if not read_again:
                assert host.end_unread() == 0
                return
            host.read_on()
            assert host.stop() == 0
            # Nothing is lost once they are read again.
            assert host.log.count("Signed generic successfully") == REQUESTS
            assert host.log.splitlines()[-1].endswith('msg="stopped"')
            assert "dropped" not in host.log


@pytest.mark.parametrize("read_again", [False, True])
def test_a_daemon_whose_log_nobody_reads(tmp_path: Path, *, read_again: bool) -> None:
    enclave = start_enclave(tmp_path / "sealing.key", "--log", "debug")
    with ended(enclave):
        enclave.ready()
        ask_enclave(enclave.address, REQUESTS)
        if not read_again:
            assert enclave.end_unread() == 0
            return
        enclave.read_on()
        assert enclave.stop() == 0
        assert enclave.log.count('msg="connection opened"') == REQUESTS
        assert enclave.log.splitlines()[-1].endswith("msg=stopped") or 'msg="stopped"' in enclave.log.splitlines()[-1]


def without_streams(*command: str) -> subprocess.Popen[bytes]:
    """Start a program whose standard streams are all closed."""
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", *command]
    return subprocess.Popen(shell, cwd=ROOT)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            os.sched_yield()
        else:
            return
    pytest.fail(f"it ended with {process.returncode}")


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S)


def test_both_programs_serve_and_stop_with_their_standard_streams_closed(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        port, utility = free_port(), free_port()
        lines = config.read_text().replace("'127.0.0.1:0', utility", f"'127.0.0.1:{port}', utility")
        config.write_text(lines.replace("utility_address: '127.0.0.1:0'", f"utility_address: '127.0.0.1:{utility}'"))
        host = without_streams("host_backend", "serve", "-c", str(config))
        try:
            wait_for_port(host, port)
            assert ask(port, "POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(1).hex())).status == 200
        finally:
            code = stopped(host)
        assert code == 0


def test_a_daemon_serves_and_stops_with_its_standard_streams_closed(tmp_path: Path) -> None:
    port = free_port()
    key = str(tmp_path / "sealing.key")
    enclave = without_streams(
        "enclave_signer", "--listen", f"127.0.0.1:{port}", "--sealing-key", key, "--make-sealing-key"
    )
    try:
        wait_for_port(enclave, port)
        with WireClient(("127.0.0.1", port)) as client:
            assert "Ok" in client.call({"Generate": "Ed25519"})
    finally:
        code = stopped(enclave)
    assert code == 0


def first_line(log: str) -> str:
    return log.splitlines()[0]


def test_the_first_line_says_what_has_started(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        assert re.fullmatch(
            r'time="[^"]+Z" level=info msg="enclave-signer is starting" flags="--listen 127\.0\.0\.1:0 --sealing-key '
            rf'[^"]+ --make-sealing-key" pid={enclave.pid} version=[0-9.]+\S*',
            first_line(enclave.log),
        )
        config = write_config(tmp_path, enclave.port, {})
        import_keys(config, TZ1)
        with running_host(config) as host:
            assert re.fullmatch(
                rf'time="[^"]+Z" level=info msg="enclave-host is starting" config={config} pid={host.pid} version=[0-9.]+\S*',
                first_line(host.log),
            )


def test_both_programs_write_the_same_forms(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key", "--json-log") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config, "--json-log") as host:
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            assert host.stop() == 0
            (signed,) = (line for line in map(json.loads, host.log.splitlines()) if "ops" in line)
            assert signed["ops"] == {"transaction": 1}
            assert all(isinstance(value, float) for name, value in signed.items() if name.endswith("_ms"))
        assert enclave.stop() == 0
        for line in map(json.loads, enclave.log.splitlines()):
            assert {"level", "msg", "time"} <= line.keys()
            assert line["time"].endswith("Z")


def test_both_programs_warn_when_they_are_open_to_everybody(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        assert "anyone who reaches" not in enclave.log
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            assert "anyone who reaches" not in host.log
        config.write_text(
            config.read_text().replace("server: {address: '127.0.0.1:0'", "server: {address: '0.0.0.0:0'")
        )
        host_open = UnreadHost(config)
        with ended(host_open):
            host_open.read_on()
            assert host_open.wait_for(
                r'level=warning msg="server\.address: anyone who reaches 0\.0\.0\.0:0 can get signed'
            )
    command = [sys.executable, "-m", "enclave_signer", "--listen", "0.0.0.0:0", "--insecure-plain-tcp"]
    key = ("--sealing-key", str(tmp_path / "sealing.key"))
    with kept(Enclave([*command, *key])) as open_enclave:
        assert 'level=warning msg="listening beyond this machine: anyone who reaches the port' in open_enclave.log
        assert open_enclave.stop() == 0


def test_a_secret_key_in_a_path_or_a_call_is_not_repeated(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key", "--log", "debug") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config, "--log", "debug") as host:
            for path in (f"/keys/{TZ1.secret}", f"/{TZ1.secret}", f"/keys/{TZ1.pkh}?{TZ1.secret}=1"):
                for method in ("GET", "POST"):
                    assert TZ1.secret[4:].encode() not in host.ask(method, path, '"03"').body
            assert host.stop() == 0
            assert TZ1.secret[4:20] not in host.log
            assert "edsk***" in host.log
        with WireClient(enclave.address) as client:
            assert "edsk***" in str(client.call({TZ1.secret: None}))
        assert enclave.stop() == 0
        assert TZ1.secret[4:20] not in enclave.log
