"""A key's life: what may happen to it, and when it is tried again."""

import math

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType
from enclave_signer.tezos import public_key_hash
from host_backend.vault.keys import TABLE, KeyEvent, Keys, KeyState, Pauses, VaultKey, opened_key

PAUSES = Pauses()
BLOB = (b"blob",)


def made() -> VaultKey:
    public_key = curve(KeyType.ED25519).open(curve(KeyType.ED25519).generate()).public_key
    return opened_key(public_key, public_key_hash(public_key))


ALICE, BOB, CAROL = made(), made(), made()


def keys_of(*stored: VaultKey) -> Keys:
    """Return keys that are stored; pauses are as long as they may be."""
    keys = Keys(PAUSES, lambda: 1.0)
    for key in stored:
        keys.store(key.pkh, BLOB)
    return keys


def test_only_what_opens_is_not_tried() -> None:
    assert {state for state, event in TABLE if event is KeyEvent.TRY} == {*KeyState} - {KeyState.OPEN}
    for event, to in ((KeyEvent.OPENED, KeyState.OPEN), (KeyEvent.CHANGED, KeyState.STORED)):
        assert all(TABLE[state, event] is to for state in KeyState)


def test_what_is_stored_is_due_in_stored_order() -> None:
    keys = keys_of(ALICE, BOB)
    assert keys.due(0) == [ALICE.pkh, BOB.pkh] == [*keys]
    keys.begin(ALICE.pkh)
    assert keys.due(0) == [BOB.pkh]
    keys.note_opened(ALICE)
    assert (keys.due(0), keys.opens(ALICE.pkh), keys.whole) == ([BOB.pkh], True, True)
    # A key stored as it was is no news; a changed one is tried, and its key stays known.
    keys.store(ALICE.pkh, BLOB)
    assert keys.due(0) == [BOB.pkh]
    keys.store(ALICE.pkh, (b"another",))
    assert keys.due(0) == [BOB.pkh, ALICE.pkh]
    assert not keys.opens(ALICE.pkh)
    assert keys.opened == {ALICE.pkh: ALICE}


def test_a_connection_that_ends_leaves_keys_as_they_were() -> None:
    keys = keys_of(ALICE, BOB)
    keys.note_refused(BOB.pkh, "no", 0)
    for key in (ALICE, BOB):
        keys.begin(key.pkh)
    assert keys.due(31) == []
    assert keys.quarantined == {BOB.pkh: "no"}
    for key in (BOB, ALICE):
        keys.abandon(key.pkh)
    assert keys.due(31) == [ALICE.pkh, BOB.pkh]
    assert (keys.state(BOB.pkh), keys.quarantined) == (KeyState.QUARANTINED, {BOB.pkh: "no"})


def test_what_is_refused_is_tried_ever_more_seldom() -> None:
    keys = keys_of(ALICE)
    now, pauses = 0.0, []
    for _ in range(9):
        keys.note_refused(ALICE.pkh, "no", now)
        life = next(at for at in range(1, 4000) if keys.due(now + at))
        pauses.append(life)
        now += life
    assert pauses == [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    keys.note_opened(ALICE)
    keys.note_refused(ALICE.pkh, "no", now)
    assert keys.due(now + 30) == [ALICE.pkh]


def test_what_is_damaged_is_tried_when_it_is_changed_or_somebody_says_so() -> None:
    keys = keys_of(ALICE, BOB)
    for key in (ALICE, BOB):
        keys.note_corrupt(key.pkh, "corrupt")
    assert keys.due(1e12) == []
    keys.store(ALICE.pkh, (b"another",))
    assert (keys.due(0), keys.quarantined) == ([ALICE.pkh], {BOB.pkh: "corrupt"})
    keys.retry()
    assert keys.due(0) == [ALICE.pkh, BOB.pkh]
    assert not keys.quarantined
    assert keys.trouble(BOB.pkh) == "corrupt"


def test_of_many_without_an_answer_one_is_tried_until_there_is_one() -> None:
    keys = keys_of(ALICE, BOB, CAROL)
    for key in (ALICE, BOB, CAROL):
        keys.note_unanswered(key.pkh, "away", 0)
    assert keys.waiting == dict.fromkeys((ALICE.pkh, BOB.pkh, CAROL.pkh), "away")
    now, tried = 0.0, []
    for _ in range(4):
        now = keys.next_due(now)
        assert not keys.due(now - 0.001)
        (pkh,) = keys.due(now)
        tried.append((pkh, round(now, 3)))
        keys.begin(pkh)
        keys.note_unanswered(pkh, "away", now)
    # Many at once were one silence; each time another key is asked for.
    assert tried == [(ALICE.pkh, 0.1), (BOB.pkh, 0.3), (CAROL.pkh, 0.7), (ALICE.pkh, 1.5)]
    now = keys.next_due(now)
    keys.begin(BOB.pkh)
    keys.note_opened(BOB)
    assert keys.due(now) == [CAROL.pkh, ALICE.pkh]


@pytest.mark.parametrize("refused", [True, False])
def test_any_answer_ends_the_silence(refused: bool) -> None:
    keys = keys_of(ALICE, BOB)
    for key in (ALICE, BOB):
        keys.note_unanswered(key.pkh, "away", 0)
    keys.begin(ALICE.pkh)
    if refused:
        keys.note_refused(ALICE.pkh, "no", 0.1)
    else:
        keys.note_corrupt(ALICE.pkh, "corrupt")
    assert keys.due(0.1) == [BOB.pkh]


def test_a_silence_lasts_three_seconds_at_most() -> None:
    keys = keys_of(ALICE)
    now = 0.0
    for _ in range(100):
        keys.note_unanswered(ALICE.pkh, "away", now)
        assert keys.next_due(now) - now <= PAUSES.longest_unanswered_s + 1e-9
        now = keys.next_due(now)
    assert keys_of(ALICE).next_due(0) == math.inf


def test_a_key_remembered_by_the_enclave_says_nothing_of_its_sealer() -> None:
    keys = keys_of(ALICE, BOB)
    keys.note_opened(BOB)
    keys.note_unanswered(ALICE.pkh, "away", 0)
    keys.note_opened(BOB)
    assert keys.due(0.05) == []


def test_the_first_without_an_answer_is_put_behind_the_others() -> None:
    keys = keys_of(ALICE, BOB, CAROL)
    keys.put_behind([ALICE.pkh, BOB.pkh])
    assert keys.due(0) == [BOB.pkh, CAROL.pkh, ALICE.pkh]
    keys.put_behind([])
    keys.note_opened(BOB)
    keys.put_behind([BOB.pkh, CAROL.pkh])
    assert keys.due(0) == [ALICE.pkh, CAROL.pkh]


def test_what_is_not_released_is_no_fault_and_is_tried_again_soon() -> None:
    keys = keys_of(ALICE, BOB)
    keys.note_unreleased(ALICE.pkh, "wait", 0)
    keys.note_unanswered(BOB.pkh, "away", 0)
    assert (keys.unreleased, keys.out_of_service(ALICE.pkh), keys.whole) == ({ALICE.pkh: "wait"}, "wait", False)
    keys.note_opened(BOB)
    assert (keys.whole, keys.next_due(0)) == (True, PAUSES.unreleased_s)
    assert keys.due(PAUSES.unreleased_s - 0.1) == []
    assert keys.due(PAUSES.unreleased_s) == [ALICE.pkh]
    keys.note_refused(ALICE.pkh, "denied", 3, KeyEvent.DENIED)
    assert (keys.unreleased, keys.quarantined, keys.state(ALICE.pkh)) == (
        {},
        {ALICE.pkh: "denied"},
        KeyState.QUARANTINED,
    )
    keys.lapsed.add(ALICE.pkh)
    keys.note_opened(ALICE)
    assert (keys.lapsed, keys.whole, keys.next_due(0)) == (set(), True, math.inf)


def test_what_is_not_released_does_not_end_the_silence_of_others() -> None:
    keys = keys_of(ALICE, BOB)
    keys.note_unanswered(BOB.pkh, "away", 0)
    keys.begin(ALICE.pkh)
    keys.note_unreleased(ALICE.pkh, "wait", 0)
    assert keys.due(PAUSES.unanswered_s / 2) == []
    keys.note_unreleased(BOB.pkh, "wait", 1)
    assert keys.waiting == {}
