"""What is counted of each outcome, and that labels stay few."""

import pytest
from prometheus_client import generate_latest

from host_backend.errors import (
    EnclaveUnavailable,
    HookUnavailable,
    HostError,
    PolicyDenied,
    StoreUnavailable,
    WatermarkRejected,
)
from host_backend.metrics import MAX_CHAINS, MAX_ROUNDS, Metrics, readings_of, registry_of
from host_backend.operations.messages import parse_message
from host_backend.policy import ANYONE
from host_backend.record import Record, Stage
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.known_keys import CHAIN_ID, FOUR, KEYS, attestation, transaction
from tests.doubles.watermarks import KEY, OTHER

PKH = FOUR[0].pkh


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


def page(metrics: Metrics) -> str:
    return generate_latest(registry_of(metrics, [], "1.2.3")).decode()


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
    assert metrics.write_seconds.buckets(labels)[-1] == ("+Inf", 2)


def test_what_is_wrong_with_the_store_of_marks_is_read_when_it_is_asked_for(metrics: Metrics) -> None:
    store = MemoryWatermarkStore()
    registry = registry_of(metrics, readings_of([], store), "1.2.3")
    for problem, refused in ((None, {}), ("a disk", {}), (None, {KEY: "a text", OTHER: "a text"}), (None, {})):
        store.problem, store.refused = problem, refused
        text = generate_latest(registry).decode()
        assert f"\nwatermark_store_problem {float(problem is not None)}\n" in text
        assert f"\nwatermark_rights_refused {float(len(refused))}\n" in text
        # How many, not whose.
        assert "a text" not in text


def test_the_bounds_of_a_histogram(metrics: Metrics) -> None:
    for milliseconds in (0.5, 0.6, 10, 11, 1e6):
        metrics.handled(PKH, 200, milliseconds / 1e3)
    text = page(metrics)
    name = "sign_handler_request_duration_milliseconds"
    for bound, count in (("0.5", 1), ("1.0", 2), ("5.0", 2), ("10.0", 3), ("25.0", 4), ("100000.0", 4), ("+Inf", 5)):
        assert f'{name}_bucket{{address="{PKH}",le="{bound}",status="200"}} {count}.0\n' in text
    assert f'{name}_count{{address="{PKH}",status="200"}} 5.0\n' in text
    assert 'signatory_build_info{branch="",checksum="",path="enclave-host",revision="",version="1.2.3"} 1.0\n' in text
    assert "process_resident_memory_bytes" in text
