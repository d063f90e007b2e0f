"""`enclave-host watermark show | reset | migrate | rebuild`, and drivers that change, on real folders and running hosts."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.markdown import DOCS
from tests.doubles.host_process import (
    BAKER,
    FILE_WATERMARKS,
    Outcome,
    base,
    import_keys,
    in_use_file,
    refused,
    run_command,
    running_host,
    store_file,
)
from tests.doubles.host_process import write_config as write
from tests.doubles.known_keys import CHAIN, CHAIN_ID, KEYS, attestation, block
from tests.doubles.processes import Enclave, running_local_enclave, unguarded_enclave

ALICE = KEYS["alice"]
MEM = "{driver: mem}"
MAINNET = 0x7A06A770


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as enclave:
        yield enclave


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    return write_config(tmp_path, local)


def write_config(folder: Path, local: Enclave, watermark: str = FILE_WATERMARKS) -> Path:
    return write(folder, local.port, {ALICE.pkh: BAKER}, watermark=watermark)


def marks(config: Path) -> dict[tuple[str, str], tuple[int, int]]:
    outcome = run_command("watermark", "show", "--json", "-c", config)
    assert outcome.code == 0, outcome.stderr
    return {
        (mark["chain_id"], mark["right"]): (mark["level"], mark["round"])
        for mark in json.loads(outcome.stdout)["marks"]
    }


def test_show_needs_a_store_and_changes_nothing(config: Path) -> None:
    base(config).mkdir()
    assert refused(run_command("watermark", "show", "-c", config), 1).startswith("no watermark store at ")
    assert list(base(config).iterdir()) == []


def test_show_works_while_the_host_runs_after_a_kill_and_after_a_stop(config: Path) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, attestation(7, round_=2)).status == 200
        assert host.sign(ALICE.pkh, block(5)).status == 200
        expected = {(CHAIN_ID, "attestation"): (7, 2), (CHAIN_ID, "block"): (5, 0)}
        assert marks(config) == expected
        assert host.sign(ALICE.pkh, block(6)).status == 200
        host.discard()
    expected[CHAIN_ID, "block"] = (6, 0)
    before = store_file(config).read_bytes()
    assert marks(config) == expected
    assert store_file(config).read_bytes() == before
    with running_host(config) as host:
        assert host.stop() == 0
    assert marks(config) == expected
    table = run_command("watermark", "show", "-c", config).stdout.splitlines()
    assert table[0].split() == ["KEY", "CHAIN", "RIGHT", "LEVEL", "ROUND", "DIGEST"]
    assert [line.split()[:5] for line in table[1:]] == [
        [ALICE.pkh, CHAIN_ID, right, str(level), str(round_)]
        for (_, right), (level, round_) in sorted(expected.items())
    ]


def reset(config: Path, *words: str, given: str = "") -> Outcome:
    return run_command("watermark", "reset", "-c", config, CHAIN_ID, ALICE.pkh, "block", *words, given=given)


def test_bytes_that_are_no_text_confirm_nothing(config: Path) -> None:
    import_keys(config, ALICE)
    mark = ("-c", config, CHAIN_ID, ALICE.pkh, "block")
    assert run_command("watermark", "raise", *mark, "20").code == 0
    # As where the locale is one of UTF-8 that has a language.
    strict = ("env", "PYTHONIOENCODING=utf-8:strict")
    outcome = run_command("watermark", "reset", *mark, "10", given=b"\xff\n", prefix=strict)
    assert (outcome.code, outcome.error.partition(": ")[0]) == (1, f"{ALICE.pkh} was not typed")


def test_reset_asks_is_logged_and_reaches_signatorys_files(config: Path) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(4_000_000)).status == 200
        assert refused(reset(config, "10", "--yes"), 1).startswith(f"{base(config)} is in use by process")
        assert host.stop() == 0
    for given in ("", "yes\n", f"{ALICE.pkh[:-1]}\n"):
        outcome = reset(config, "10", given=given)
        assert outcome.code == 1
        assert outcome.error == f"{ALICE.pkh} was not typed: nothing was changed (--yes does not ask)"
    assert marks(config) == {(CHAIN_ID, "block"): (4_000_000, 0)}
    outcome = reset(config, "10", "--round", "1", given=f"{ALICE.pkh}\n")
    assert outcome.code == 0
    assert re.search(
        r'level=warning msg="watermark reset".* lvl=10 .*old_lvl=4000000 old_round=0 .*round=1', outcome.stderr
    )
    assert marks(config) == {(CHAIN_ID, "block"): (10, 1)}
    theirs = json.loads((base(config) / "watermark_v2" / f"{CHAIN_ID}.json").read_text())
    assert theirs[ALICE.pkh]["block"] == {"level": 10, "round": 1}
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(10)).status == 409
        assert host.sign(ALICE.pkh, block(11)).status == 200


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["10"], "there is no mark for block of "),
        (["2147483648"], "both must be from 0 to 2147483647"),
        (["--", "-1"], "both must be from 0 to 2147483647"),
    ],
)
def test_reset_refuses(config: Path, words: list[str], reason: str) -> None:
    import_keys(config, ALICE)
    code = 2 if "must be" in reason else 1
    assert reason in refused(reset(config, "--yes", *words), code)


def test_reset_refuses_what_an_older_file_of_signatory_would_undo(config: Path) -> None:
    import_keys(config, ALICE)
    older = base(config) / "watermark"
    older.mkdir()
    (older / f"{CHAIN_ID}.json").write_text(json.dumps({"block": {ALICE.pkh: {"level": 500}}}))
    with running_host(config) as host:
        assert host.stop() == 0
    assert "have the mark for block of" in refused(reset(config, "10", "--yes"), 1)
    assert marks(config) == {(CHAIN_ID, "block"): (500, 0)}
    assert reset(config, "600", "--yes").code == 0


def documented(heading: str) -> list[list[str]]:
    """Return the host's commands below a heading of the operations page."""
    text = (DOCS / "operations.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall(r"^\.venv/bin/enclave-host (.*)$", text, re.MULTILINE)]
    assert commands
    return commands


def test_a_mark_that_was_raised_too_far_comes_back_as_the_documents_say(tmp_path: Path) -> None:
    sealing_key, head = tmp_path / "sealing.key", 5_000_099
    with running_local_enclave(sealing_key) as enclave:
        config = write_config(tmp_path, enclave)
        raise_too_far(config, head)
    # Restarted, as the documents say: the guard of the first one would refuse what comes now.
    with running_local_enclave(sealing_key) as enclave:
        config = write_config(tmp_path, enclave)
        recover(config, head)


def raise_too_far(config: Path, head: int) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, attestation(head, chain=MAINNET)).status == 200
        assert host.sign(ALICE.pkh, attestation(head + 4_000_000, chain=MAINNET)).status == 200
        assert host.sign(ALICE.pkh, attestation(head + 2, chain=MAINNET)).status == 409
        assert host.stop() == 0


def recover(config: Path, head: int) -> None:
    shown, done = (
        run_command(*(config if word == ".state/signatory.yaml" else word for word in words), given=f"{ALICE.pkh}\n")
        for words in documented("When a mark was raised too far")
    )
    assert f"attestation  {head + 4_000_000}" in shown.stdout
    assert done.code == 0, done.stderr
    with running_host(config) as host:
        for level, status in ((head, 409), (head + 1, 409), (head + 2, 200), (head + 3, 200)):
            assert host.sign(ALICE.pkh, attestation(level, chain=MAINNET)).status == status


# Drivers


def test_a_driver_changed_in_the_configuration_alone_stops_the_start(config: Path, local: Enclave) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(50)).status == 200
        assert host.stop() == 0
    write_config(config.parent, local, MEM)
    text = refused(run_command("serve", "-c", config), 2)
    assert text.startswith(f"{store_file(config)} has marks, and watermark.driver is mem")
    assert "`enclave-host watermark migrate`" in text
    for command in (["show"], ["export"], ["init"], ["raise", CHAIN_ID, ALICE.pkh, "block", "60"]):
        assert refused(run_command("watermark", *command, "-c", config), 2).startswith("watermark.driver is mem: ")
    assert run_command("watermark", "migrate", "-c", config, given="no\n").code == 1
    outcome = run_command("watermark", "migrate", "-c", config, given="mem\n")
    assert outcome.code == 0, outcome.stderr
    assert not store_file(config).exists()
    for level in (51, 52):
        with running_host(config) as host:
            assert "never for a key that bakes" in host.log
            assert host.sign(ALICE.pkh, block(50, payload=bytes(32))).status == 409
            assert host.sign(ALICE.pkh, block(level)).status == 200
            assert host.stop() == 0
    assert in_use_file(config).exists()
    # Back again: what was signed in memory is not known, so nothing starts by itself, nor with the old store.
    write_config(config.parent, local)
    assert "`watermark.driver: mem`" in refused(run_command("watermark", "init", "-c", config), 1)
    assert "`watermark.driver: mem`" in refused(run_command("serve", "-c", config), 1)
    migrated = store_file(config).with_name("watermark.marks.migrated")
    migrated.rename(store_file(config))
    text = refused(run_command("serve", "-c", config), 1)
    assert "`watermark.driver: mem`" in text
    assert "`enclave-host watermark rebuild --above-level N`" in text
    assert (
        run_command("watermark", "rebuild", "--above-level", "52", "--chain", CHAIN_ID, "--yes", "-c", config).code == 0
    )
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(52)).status == 409
        assert host.sign(ALICE.pkh, block(53)).status == 200


def test_two_hosts_in_memory_cannot_share_a_folder(config: Path, local: Enclave) -> None:
    write_config(config.parent, local, MEM)
    import_keys(config, ALICE)
    assert not store_file(config).exists()
    with running_host(config) as host:
        assert refused(run_command("serve", "-c", config), 1).startswith(
            f"{base(config)} is in use by process {host.pid}"
        )
        assert host.sign(ALICE.pkh, block(1)).status == 200


def test_the_largest_jump_is_that_of_the_configuration(config: Path, local: Enclave) -> None:
    import_keys(config, ALICE)
    for driver in ("file", "mem"):
        settings = "{max_level_jump: 3, allow_memory_file_system: true}"
        write_config(config.parent, local, f"{{driver: {driver}, config: {settings}}}")
        if driver == "mem":
            assert run_command("watermark", "migrate", "--yes", "-c", config).code == 0
        with running_host(config) as host:
            first = 10 if driver == "file" else 20
            assert host.sign(ALICE.pkh, attestation(first, chain=first)).status == 200
            assert host.sign(ALICE.pkh, attestation(first + 4, chain=first)).status == 409
            assert host.sign(ALICE.pkh, attestation(first + 3, chain=first)).status == 200
            assert host.stop() == 0


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_marks_are_taken_over_from_another_folder(config: Path, local: Enclave, tmp_path: Path, end: str) -> None:
    (tmp_path / "new").mkdir()
    new = write_config(tmp_path / "new", local)
    for each in (config, new):
        import_keys(each, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(50)).status == 200
        if end == "stop":
            assert host.stop() == 0
        else:
            host.discard()
    assert run_command("watermark", "raise", "-c", new, CHAIN_ID, ALICE.pkh, "attestation", "70").code == 0

    def migrate(source: Path) -> Outcome:
        return run_command("watermark", "migrate", "-c", new, "--from", source)

    assert "is base_dir itself" in refused(migrate(base(new)), 2)
    assert "is not a folder" in refused(migrate(tmp_path / "missing"), 2)
    assert "has no watermarks" in refused(migrate(tmp_path), 1)
    assert "name another folder with --from" in refused(run_command("watermark", "migrate", "-c", new), 2)
    outcome = migrate(base(config))
    assert outcome.code == 0
    assert re.search(r'msg="watermarks migrated" .*marks=1 ', outcome.stderr)
    assert marks(new) == {(CHAIN_ID, "block"): (50, 0), (CHAIN_ID, "attestation"): (70, 0)}
    with running_host(new) as host:
        assert host.sign(ALICE.pkh, block(50, payload=bytes(32))).status == 409
        assert host.sign(ALICE.pkh, block(50)).status == 200


# A rebuilt store; from each kind of damage: `test_watermark_truth`


def rebuild(config: Path, *words: str, given: str = "") -> Outcome:
    return run_command("watermark", "rebuild", "-c", config, *words, given=given)


def test_a_stored_key_that_no_policy_lists_gets_marks_as_well(config: Path, local: Enclave) -> None:
    """Such a key may have signed, and be listed again later."""
    import_keys(config, ALICE)
    store_file(config).unlink()
    write(config.parent, local.port, {})
    assert "name every chain on which" in refused(rebuild(config, "--above-level", "70", "--yes"), 2)
    assert rebuild(config, "--above-level", "70", "--chain", CHAIN_ID, "--yes").code == 0
    write_config(config.parent, local)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(70)).status == 409
        assert host.sign(ALICE.pkh, block(71)).status == 200


@pytest.mark.parametrize("name", ["tz1", "tz1é"])
def test_a_stored_key_under_what_is_no_hash_gets_no_marks(config: Path, local: Enclave, name: str) -> None:
    """Signatory's files with such a key could not be read again: no host would start on the new store."""
    import_keys(config, ALICE)
    keys = base(config) / "confidential_space_keys.json"
    (stored,) = json.loads(keys.read_bytes())
    keys.write_text(json.dumps([stored, {**stored, "public_key_hash": name}]))
    store_file(config).unlink()
    assert rebuild(config, "--above-level", "70", "--chain", CHAIN_ID, "--yes").code == 0
    assert marks(config)[CHAIN_ID, "block"][0] == 70


def test_rebuild_asks_is_logged_and_keeps_the_old_store(config: Path) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(50)).status == 200
        assert refused(rebuild(config, "--above-level", "70", "--chain", CHAIN_ID, "--yes"), 1).startswith(
            f"{base(config)} is in use by process"
        )
        assert host.stop() == 0
    before = store_file(config).read_bytes()
    for given in ("", "yes\n", "7\n", f"{ALICE.pkh}\n"):
        outcome = rebuild(config, "--above-level", "70", "--chain", CHAIN_ID, given=given)
        assert outcome.code == 1
        assert outcome.error == "70 was not typed: nothing was changed (--yes does not ask)"
    assert store_file(config).read_bytes() == before
    outcome = rebuild(config, "--above-level", "70", "--chain", CHAIN_ID, given="70\n")
    assert outcome.code == 0, outcome.stderr
    found = re.search(
        r'level=warning msg="watermark store rebuilt" above_lvl=70 marks=3 old=(\.damaged-\d{8}T\d{6}Z)$',
        outcome.stderr,
        re.MULTILINE,
    )
    assert found, outcome.stderr
    kept = store_file(config).with_name(store_file(config).name + found[1])
    assert kept.read_bytes() == before
    assert kept.stat().st_mode & 0o777 == store_file(config).stat().st_mode & 0o777 == 0o600
    highest = {(CHAIN_ID, right): (70, 2_147_483_647) for right in ("block", "preattestation", "attestation")}
    assert marks(config) == highest
    theirs = json.loads((base(config) / "watermark_v2" / f"{CHAIN_ID}.json").read_text())
    assert {state["level"] for state in theirs[ALICE.pkh].values()} == {70}
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(70)).status == 409
        assert host.sign(ALICE.pkh, block(71)).status == 200
        assert host.stop() == 0


def test_rebuild_keeps_marks_that_are_higher(config: Path) -> None:
    import_keys(config, ALICE)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(50)).status == 200
        assert host.stop() == 0
    assert rebuild(config, "--above-level", "40", "--chain", CHAIN_ID, "--yes").code == 0
    assert marks(config)[CHAIN_ID, "block"] == (50, 0)
    assert marks(config)[CHAIN_ID, "attestation"] == (40, 2_147_483_647)
    with running_host(config) as host:
        assert host.sign(ALICE.pkh, block(50, payload=bytes(32))).status == 409
        assert host.sign(ALICE.pkh, block(50)).status == 200


def test_rebuild_of_nothing_makes_marks_for_the_keys_and_chains_that_are_named(config: Path) -> None:
    import_keys(config, ALICE)
    store_file(config).unlink()
    for words, reason in (
        (["--above-level", "-1", "--chain", CHAIN_ID], "level -1 must be from 0 to 2147483647"),
        (["--above-level", "2147483648", "--chain", CHAIN_ID], "level 2147483648 must be from 0 to 2147483647"),
        (["--above-level", "9"], "name every chain on which "),
        (["--above-level", "9", "--chain", "mainnet"], "where a chain id is needed"),
    ):
        assert reason in refused(rebuild(config, *words, "--yes"), 2)
    assert "'--above-level'" in rebuild(config, "--yes").error
    assert not store_file(config).exists()
    outcome = rebuild(config, "--above-level", "9", "--chain", CHAIN_ID, "--chain", "NetXdQprcVkpaWU", "--yes")
    assert outcome.code == 0, outcome.stderr
    assert set(marks(config)) == {
        (chain, right)
        for chain in (CHAIN_ID, "NetXdQprcVkpaWU")
        for right in ("block", "preattestation", "attestation")
    }
    with running_host(config) as host:
        for make, chain in ((block, CHAIN), (attestation, CHAIN), (attestation, MAINNET)):
            assert host.sign(ALICE.pkh, make(9, chain=chain)).status == 409
            assert host.sign(ALICE.pkh, make(10, chain=chain)).status == 200


def test_rebuild_knows_the_chains_of_policies(tmp_path: Path, local: Enclave) -> None:
    policy = "{allow: {attestation: }, allowed_chains: [NetXdQprcVkpaWU]}"
    config = write(tmp_path, local.port, {ALICE.pkh: policy})
    import_keys(config, ALICE)
    store_file(config).unlink()
    assert rebuild(config, "--above-level", "9", "--yes").code == 0
    assert {chain for chain, _ in marks(config)} == {"NetXdQprcVkpaWU"}


def test_migrate_above_a_level_is_for_a_store_of_ones_own(config: Path) -> None:
    import_keys(config, ALICE)
    outcome = run_command("watermark", "migrate", "--from", base(config), "--above-level", "9", "--yes", "-c", config)
    assert "so without --from" in refused(outcome, 2)
