"""Our protocol executes nothing that h11 does not see as a request at that place: a small share of `tests.endurance.framing`."""

import re

import pytest

from host_backend.api import http_framing
from host_backend.api.http_protocol import HttpProtocol
from tests.endurance import framing

CONNECTIONS = 4000


@pytest.fixture(scope="module")
def counts() -> framing.Counts:
    return framing.run(CONNECTIONS)


def test_what_is_executed_is_what_h11_sees(counts: framing.Counts) -> None:
    assert counts.connections == CONNECTIONS
    assert counts.disagreements == []


def test_the_connections_are_worth_asking_about(counts: framing.Counts) -> None:
    assert counts.requests > CONNECTIONS
    assert counts.known > CONNECTIONS // 40
    assert CONNECTIONS // 10 < counts.refused < CONNECTIONS // 3
    assert counts.kinds["connections to their end"] > CONNECTIONS // 5
    assert counts.kinds["the same with an offer"] > CONNECTIONS // 10
    assert counts.kinds["the same in chunks"] > CONNECTIONS // 20
    assert counts.kinds["with a request as body"] > CONNECTIONS // 20


def test_the_connections_are_the_same_in_every_run() -> None:
    assert list(framing.connections(200)) == list(framing.connections(200))


def test_a_parser_that_goes_its_own_way_executes_nothing_more(
    monkeypatch: pytest.MonkeyPatch, counts: framing.Counts
) -> None:
    # What offers another protocol comes through to llhttp, which then stops before the body.
    monkeypatch.setattr(http_framing, "_OFFER", re.compile(rb"(?!)"))
    offered = framing.run(CONNECTIONS)
    assert offered.disagreements == []
    assert offered.kinds["the same with an offer"] < counts.kinds["the same with an offer"] * 4 // 5


@pytest.mark.parametrize(
    ("name", "looser"), [("_TRAILERS", rb"(?s:.*)"), ("_CHUNK_LINE", rb"([0-9A-Fa-f]{1,8}+)[\t ]*+(?:;.*)?")]
)
def test_a_looser_reading_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, looser: bytes) -> None:
    monkeypatch.setattr(http_framing, name, re.compile(looser))
    assert any("executed that h11 does not see" in fault for fault in framing.run(CONNECTIONS).disagreements)


def test_a_second_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "_give_up_running", lambda _: True)
    assert any("more answers" in fault for fault in framing.run(CONNECTIONS).disagreements)
