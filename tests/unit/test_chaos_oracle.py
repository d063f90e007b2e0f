"""The oracle of a chaotic run finds everything that must not happen, and nothing else; the schedule is its seed's."""

from itertools import islice

import pytest

from tests.doubles.known_keys import FOUR, KnownKey, attestation
from tests.endurance.chaos import AT_ONCE, schedule
from tests.endurance.chaos_faults import all_faults
from tests.endurance.chaos_oracle import Oracle, place_of
from tests.endurance.faulty_link import right_signature

KEY = FOUR[0]
ONE, OTHER = (attestation(7, payload=bytes([number]) * 32) for number in (1, 2))


def answer(
    oracle: Oracle,
    message: bytes,
    status: int = 200,
    *,
    at: float = 0.0,
    repeat: bool = False,
    key: KnownKey = KEY,
    signed: bytes | None = None,
) -> None:
    signature = right_signature(key, signed or message) if status == 200 else ""
    oracle.answered(key, message, status, signature, at, at + 0.5, repeat=repeat)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_a_signature_of_something_else_is_wrong(key: KnownKey) -> None:
    oracle = Oracle()
    answer(oracle, ONE, key=key)
    assert not oracle.wrong
    answer(oracle, ONE, key=key, signed=OTHER)
    assert oracle.wrong == {"wrong signature": 1}


def test_a_second_message_for_one_place_is_a_double_signature() -> None:
    oracle = Oracle()
    for message in (ONE, ONE, attestation(7, round_=1), attestation(8)):
        answer(oracle, message)
    answer(oracle, ONE, key=FOUR[1])
    assert not oracle.wrong
    answer(oracle, OTHER)
    assert oracle.wrong == {"double signature": 1}


def test_what_was_refused_is_never_signed_afterwards() -> None:
    oracle = Oracle()
    answer(oracle, ONE, 409, at=1.0)
    # This one was asked for before that answer came.
    answer(oracle, ONE, at=1.2)
    assert not oracle.wrong
    answer(oracle, ONE, at=2.0)
    assert oracle.wrong == {"signed though refused": 1}


def test_a_repeat_is_not_refused_and_answers_are_known_ones() -> None:
    oracle = Oracle()
    for status in (0, 200, 409, 502, 503):
        answer(oracle, ONE, status)
    assert not oracle.wrong
    answer(oracle, ONE, 409, repeat=True)
    answer(oracle, ONE, 500)
    assert oracle.wrong == {"repeat refused": 1, "strange answer": 1}


def test_of_two_messages_for_one_place_one_may_leave_the_host() -> None:
    oracle = Oracle()
    pkhs = {ONE: KEY.pkh, OTHER: KEY.pkh}
    answer(oracle, OTHER, 409)
    oracle.left(pkhs, [ONE, ONE])
    assert not oracle.wrong
    oracle.left(pkhs, [ONE, OTHER])
    assert oracle.wrong == {"two left the host": 1, "left though refused": 1}


def test_every_signature_has_its_mark() -> None:
    right, height = place_of(KEY.pkh, ONE)
    oracle = Oracle()
    answer(oracle, ONE)
    oracle.marked({right: (height, None)})
    oracle.marked({right: ((8, 0), "00")})
    assert not oracle.wrong
    for marks in ({}, {right: ((6, 9), None)}, {right: (height, "00")}):
        oracle.marked(marks)
    assert oracle.wrong == {"mark lost": 3}


def test_a_seed_is_a_schedule() -> None:
    faults = all_faults()
    one, same, other = ([*islice(schedule(seed, faults), 200)] for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_every_kind_comes_before_any_comes_again() -> None:
    faults = all_faults()
    assert len({fault.name for fault in faults}) == len(faults)
    came: list[str] = []
    for episode in schedule(3, faults):
        assert 1 <= len(episode.faults) <= AT_ONCE
        touched = [each for fault in episode.faults for each in fault.touches]
        assert len(touched) == len(set(touched))
        assert all(episode.seconds >= fault.seconds[0] for fault in episode.faults)
        came += [fault.name for fault in episode.faults]
        if len(came) >= len(faults):
            break
    assert sorted(came) == sorted(fault.name for fault in faults)
