"""What seals the keys is away, says no, or was given something else: each is distinguished, and ends by itself where it can."""

import base64
import json
import signal
from pathlib import Path

import pytest

from tests.doubles.host_process import BAKER, Host, import_keys, key_file, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import Cloud, running_cloud_enclave

TZ1, TZ2, *_ = FOUR


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "cloud.json")


def status(host: Host, key: str = TZ1.pkh) -> int:
    return host.sign(key, transaction(1)).status


def restarted(folder: Path, cloud: Cloud, mode: str, port: int) -> Path:
    """Return the configuration of two keys that were imported while all was well; the cloud is in a mode from now on."""
    config = write_config(folder, port, {key.pkh: BAKER for key in (TZ1, TZ2)})
    import_keys(config, TZ1, TZ2)
    cloud.set(mode)
    return config


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("unavailable", "unavailable: the key management service gave no answer"),
        ("hanging", "unavailable: the local sealer did not answer within 3 s"),
        ("not released", "not released yet: somebody has to allow it first"),
    ],
)
def test_what_may_come_back_is_503_and_comes_back_by_itself(tmp_path: Path, cloud: Cloud, mode: str, text: str) -> None:
    with running_cloud_enclave(cloud) as enclave:
        config = restarted(tmp_path, cloud, "ok", enclave.port)
        with running_host(config) as host:
            assert status(host) == 200
            # Not `Initialize`: that is done, and kept.
            cloud.set(mode)
        with running_host(config) as host:
            host.wait_for(f"key out of service: the enclave's sealer: {text}.* pkh={TZ1.pkh}")
            assert status(host) == 503
            ready, health = host.health()
            assert ready == 503
            named = health["not_released" if mode == "not released" else "degraded"]
            assert f"{TZ1.pkh}: the enclave's sealer: {text}" in str(named)
            cloud.set("ok")
            host.wait_for(f"key opens again.* pkh={TZ1.pkh}")
            host.wait_for(f"key opens again.* pkh={TZ2.pkh}")
            assert {status(host), status(host, TZ2.pkh)} == {200}
            assert host.health() == (200, {"ready": True})


def test_what_is_refused_is_502(tmp_path: Path, cloud: Cloud) -> None:
    with running_cloud_enclave(cloud) as enclave:
        config = restarted(tmp_path, cloud, "ok", enclave.port)
        with running_host(config) as host:
            assert status(host) == 200
            cloud.set("refused")
        with running_host(config) as host:
            host.wait_for(
                "key out of service: the enclave refused: the key management service refuses: grant this image"
            )
            answer = host.sign(TZ1.pkh, transaction(1))
            assert answer.status == 502
            assert b"is out of service: the enclave refused: the key management service refuses" in answer.body
            cloud.set("ok")
            # At once for who has mended it; by itself only after half a minute.
            host.process.send_signal(signal.SIGHUP)
            host.wait_for(f"key opens again.* pkh={TZ1.pkh}")
            assert status(host) == 200


def test_a_damaged_blob_is_not_asked_for_again_until_it_is_another(tmp_path: Path, cloud: Cloud) -> None:
    with running_cloud_enclave(cloud) as enclave:
        config = restarted(tmp_path, cloud, "ok", enclave.port)
        entries = json.loads(key_file(config).read_text())
        whole = entries[0]["encrypted_private_key"]
        data = base64.b64decode(whole)
        entries[0]["encrypted_private_key"] = base64.b64encode(data[:-1] + bytes([data[-1] ^ 1])).decode()
        key_file(config).write_text(json.dumps(entries))
        with running_host(config) as host:
            host.wait_for(f"key out of service: the enclave refused: blob corrupt.* pkh={TZ1.pkh}")
            assert (status(host), status(host, TZ2.pkh)) == (502, 200)
            entries[0]["encrypted_private_key"] = whole
            key_file(config).write_text(json.dumps(entries))
            host.wait_for(f"key opens again.* pkh={TZ1.pkh}")
            assert status(host) == 200


def test_a_cold_start_exchanges_once(tmp_path: Path, cloud: Cloud) -> None:
    with running_cloud_enclave(cloud) as enclave:
        config = restarted(tmp_path, cloud, "ok", enclave.port)
    cloud.set("ok", call_ms=50, initialize_ms=1500)
    with running_cloud_enclave(cloud) as enclave:
        write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            assert status(host) == 200
        enclave.stop()
        assert enclave.log.count("cloud answered initialize_ms") == 1
