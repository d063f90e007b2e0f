"""The counters of each outcome, and that labels stay few."""

from collections.abc import Sequence
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

import host_backend.readings
from host_backend.errors import (
    EnclaveUnavailable,
    HookUnavailable,
    HostError,
    PolicyDenied,
    StoreUnavailable,
    WatermarkRejected,
)
from host_backend.exposition import sample
from host_backend.metrics import MAX_CHAINS, MAX_ROUND_SERIES, MAX_ROUNDS, Counters, Metrics
from host_backend.metrics_page import metrics_page
from host_backend.operations.messages import parse_message
from host_backend.policy import ANYONE
from host_backend.readings import Reading, build_reading, host_readings, process_readings
from host_backend.record import Record, Stage
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.known_keys import CHAIN_ID, FOUR, KEYS, attestation, block, preattestation, transaction
from tests.doubles.prometheus_page import library_page
from tests.doubles.step_clock import done
from tests.doubles.watermarks import KEY, OTHER

PKH = FOUR[0].pkh
#: Where the library changes its form.
ODD_NUMBERS = (0, -1, 1e-7, 0.1, 999_999, 999_999.5, 1e6, 1_000_001, 1e15, 1e16, 1e17, 1e300, -1e7, inf, -inf, nan)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: {PKH}, "file")


def ended(message: bytes, *stages: Stage, error: HostError | None = None, pkh: str = PKH) -> Record:
    record = Record(pkh, ANYONE)
    record.note(parse_message(message))
    for stage in stages:
        record.end(stage)
    record.error = error
    return record


def page(metrics: Metrics, readings: Sequence[Reading] = ()) -> str:
    return b"".join(done(metrics_page(metrics, readings))).decode()


def test_what_clients_make_up_is_no_label(metrics: Metrics) -> None:
    for number in range(100):
        metrics.ended(ended(attestation(1, chain=number, round_=number), "check", "ready", "watermark", "sign"))
        metrics.handled(f"made-up-{number}", 400, 0.001)
        denied = PolicyDenied(f"text {number}", violation="not_listed")
        metrics.ended(ended(transaction(1), error=denied, pkh=KEYS["alice"].pkh))
    chains = {chain for _, _, chain, _ in metrics.rounds.values}
    assert len(chains) == MAX_CHAINS + 1
    assert "other" in chains
    assert {int(round_) for _, _, _, round_ in metrics.rounds.values} == set(range(MAX_ROUNDS + 1))
    assert metrics.handled_requests.values == {("unknown", "400"): 100}
    assert metrics.violations.values == {("not_listed", "unknown", "generic"): 100}
    text = page(metrics)
    assert "made-up" not in text
    assert "text 1" not in text


def test_the_page_stays_small_whatever_thousands_of_keys_do() -> None:
    keys = [f"{PKH[:-5]}{number:05}" for number in range(10_000)]
    known = set(keys)
    metrics = Metrics(lambda: known, "file")

    def all_sign(*messages: bytes) -> None:
        for message in messages:
            record = ended(message, "check", "ready", "watermark", "sign")
            for pkh in keys:
                record.pkh = pkh
                metrics.ended(record)
                metrics.handled(pkh, 200, 0.001)

    all_sign(attestation(1), preattestation(1), block(1))
    # Signatures and requests are counted for every key, with all kinds that bakers sign.
    assert {address for address, *_ in metrics.operations.values} == known
    assert len(metrics.operations.values) == 3 * len(keys)
    assert {address for address, _ in metrics.handled_requests.values} == known
    assert sum(map(len, done(metrics_page(metrics, ())))) < 8e6

    all_sign(*(attestation(round_, round_=round_) for round_ in range(1, 6)))
    assert len(metrics.rounds.values) == MAX_ROUND_SERIES + 3 + 5
    assert sum(metrics.rounds.values.values()) == 8 * len(keys)
    assert metrics.rounds.values["other", "attestation", CHAIN_ID, "5"] == len(keys)
    assert sum(map(len, done(metrics_page(metrics, ())))) < 8e6


def test_a_counter_that_is_full_goes_on_for_those_it_has() -> None:
    counters = Counters("name", "Help.", "op", "address", limit=2)
    for _ in range(2):
        for key in ("a", "b", "c", "d"):
            counters.add("x", key)
    assert counters.values == {("x", "a"): 2, ("x", "b"): 2, ("x", "other"): 4}


@pytest.mark.parametrize(
    ("stages", "error", "marks", "rejections", "vault_errors"),
    [
        (["check", "ready"], WatermarkRejected("x"), "rejected", "watermark validation failed", "409"),
        (["check", "ready"], StoreUnavailable("x"), "error", None, "503"),
        (["check", "ready", "watermark"], WatermarkRejected("x"), "success", "enclave guard", "409"),
        (["check", "ready", "watermark"], EnclaveUnavailable("x"), "success", None, "503"),
        (["check"], EnclaveUnavailable("x"), None, None, "503"),
        (["check"], HookUnavailable("x"), None, None, None),
        ([], EnclaveUnavailable("x"), None, None, None),
    ],
)
def test_refusals(
    metrics: Metrics,
    stages: list[Stage],
    error: HostError,
    marks: str | None,
    rejections: str | None,
    vault_errors: str | None,
) -> None:
    metrics.ended(ended(attestation(1), *stages, error=error))
    assert [result for result, _, _ in metrics.marks.values] == ([marks] if marks else [])
    assert [reason for _, _, _, reason in metrics.rejections.values] == ([rejections] if rejections else [])
    assert [code for _, code, _ in metrics.vault_errors.values] == ([vault_errors] if vault_errors else [])
    assert not metrics.operations.values
    assert not metrics.violations.values


def test_refused_messages_make_no_chain_known(metrics: Metrics) -> None:
    for number in range(MAX_CHAINS + 1):
        metrics.ended(ended(attestation(1, chain=number), "check", "ready", error=EnclaveUnavailable("x")))
    metrics.ended(ended(attestation(1), "check", "ready", "watermark", "sign"))
    assert {chain for _, _, chain in metrics.vault_errors.values} == {"other"}
    assert {chain for _, _, chain, _ in metrics.rounds.values} == {CHAIN_ID}


def test_every_operation_of_a_message_counts(metrics: Metrics) -> None:
    record = ended(transaction(1), "check", "ready", "sign")
    metrics.ended(record)
    metrics.ended(record)
    assert metrics.operations.values == {(PKH, "ConfidentialSpace", "generic", "transaction", ""): 2}
    assert not metrics.marks.values


def test_writes_of_marks_are_counted_as_they_end(metrics: Metrics) -> None:
    with metrics.writing_marks():
        assert not metrics.writes.values
    with pytest.raises(OSError, match="full"), metrics.writing_marks():
        raise OSError("full")
    labels = ("file", "write", "")
    assert metrics.writes.values == {(*labels, "success"): 1, (*labels, "error"): 1}
    assert sum(metrics.write_seconds.values[labels][:-1]) == 2


def test_what_is_wrong_with_the_store_of_marks_is_read_when_it_is_asked_for(metrics: Metrics) -> None:
    store = MemoryWatermarkStore()
    readings = host_readings([], store)
    for problem, refused in ((None, {}), ("a disk", {}), (None, {KEY: "a text", OTHER: "a text"}), (None, {})):
        store.problem, store.refused = problem, refused
        text = page(metrics, readings)
        assert f"\nwatermark_store_problem {float(problem is not None)}\n" in text
        assert f"\nwatermark_rights_refused {float(len(refused))}\n" in text
        # How many, not whose.
        assert "a text" not in text


def test_lines_of_the_log_that_were_dropped_are_counted(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = host_readings([], MemoryWatermarkStore())
    assert "\n# TYPE log_lines_dropped_total counter\nlog_lines_dropped_total 0.0\n" in page(metrics, readings)
    monkeypatch.setattr(host_backend.readings, "dropped_lines", lambda: 7)
    text = page(metrics, host_readings([], MemoryWatermarkStore()))
    assert "\nlog_lines_dropped_total 7.0\n" in text


@pytest.mark.parametrize("per_key", [False, True])
def test_the_bounds_of_a_histogram(*, per_key: bool) -> None:
    metrics = Metrics(lambda: {PKH}, "file", per_key=per_key)
    for milliseconds in (0.5, 0.6, 10, 11, 1e6):
        metrics.handled(PKH, 200, milliseconds / 1e3)
    text = page(metrics)
    name = "sign_handler_request_duration_milliseconds"
    key = f'address="{PKH}",' if per_key else ""
    for bound, count in (("0.5", 1), ("1.0", 2), ("5.0", 2), ("10.0", 3), ("25.0", 4), ("100000.0", 4), ("+Inf", 5)):
        assert f'{name}_bucket{{{key}le="{bound}",status="200"}} {count}.0\n' in text
    assert f'{name}_count{{{key}status="200"}} 5.0\n' in text


@pytest.mark.parametrize("per_key", [False, True])
def test_counters_are_kept_for_each_key_and_histograms_where_that_is_asked_for(*, per_key: bool) -> None:
    pkhs = [key.pkh for key in FOUR]
    metrics = Metrics(lambda: pkhs, "file", per_key=per_key)
    for pkh in pkhs[:3]:
        metrics.ended(ended(attestation(1), "check", "ready", "watermark", "sign", pkh=pkh))
        metrics.handled(pkh, 200, 0.001)
    assert [address for address, *_ in metrics.operations.values] == pkhs[:3]
    assert [address for address, _ in metrics.handled_requests.values] == pkhs[:3]
    assert [address for address, *_ in metrics.rounds.values] == pkhs[:3]
    labels = ("ConfidentialSpace", "attestation", CHAIN_ID)
    if per_key:
        assert list(metrics.vault_ms.values) == [(labels[0], pkh, *labels[1:]) for pkh in pkhs[:3]]
        assert list(metrics.handled_ms.values) == [(pkh, "200") for pkh in pkhs[:3]]
    else:
        assert list(metrics.vault_ms.values) == [labels]
        assert list(metrics.handled_ms.values) == [("200",)]
    # No line of a key before its first event.
    assert pkhs[3] not in page(metrics)


def test_the_page_is_what_the_library_of_prometheus_writes(metrics: Metrics) -> None:
    metrics.ended(ended(attestation(1), "check", "ready", "watermark", "sign"))
    metrics.ended(ended(transaction(1), "check", "ready", error=EnclaveUnavailable("x")))
    for number, seconds in enumerate((0.0005, 0.00050001, 1 / 3, 0.1 + 0.2, 123.4567, 1e9), start=200):
        metrics.handled(PKH, number, seconds)
    metrics.operations.add('a"b', "c\\d", "e\nf", "", "é", by=999_999)
    metrics.operations.add("{}", ",", "=", " ", "%s", by=1_000_000)
    metrics.operations.add("1", "2", "3", "4", "5", by=1_234_567_890)
    odd = Reading("odd_numbers", 'a\\b\nc "d"', ("of", "at"), lambda: [((str(n), ""), n) for n in ODD_NUMBERS])
    readings = [build_reading("1.2.3"), odd, *host_readings([], MemoryWatermarkStore())]
    text = page(metrics, readings)
    assert text == library_page(metrics, readings)
    assert text == page(metrics, readings)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["signing_ops"].samples[-1].value == 1_234_567_890
    assert [each.labels["address"] for each in families["signing_ops"].samples][1:] == ['a"b', "{}", "1"]


@given(st.floats() | st.integers(-(2**53), 2**53))
def test_numbers_are_written_as_the_library_writes_them(number: float) -> None:
    assert sample(number) == floatToGoString(number)  # type: ignore[no-untyped-call]


def test_what_is_known_of_the_process_has_the_names_of_the_library(metrics: Metrics) -> None:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)

    def read(text: str) -> dict[str, Metric]:
        return {each.name: each for each in text_string_to_metric_families(text)}

    theirs = read(generate_latest(registry).decode())
    ours = read(page(Metrics(dict, "file"), process_readings()))
    for name, family in theirs.items():
        assert (ours[name].type, ours[name].documentation) == (family.type, family.documentation)
        assert [each.labels for each in ours[name].samples] == [each.labels for each in family.samples]
    for name in ("process_max_fds", "python_info"):
        assert ours[name].samples[0].value == theirs[name].samples[0].value, name
    # Theirs is of whole seconds.
    started = ours["process_start_time_seconds"].samples[0].value
    assert started == pytest.approx(theirs["process_start_time_seconds"].samples[0].value, abs=2)
    # Theirs counts the one by which it counts.
    assert ours["process_open_fds"].samples[0].value == theirs["process_open_fds"].samples[0].value - 1


def test_without_proc_the_interpreter_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    text = page(Metrics(dict, "file"), process_readings())
    assert "python_info" in text
    assert "process_" not in text
