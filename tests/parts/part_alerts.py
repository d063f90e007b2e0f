"""Alert rules and dashboard, as Prometheus itself reads them; and an alert of a real one about a real host."""

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.kit import ALERT_TESTS, ALERTS, dashboard_expressions
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import PATIENCE_S, running, running_local_enclave

TZ1 = FOUR[0]


def promtool(*words: str | Path) -> None:
    command = ["promtool", *map(str, words)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_rules_are_well_formed_and_do_what_they_should() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", ALERT_TESTS)
    # What `compose.yaml` runs.
    promtool("check", "config", ALERTS.with_name("prometheus.yaml"))


def test_every_expression_of_the_dashboard_is_well_formed(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{place}", "expr": text} for place, text in enumerate(dashboard_expressions())]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


@contextmanager
def alertmanager() -> Iterator[tuple[int, "queue.Queue[dict[str, Any]]"]]:
    """Stand in for Alertmanager; yields its port, and the alerts that come."""
    alerts: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
                alerts.put(alert)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], alerts
        server.shutdown()


def test_a_real_prometheus_tells_of_a_second_message(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave, alertmanager() as (manager, alerts):
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            (tmp_path / "prometheus.yml").write_text(
                json.dumps(
                    {
                        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                        "rule_files": [str(ALERTS)],
                        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
                        "scrape_configs": [
                            {
                                "job_name": "enclave-host",
                                "static_configs": [{"targets": [f"127.0.0.1:{host.utility_port}"]}],
                            }
                        ],
                    }
                )
            )
            folder = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}")
            with running(["prometheus", *folder, "--web.listen-address=127.0.0.1:0"]) as prometheus:
                prometheus.wait_for("Server is ready to receive web requests")
                assert host.sign(TZ1.pkh, attestation(5)).status == 200
                assert host.sign(TZ1.pkh, attestation(5, payload=bytes(32))).status == 409
                while (alert := alerts.get(timeout=PATIENCE_S))["labels"]["alertname"] != "DoubleSignatureAsked":
                    pass
    assert alert["labels"]["address"] == TZ1.pkh
    assert alert["annotations"]["summary"].endswith(f"a right of {TZ1.pkh}: two bakers with one key?")
