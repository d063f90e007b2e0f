"""Prometheus itself reads the page of metrics."""

import subprocess
from pathlib import Path

from tests.doubles.host_process import BAKER, ask, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave

TZ1 = FOUR[0]
#: Names that Signatory chose, of which Prometheus' checks say that they should be of seconds.
OF_SIGNATORY = ("vault_sign_request_duration_milliseconds", "sign_handler_request_duration_milliseconds")


def test_prometheus_reads_the_page(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            for message in (attestation(1), transaction(1), b"\x03"):
                host.sign(TZ1.pkh, message)
            page = ask(host.utility_port, "GET", "/metrics").body
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, timeout=PATIENCE_S, check=False
    )
    said = (checked.stdout + checked.stderr).decode().splitlines()
    # 1 is a page that cannot be read; 3 is advice about names.
    assert checked.returncode == 3, said
    assert sorted(line.partition(" ")[0] for line in said) == sorted(OF_SIGNATORY)
    assert all(name.encode() in page for name in OF_SIGNATORY)
