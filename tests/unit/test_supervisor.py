"""What the link does next, and when: a table, and a clock that is a number."""

import itertools

import pytest

from host_backend.enclave.supervisor import DEFAULT_LIMITS, TABLE, Event, LinkLimits, State, Supervisor


def supervisor(limits: LinkLimits = DEFAULT_LIMITS, jitter: float = 1.0) -> Supervisor:
    return Supervisor(limits, lambda: jitter, 0.0)


def described(table: Supervisor) -> tuple[State, bool, int]:
    return table.state, table.serving, table.generation


def ready(table: Supervisor, now: float, *, whole: bool = True) -> None:
    table.connected()
    table.restored(now, whole=whole)


def test_a_life() -> None:
    table = supervisor()
    assert described(table) == (State.CONNECTING, False, 0)
    table.connected()
    assert described(table) == (State.RESTORING, False, 1)
    table.restored(1.0, whole=False)
    assert described(table) == (State.DEGRADED, True, 1)
    table.keys_changed(whole=True)
    assert described(table) == (State.READY, True, 1)
    table.keys_changed(whole=False)
    assert described(table) == (State.DEGRADED, True, 1)
    table.lost("it was cut", 2.0)
    assert (described(table), table.reason) == ((State.WAITING, False, 1), "it was cut")
    # A key that comes or goes while there is no link changes nothing.
    table.keys_changed(whole=True)
    assert described(table) == (State.WAITING, False, 1)
    table.due(2.1)
    assert described(table) == (State.CONNECTING, False, 1)
    ready(table, 3.0)
    assert (described(table), table.restored_count) == ((State.READY, True, 2), 2)


def test_the_table_leaves_no_state_without_an_end() -> None:
    for state in State:
        assert (state, Event.LOST) in TABLE or state is State.WAITING
    reached = set(TABLE.values())
    assert reached == set(State)


@pytest.mark.parametrize(
    ("state", "event"), [pair for pair in itertools.product(State, Event) if pair not in TABLE], ids=str
)
def test_what_cannot_happen_is_a_bug(state: State, event: Event) -> None:
    table = supervisor()
    table.state = state
    with pytest.raises(KeyError):
        table._step(event)


def pauses(table: Supervisor, count: int, *, wanted: bool = False) -> list[float]:
    found = []
    now = 0.0
    for _ in range(count):
        table.lost("away", now)
        found.append(table.next_attempt(wanted=wanted) - now)
        now += 100.0
        table.due(now)
    return [round(pause, 6) for pause in found]


def test_pauses_double_from_a_tenth_to_five_seconds() -> None:
    assert pauses(supervisor(), 9) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert pauses(supervisor(), 2000)[-1] == 5.0


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    assert pauses(supervisor(jitter=0.0), 8) == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]
    assert pauses(supervisor(jitter=0.5), 1) == [0.075]


def test_while_somebody_waits_no_pause_is_long() -> None:
    assert pauses(supervisor(), 8, wanted=True) == [0.1, *[DEFAULT_LIMITS.wanted_s] * 7]


def test_a_signature_is_back_within_a_second_of_the_enclave() -> None:
    # A call whose answer is lost for good is given up, and the next attempt comes, within a second.
    assert DEFAULT_LIMITS.sign_s + DEFAULT_LIMITS.wanted_s < 1.0
    assert DEFAULT_LIMITS.patience_s + DEFAULT_LIMITS.wanted_s < 1.0


def test_only_a_generation_that_lasted_makes_pauses_short_again() -> None:
    table = supervisor()
    now = 0.0
    for expected in (0.1, 0.2, 0.4):
        ready(table, now)
        now += 0.5
        table.lost("it answered, and failed at once", now)
        assert table.next_attempt(wanted=False) == pytest.approx(now + expected)
        table.due(now)
    ready(table, now)
    now += DEFAULT_LIMITS.lasting_s
    table.lost("after a while", now)
    assert table.next_attempt(wanted=False) == pytest.approx(now + 0.1)


def test_patience_grows_with_attempts_that_ended_in_silence() -> None:
    table = supervisor()
    found = []
    now = 0.0
    for _ in range(12):
        found.append(table.patience_s)
        now += table.patience_s
        table.lost("silence", now)
        table.due(now)
    first = DEFAULT_LIMITS.patience_s
    assert found[:3] == [first] * 3
    assert found[3:6] == pytest.approx([first * 2, first * 4, first * 8])
    assert found[-1] == DEFAULT_LIMITS.sealer_s
    ready(table, now)
    assert table.patience_s == first


def test_patience_does_not_grow_with_refusals() -> None:
    table = supervisor()
    for now in range(1, 50):
        table.lost("connection refused", now + 0.01)
        table.due(now + 1.0)
    assert table.patience_s == DEFAULT_LIMITS.patience_s


def test_another_connection_takes_the_place_of_the_one_in_service() -> None:
    table = supervisor()
    ready(table, 1.0, whole=False)
    table.renewed(2.0, whole=True)
    assert (described(table), table.restored_count) == ((State.READY, True, 2), 1)
    assert table.next_renewal == 2.0 + DEFAULT_LIMITS.renewal_s
    # The one before it had lasted: its own end is the first failure.
    table.lost("it was cut", 2.1)
    assert table.next_attempt(wanted=False) == pytest.approx(2.2)


def test_only_a_connection_in_service_can_be_replaced() -> None:
    table = supervisor()
    table.connected()
    table.lost("away", 1.0)
    with pytest.raises(KeyError):
        table.renewed(2.0, whole=True)


def test_pauses_between_renewals_that_fail_double_and_the_link_stays_good() -> None:
    table = supervisor()
    ready(table, 0.0)
    found = []
    for now in range(0, 1200, 100):
        table.renewal_failed(now)
        found.append(round(table.next_renewal - now, 6))
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[DEFAULT_LIMITS.reopen_s] * 3]
    assert described(table) == (State.READY, True, 1)
    table.renewed(1200.0, whole=True)
    table.renewal_failed(1300.0)
    assert table.next_renewal == 1300.1


def test_a_link_that_came_back_owes_no_pause_of_the_one_before() -> None:
    table = supervisor()
    ready(table, 0.0)
    for now in range(20):
        table.renewal_failed(now)
    table.lost("it was cut", 20.0)
    table.due(20.1)
    ready(table, 20.2)
    assert table.next_renewal == 20.2
