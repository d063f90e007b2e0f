"""`/healthz` of a real host is ready when a configured key can sign, and names each one that cannot."""

import http.client
import json
import signal
import time
from pathlib import Path

import pytest

from host_backend.api.health import NOTHING_ALLOWED
from tests.doubles.host_process import BAKER, Answer, Host, ask, import_keys, key_file, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import PATIENCE_S, Enclave, running_local_enclave

TZ1, TZ2, *_ = FOUR
NONE_SIGNS = "no key under `tezos` can sign; the first of them, "


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    """Two keys in the vault; the first one is under `tezos`."""
    config = write_config(tmp_path, local.port, {TZ1.pkh: BAKER})
    import_keys(config, TZ1, TZ2)
    return config


def test_an_enclave_with_another_sealing_key(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        port = enclave.port
        config = write_config(tmp_path, port, {key.pkh: BAKER for key in (TZ1, TZ2)})
        import_keys(config, TZ1, TZ2)
        with running_host(config) as host:
            assert host.health() == (200, {"ready": True})
            enclave.stop()
            with running_local_enclave(tmp_path / "another.key", "--listen", f"127.0.0.1:{port}"):
                host.wait_for("the link to the enclave is degraded")
                status, health = host.health()
                assert (status, health["ready"]) == (503, False)
                assert isinstance(health["degraded"], list)
                assert isinstance(health["reasons"], list)
                first, second = health["degraded"]
                assert first.startswith(f"{TZ1.pkh}: the enclave refused: blob sealed by local under local:")
                assert second.startswith(f"{TZ2.pkh}: the enclave refused: blob sealed by local under local:")
                assert health["reasons"] == [NONE_SIGNS + first]
                assert host.sign(TZ1.pkh, transaction(1)).status == 502


def test_one_of_two_keys_cannot_sign(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port, {key.pkh: BAKER for key in (TZ1, TZ2)})
    import_keys(config, TZ1)
    with running_host(config) as host:
        assert host.health() == (200, {"ready": True, "degraded": [f"{TZ2.pkh}: in no vault"]})
        assert host.sign(TZ1.pkh, transaction(1)).status == 200
        assert host.sign(TZ2.pkh, transaction(1)).status == 404


def test_a_key_file_without_keys(config: Path) -> None:
    key_file(config).write_text("[]")
    with running_host(config) as host:
        missing = f"{TZ1.pkh}: in no vault"
        assert host.health() == (503, {"ready": False, "reasons": [NONE_SIGNS + missing], "degraded": [missing]})
        assert host.sign(TZ1.pkh, transaction(1)).status == 404


def test_nothing_is_configured(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port)
    import_keys(config, TZ1)
    with running_host(config) as host:
        assert host.health() == (503, {"ready": False, "reasons": [NOTHING_ALLOWED]})
        assert "no key under `tezos` may sign anything: every request is refused" in host.log


def test_keys_listed_at_a_reload_count(config: Path, local: Enclave) -> None:
    missing = f"{FOUR[2].pkh}: in no vault"
    with running_host(config) as host:
        for listed, expected in (
            ([FOUR[2]], (503, {"ready": False, "reasons": [NONE_SIGNS + missing], "degraded": [missing]})),
            ([FOUR[2], TZ2], (200, {"ready": True, "degraded": [missing]})),
        ):
            write_config(config.parent, local.port, {key.pkh: BAKER for key in listed})
            host.process.send_signal(signal.SIGHUP)
            host.wait_for(f"key listed.* pkh={listed[-1].pkh}")
            host.wait_for(f"(?s)pkh={listed[-1].pkh}.*policies reloaded")
            # On a busy machine an answer that took several steps is kept for a second.
            ends = time.monotonic() + PATIENCE_S
            while (found := host.health()) != expected:
                assert time.monotonic() < ends, found


def heads(port: int, path: str) -> tuple[Answer, Answer]:
    """Return the answers to HEAD and then GET, on one connection: nothing may be left over between them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    answers = []
    for method in ("HEAD", "GET"):
        connection.request(method, path)
        response = connection.getresponse()
        answers.append(
            Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        )
    connection.close()
    head, get = answers
    return head, get


@pytest.mark.parametrize("ready", [True, False])
def test_head_is_answered_like_get_without_a_body(config: Path, *, ready: bool) -> None:
    if not ready:
        key_file(config).write_text("[]")
    with running_host(config) as host:
        for path in ("/healthz", "/livez", "/metrics"):
            head, get = heads(host.utility_port, path)
            assert head.status == get.status == (503 if path == "/healthz" and not ready else 200)
            assert head.body == b""
            assert get.body
            # The time of the answer, and the length of what was counted, may differ.
            moving = {"date", "content-length"} if path == "/metrics" else {"date"}
            assert head.headers.keys() == get.headers.keys()
            assert {name for name in get.headers if head.headers[name] != get.headers[name]} <= moving
        for path in ("/nope", "/healthz/"):
            assert ask(host.utility_port, "HEAD", path).status == 404
        assert ask(host.utility_port, "POST", "/healthz").status == 405
        assert host.ask("HEAD", f"/keys/{TZ1.pkh}").status == 405


def test_what_is_no_longer_stored_is_told(config: Path) -> None:
    with running_host(config) as host:
        assert host.health() == (200, {"ready": True})
        whole = key_file(config).read_bytes()
        for left in (b"[]", None):
            if left is None:
                key_file(config).unlink()
            else:
                key_file(config).write_bytes(left)
            problem = (
                f"enclave: {TZ1.pkh} and 1 more not stored any more, and lost when this host ends: put the entries back"
            )
            becomes(host, {"ready": True, "degraded": [problem]})
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            key_file(config).write_bytes(whole)
            becomes(host, {"ready": True})


def becomes(host: Host, health: dict[str, object]) -> None:
    """Return when the host is ready, and says so in these words."""
    ends = time.monotonic() + PATIENCE_S
    while host.health() != (200, health):
        assert time.monotonic() < ends, host.health()


def test_a_spoilt_entry_of_a_key_that_signs_keeps_no_new_key_out(config: Path, local: Enclave) -> None:
    write_config(config.parent, local.port, {key.pkh: BAKER for key in (TZ1, TZ2, FOUR[2])})
    with running_host(config) as host:
        assert host.sign(TZ1.pkh, transaction(1)).status == 200
        entries = json.loads(key_file(config).read_text())
        entries[0]["encrypted_private_key"] = "AAAA"
        key_file(config).write_text(json.dumps(entries))
        host.wait_for(f"key out of service: the enclave refused: blob corrupt.* pkh={TZ1.pkh}")
        import_keys(config, FOUR[2])
        host.wait_for(f"key ready.* pkh={FOUR[2].pkh}")
        assert host.sign(FOUR[2].pkh, transaction(1)).status == 200
        # It signs on, also on the new connection, and everybody can see that it will not for ever.
        assert host.sign(TZ1.pkh, transaction(1)).status == 200
        ready, health = host.health()
        assert ready == 200
        (told,) = [text for text in health["degraded"] if text.startswith(TZ1.pkh)]  # type: ignore[attr-defined]
        assert told.endswith("it signs by what was stored before, until this host ends")
        known = json.loads(host.ask("GET", "/known_keys").body)["known_keys"]
        assert set(known) == {TZ1.pkh, TZ2.pkh, FOUR[2].pkh}


def test_an_enclave_that_stands_still_is_noticed_though_nobody_asks_for_a_signature(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            assert host.health() == (200, {"ready": True})
            enclave.process.send_signal(signal.SIGSTOP)
            try:
                host.wait_for("no link to the enclave: the enclave did not answer in time")
                assert host.health()[0] == 503
            finally:
                enclave.process.send_signal(signal.SIGCONT)
            host.wait_for(r"the link to the enclave is ready.* generation=2")
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
