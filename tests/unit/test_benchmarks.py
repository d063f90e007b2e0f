"""The benchmarks can describe the machine, whatever curves there are, and compare with figures of other machines."""

import argparse
import json
from math import nan
from pathlib import Path

import pytest

from benchmarks import client
from benchmarks.machine import Machine, machine_line
from benchmarks.table import MACHINES, Machines, Row, peers
from benchmarks.turns import Side, add_side_options, column, print_ratios, ratio_text, sides
from enclave_signer.protocol.key_types import KeyType

HERE = Machine(bls_us=400, ed25519_us=20.0, blake2b_us=1000, loop_ms=4.6, sync_ms=0.18)
OTHERS: Machines = {"like": {"loop_ms": 4.0, "source": ""}, "fast": {"loop_ms": 1.0, "source": ""}}


def row(better, bar: float, **figures: float) -> Row:  # type: ignore[no-untyped-def]
    return Row("HTTP", "file", figures or {"like": 100.0}, "/s", better, bar, "loop_ms", "measured")


def test_the_machine_line_names_every_curve_and_what_signing_consists_of() -> None:
    line = machine_line()
    named = [*(f"{key_type} " for key_type in KeyType), "libblst POP", "BLAKE2b of 1 MiB", "Python loop", "fdatasync"]
    assert [name for name in named if name not in line] == []


def test_figures_of_the_machine_most_like_this_one_count() -> None:
    assert row("rate", 1, fast=100.0, like=50.0).nearest(HERE, OTHERS) == ("like", 4.6 / 4.0)
    assert row("rate", 1, fast=100.0).nearest(HERE, OTHERS) == ("fast", 4.6 / 1.0)


@pytest.mark.parametrize(
    ("better", "ours", "factor", "ratio"),
    [("rate", 100.0, 2.0, 2.0), ("time", 100.0, 2.0, 0.5), ("speed", 100.0, 2.0, 2.0), ("speed", 50.0, 1.0, 2.0)],
)
def test_their_rates_are_divided_by_the_factor_and_their_times_multiplied(
    better: str, ours: float, factor: float, ratio: float
) -> None:
    assert row(better, 1).ratio(ours, 100.0, factor) == ratio


@pytest.mark.parametrize(
    ("better", "ratio", "factor", "held"),
    [
        ("rate", 2.0, 1.0, "yes"),
        ("rate", 1.9, 1.0, "no"),
        ("time", 2.0, 1.0, "yes"),
        ("time", 2.1, 1.0, "no"),
        ("speed", 1.9, 1.0, "no"),
        ("rate", 9.0, 0.49, "does not count"),
        ("rate", 9.0, 2.01, "does not count"),
    ],
)
def test_a_bar_is_held_from_its_side(better: str, ratio: float, factor: float, held: str) -> None:
    assert row(better, 2.0).held(1.0, ratio, factor) == held


def test_a_restore_also_has_a_bar_in_seconds() -> None:
    (restore,) = (each for each in peers() if each.measure.startswith("restore"))
    assert restore.held(2.0, 25, 1.0) == "yes"
    assert restore.held(2.1, 25, 1.0) == "no"


def test_every_figure_of_a_peer_has_a_machine() -> None:
    assert {name for each in peers() for name in each.figures} == MACHINES.keys()
    assert all(each.scaled_by in MACHINES[name] for each in peers() for name in each.figures)


def reported(**changed: float) -> dict[str, float]:
    latencies = {"p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "p999_ms": 4.0}
    return {"n": 10, "errors": 0, "s": 2.0, **latencies, "other": 1, **changed}


def test_a_client_of_ones_own_says_in_its_last_line_what_it_measured(tmp_path: Path) -> None:
    program = tmp_path / "client"
    program.write_text(f'#!/bin/sh\necho "$@"; cat "$5" >&2; echo \'{json.dumps(reported())}\'\n')
    program.chmod(0o755)
    report = client.over_http(program, ("localhost", 1), ["tz1a", "tz1b"], "http", "--conns", 16)
    assert (report.rate, report.latencies) == (5.0, (0.001, 0.002, 0.003, 0.004))
    assert client.columns([report, report]).split() == ["1.000", "2.000", "3.000", "4.000"]


@pytest.mark.parametrize("changed", [{"errors": 1}, {"n": 0}])
def test_an_error_of_it_ends_the_run(changed: dict[str, float]) -> None:
    with pytest.raises(SystemExit, match="the client had errors, or nothing was asked"):
        client.read(json.dumps(reported(**changed)))


def parsed(*arguments: str) -> list[Side]:
    parser = argparse.ArgumentParser()
    add_side_options(parser, peer="any")
    return sides(parser.parse_args(arguments))


def test_a_checkout_or_a_configuration_is_one_other_side_and_a_peer_another(tmp_path: Path) -> None:
    assert parsed() == [Side()]
    both = ["--old", str(tmp_path), "--host-line", "a: 1", "--enclave-argument=--b", "--peer", "localhost:7"]
    assert parsed(*both) == [Side(), Side("other", tmp_path, ["a: 1"], ["--b"]), Side("peer", peer="localhost:7")]
    assert parsed(*both)[-1].peer_address == ("localhost", 7)


def test_a_line_of_a_configuration_stands_in_place_of_the_one_that_begins_alike(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("a: 1\nb: 2\n  b: 3\n")
    Side(host_lines=["b: 4", "c: 5"]).configure(config)
    assert config.read_text() == "a: 1\n  b: 3\nb: 4\nc: 5\n"


def test_ratios_are_those_of_turns_and_what_no_peer_shows_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_ratios(["this", "other", "peer"], rate=[[2.0, 3.0], [1.0, 1.0], [2.0, 3.0]], CPU=[[1.0], [2.0], [nan]])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "this : other, rate 2.50 (2.00 to 3.00), CPU 0.50 (0.50 to 0.50)",
        "this : peer, rate 1.00 (1.00 to 1.00)",
    ]
    assert (column(nan, 3, 1), column(1.26, 4, 1)) == ("  -", " 1.3")


def test_turns_too_short_for_the_clock_of_the_processor_have_no_ratio() -> None:
    assert ratio_text([1.0, 2.0], [0.0, 1.0]) == "2.00 (2.00 to 2.00)"
    assert ratio_text([1.0], [0.0]) == "unknown"
