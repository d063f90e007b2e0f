"""The answers of Signatory to 157 fixed requests, played to our two programs: the same, except where ours are stricter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.host_process import Host, run_command, running_host
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import running_local_enclave

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "signatory-http-transcripts.json").read_text()
)
#: Answers that differ, by group and number of the step, with our status and the reason.
DELIBERATE_DIFFERENCES: dict[tuple[str, int], tuple[int, str]] = {
    ("generic operations", 13): (400, "a message without operations; theirs signs it"),
    **{
        (f"{curve}: consensus and watermark", 21): (
            status,
            "version=1 chooses older tables there, and tag 41 is not in them",
        )
        for curve, status in (("tz1", 200), ("tz2", 200), ("tz3", 403), ("tz4", 200))
    },
    ("beyond the message", 0): (400, "a byte after an attestation; theirs signs it"),
    ("beyond the message", 1): (400, "two bytes after a block; theirs signs them"),
    ("32-bit edge", 0): (409, "two thousand million levels ahead; theirs signs it"),
    ("32-bit edge", 1): (400, "a negative level; theirs signs it, and forgets the mark"),
    ("32-bit edge", 2): (409, "a level that was signed already, with another message; theirs signs both"),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("transcripts")
    text: str = RECORDED["configuration"]
    assert [line[4:] for line in text.splitlines() if line.startswith("#   ")] == [key.secret for key in FOUR]
    with running_local_enclave(folder / "sealing.key") as enclave:
        text = text.replace("base_dir: ./signer", f"base_dir: {folder}/host").replace(
            "port: 2000", f"port: {enclave.port}"
        )
        text = text.replace("127.0.0.1:6732", "127.0.0.1:0").replace("127.0.0.1:9583", "127.0.0.1:0")
        config = folder / "signatory.yaml"
        config.write_text(text)
        outcome = run_command("import", "-c", config, "--vault", "enclave", *(key.secret for key in FOUR))
        assert outcome.code == 0, outcome.stderr
        with running_host(config) as running:
            yield running


def test_every_recorded_answer(host: Host) -> None:
    differences: dict[tuple[str, int], tuple[int, str]] = {}
    steps = 0
    for group in RECORDED["groups"]:
        for number, step in enumerate(group["steps"]):
            steps += 1
            answer = host.ask(step["method"], step["path"], step["request_body"])
            same = answer.status == step["status"]
            if same and answer.status == 200:
                assert answer.headers["content-type"] == step["content_type"]
                same = answer.body.decode() == step["body"]
            if not same:
                differences[group["name"], number] = answer.status, step["body"] + answer.body.decode()
    assert steps == 157
    listed = {place: status for place, (status, _) in DELIBERATE_DIFFERENCES.items()}
    assert {place: status for place, (status, _) in differences.items()} == listed, differences
