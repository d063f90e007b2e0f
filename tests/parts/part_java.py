"""The HTTP client of the JDK, which offers HTTP/2 with its first request: it signs."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave

TZ1 = FOUR[0]
REQUESTS = 20
#: One client for all requests, and a client of its own for each: every first request of a client carries the offer.
SOURCE = """
import java.net.URI;
import java.net.http.*;

public class Sign {
    public static void main(String[] words) throws Exception {
        HttpClient kept = HttpClient.newHttpClient();
        for (int place = 1; place < words.length; place++) {
            HttpClient client = place % 2 == 0 ? kept : HttpClient.newHttpClient();
            HttpRequest request = HttpRequest.newBuilder(URI.create(words[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString('"' + words[place] + '"')).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().trim());
        }
    }
}
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0


def test_a_stock_client_signs(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "Sign.java"
    source.write_text(SOURCE)
    messages = [transaction(number) for number in range(REQUESTS)]
    command = [
        "java",
        str(source),
        f"http://127.0.0.1:{host.port}/keys/{TZ1.pkh}",
        *(message.hex() for message in messages),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [status for status, _ in answers] == ["200"] * REQUESTS
    for message, (_, body) in zip(messages, answers, strict=True):
        oracles.verify(TZ1, json.loads(body)["signature"], message)
