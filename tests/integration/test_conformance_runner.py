"""The runner of `conformance/`: every verdict holds against our programs, and each broken signer is found by name."""

import json
import runpy
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.markdown import blocks
from tests.doubles import broken_signer as broken
from tests.doubles.broken_signer import broken_signer
from tests.doubles.host_process import Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, KnownKey
from tests.doubles.octez_client import signature_by
from tests.doubles.octez_socket import raw_signature
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave
from tests.doubles.tee_signer import tee_signer

CONFORMANCE = ROOT / "conformance"
TZ1, TZ2, TZ3, TZ4 = FOUR
#: How many verdicts each group has; those for several kinds of messages count once for each.
COUNTS = {"messages": 312, "sequences": 43, "http": 35, "wire": 20, "frames": 14}


@dataclass(frozen=True, slots=True)
class Run:
    """What the runner did."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def names(self, outcome: str) -> list[str]:
        return [verdict["name"] for verdict in self.report["verdicts"] if verdict["outcome"] == outcome]

    def counts(self) -> dict[str, int]:
        """Return how many verdicts hold, by group."""
        groups = [verdict["group"] for verdict in self.report["verdicts"] if verdict["outcome"] == "holds"]
        return {group: groups.count(group) for group in dict.fromkeys(groups)}


def play(*arguments: str | Path, python: Collection[str] = ()) -> Run:
    command = [sys.executable, *python, CONFORMANCE / "run.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


def only(*groups: str) -> list[str]:
    return [argument for group in groups for argument in ("--only", group)]


def every_operation() -> list[str]:
    """Return the names of all operations that the messages hold."""
    verdicts = json.loads((CONFORMANCE / "verdicts" / "messages.json").read_text())["verdicts"]
    return sorted({name for verdict in verdicts for name in verdict.get("operations", [])})


@dataclass(frozen=True, slots=True)
class Served:
    """Our own programs, with every way in."""

    host: Host
    enclave: Enclave
    octez: Path

    def play(self, key: KnownKey, *arguments: str) -> Run:
        ways = ("--octez", f"unix:{self.octez}", "--wire", f"tcp:127.0.0.1:{self.enclave.port}")
        return play(f"http://127.0.0.1:{self.host.port}", "--key", key.pkh, *ways, "--json", *arguments)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, local: Enclave) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("conformance")
    operations = ", ".join(f"'{name}'" for name in every_operation())
    policy = (
        "{allow: {block: , preattestation: , attestation: , attestation_with_dal: , pack: , "
        f"generic: [{operations}]}}}}"
    )
    config = write_config(folder, local.port, {key.pkh: policy for key in FOUR})
    octez = f"octez: {{unix: {folder / 'socket'}}}, utility_address"
    config.write_text(config.read_text().replace("utility_address", octez))
    import_keys(config, *FOUR)
    with running_host(config) as host:
        host.wait_for("Octez Unix server is listening")
        yield Served(host, local, folder / "socket")
        assert "Traceback" not in host.log


def test_every_verdict_holds_and_again_on_the_same_signer(served: Served) -> None:
    run = served.play(TZ1)
    assert (run.code, run.stderr) == (0, ""), run.names("broken")
    assert run.counts() == COUNTS
    assert run.report["signatures_verified"] > 400
    assert run.report["signatures_not_verified"] == 0
    again = served.play(TZ1, *only("sequences"))
    assert again.code == 0, again.names("broken")
    assert again.counts() == {"sequences": COUNTS["sequences"]}


@pytest.mark.parametrize("key", [TZ2, TZ3, TZ4], ids=["tz2", "tz3", "tz4"])
def test_verdicts_hold_for_keys_of_every_curve(served: Served, key: KnownKey) -> None:
    groups = ("http", "frames")
    run = served.play(key, *only(*groups))
    assert run.code == 0, run.names("broken")
    assert run.counts() == {group: COUNTS[group] for group in groups}
    why = run.report["not_verified_because"]
    assert why == ("signatures of tz4 keys need a library for BLS12-381" if key is TZ4 else None)
    assert (run.report["signatures_verified"] == 0) == (key is TZ4)


def test_without_cryptography_signatures_are_not_verified(served: Served) -> None:
    run = play(f"http://127.0.0.1:{served.host.port}", "--key", TZ1.pkh, *only("http"), python=["-S"])
    assert run.code == 0
    assert "signatures: 0 verified, 5 not verified: the Python package cryptography is not installed" in run.stdout


def test_the_enclave_alone(local: Enclave) -> None:
    run = play("--wire", f"tcp:127.0.0.1:{local.port}")
    assert (run.code, run.stderr) == (0, "")
    lines = [line.split() for line in run.stdout.splitlines()]
    assert ["wire", "20", "20", "0", "0"] in lines
    assert ["http", "not", "played:", "needs", "the", "URL", "of", "a", "signer"] in lines


def test_where_tee_signer_is_less_strict_nobody_else_agrees() -> None:
    with tee_signer() as enclave:
        wire = f"tcp:{enclave.address[0]}:{enclave.address[1]}"
        run = play("--wire", wire, "--json")
        agreed = play("--wire", wire, "--agreed", "--json")
    assert run.code == 1
    assert run.names("broken") == ["trailing bytes, then a good call", "unknown field in Sign"]
    assert (agreed.code, agreed.counts()) == (0, {"wire": COUNTS["wire"] - 2})


def test_marks_that_two_ways_in_do_not_share(served: Served) -> None:
    """HTTP leads to one signer, Octez' socket to another with the same key."""
    level = ("--first-level", "5000")
    with broken_signer() as url:
        run = play(url, "--key", TZ1.pkh, "--octez", f"unix:{served.octez}", *level, *only("frames"), "--json")
    assert run.code == 1
    assert run.names("broken") == ["one mark for both ways in"]


def test_a_copy_without_its_verdicts_says_so(tmp_path: Path) -> None:
    with broken_signer() as url:
        run = play(url, "--key", TZ1.pkh, "--verdicts", tmp_path)
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith("Error: verdicts that cannot be read: ")


def test_http_answers_of_another_form() -> None:
    with broken_signer(broken.SILENT) as url:
        run = play(url, "--key", TZ1.pkh, *only("http"), "--json")
    assert run.code == 1
    details = {verdict["name"]: verdict["detail"] for verdict in run.report["verdicts"]}
    assert details["which keys may ask"].startswith("status 404, expected 200")
    assert details["not JSON"].startswith("no answer that can be read")
    assert details["a transaction"] == details["the public key"] == ""


def test_commands_of_the_page_are_taken() -> None:
    arguments = runpy.run_path(str(CONFORMANCE / "run.py"))["arguments"]
    lines = [line for block in blocks(CONFORMANCE / "README.md", "shell") for line in block.splitlines()]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["python3", "run.py"]
        assert arguments(words[2:])


def test_what_octez_does_not_take_is_a_wrong_signature() -> None:
    key = runpy.run_path(str(CONFORMANCE / "run.py"))["Key"](TZ2.pkh)
    key.take(TZ2.public_key)
    message = b"\x03" + bytes(32)
    signature = raw_signature(signature_by(TZ2, message))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = order - int.from_bytes(signature[32:], "big")
    assert key.check(signature, message) is None
    assert "high S" in key.check(signature[:32] + high.to_bytes(32, "big"), message)
    assert key.check(signature, message + b"\0") == "a signature that does not verify"
    assert key.check(signature[1:], message) == "a signature of 63 bytes"


K3 = ("block", "preattestation", "attestation")
K4 = (*K3, "attestation_with_dal")


def each(name: str, kinds: Collection[str]) -> set[str]:
    return {f"{name}: {kind}" for kind in kinds}


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (broken.LEVEL_WRAPS, each("a level beyond 31 bits", K3)),
        (
            broken.NO_MARK_FOR_DAL,
            {
                "attestations with and without DAL share one mark",
                "the same message again: attestation_with_dal",
                "another payload at the same level and round: attestation_with_dal",
                "a lower level: attestation_with_dal",
                "rounds of one level: attestation_with_dal",
                "eight messages at once: attestation_with_dal",
            },
        ),
        (broken.TRAILING_BYTES, each("a byte after the message", K4)),
        (broken.NO_MARK_FOR_ROUND, each("rounds of one level", K4)),
        (broken.ONE_CHAIN, each("chains have marks of their own", K3)),
        (broken.NO_REPEATS, each("the same message again", K4)),
        (
            broken.ONE_MARK_PER_TAG,
            {
                "attestations with and without DAL share one mark",
                "messages with and without a slot share one mark",
            },
        ),
    ],
)
def test_each_broken_signer_is_found_by_name(wrong: str, found: set[str]) -> None:
    with broken_signer(wrong) as url:
        run = play(url, "--key", broken.KEY.pkh, *only("sequences"), "--json")
    assert run.code == 1
    assert set(run.names("broken")) == found


def test_the_same_signer_without_a_fault_is_not_blamed() -> None:
    with broken_signer() as url:
        run = play(url, "--key", broken.KEY.pkh, *only("messages", "sequences"), "--json")
    assert run.code == 0, run.names("broken")
    assert run.counts() == {group: COUNTS[group] for group in ("messages", "sequences")}


def test_messages_alone_find_a_mark_that_is_missing() -> None:
    with broken_signer(broken.NO_MARK_FOR_DAL) as url:
        run = play(url, "--key", broken.KEY.pkh, *only("messages"), "--json")
    assert run.code == 1
    assert len(run.names("broken")) == 18
    assert all("dal" in name for name in run.names("broken"))


def test_signatures_of_something_else_are_found() -> None:
    with broken_signer(broken.WRONG_SIGNATURE) as url:
        run = play(url, "--key", broken.KEY.pkh, *only("sequences"))
    assert run.code == 1
    assert "step 1: block, level 1001, round 0: a signature that does not verify, expected signed" in run.stdout


def test_what_the_table_says_of_a_break() -> None:
    with broken_signer(broken.TRAILING_BYTES) as url:
        run = play(url, "--key", broken.KEY.pkh, *only("sequences"))
        agreed = play(url, "--key", broken.KEY.pkh, *only("sequences"), "--agreed")
    assert run.code == 1
    assert ["sequences", "43", "39", "4", "0"] in [line.split() for line in run.stdout.splitlines()]
    assert "BROKEN sequences: a byte after the message: block\n  step 1: block" in run.stdout
    assert "agreed by: no other signer; see README.md" in run.stdout
    assert agreed.code == 0, agreed.stdout


def test_what_the_policy_refuses_is_counted_apart() -> None:
    with broken_signer(broken.NO_OPERATIONS) as url:
        run = play(url, "--key", broken.KEY.pkh, *only("messages"), "--json")
    assert run.code == 0
    assert len(run.names("not allowed")) > 200
    assert not run.names("broken")


@pytest.mark.parametrize(
    ("wrong", "key", "text"),
    [
        ("", KEYS["bob"].pkh, "the signer does not have"),
        ("", "tz1nonsense", "is wrong"),
        ("", "KT1nonsense", "is not the hash of a key"),
        (broken.AUTHENTICATED, broken.KEY.pkh, "wants requests authenticated"),
        (broken.UNAVAILABLE, broken.KEY.pkh, "no block is signed at level 1000, the first of a run: status 503"),
    ],
)
def test_a_signer_that_cannot_be_asked_is_no_broken_one(wrong: str, key: str, text: str) -> None:
    with broken_signer(wrong) as url:
        run = play(url, "--key", key, *only("sequences"))
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith("Error: ")
    assert text in run.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "nothing to play to"),
        (["http://127.0.0.1:1"], "--key is missing"),
        (["http://127.0.0.1:1", "--key", TZ1.pkh], "no answer from http://127.0.0.1:1"),
        (["ftp://127.0.0.1", "--key", TZ1.pkh], "is not the URL of a signer"),
        (["http://127.0.0.1:port", "--key", TZ1.pkh], "no answer from http://127.0.0.1:port: Port could not be cast"),
        (["--wire", "tcp:127.0.0.1:1"], "no connection to tcp:127.0.0.1:1"),
        (["--wire", "127.0.0.1:1"], "neither tcp:HOST:PORT nor unix:PATH"),
    ],
)
def test_wrong_usage(arguments: list[str], text: str) -> None:
    run = play(*arguments)
    assert (run.code, run.stdout) == (2, "")
    assert text in run.stderr
