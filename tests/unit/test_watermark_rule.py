"""The watermark law, as a table."""

import pytest

from enclave_signer.tezos.consensus import Right
from host_backend.errors import WatermarkRejected
from host_backend.watermark.rule import (
    DEFAULT_MAX_LEVEL_JUMP,
    MAX_CHAINS,
    MAX_CHAINS_PER_KEY,
    MAX_LEVEL,
    Mark,
    MarkedChains,
    MarkKey,
    Verdict,
    damaged_text,
    in_range,
    is_above,
    judge,
    merged,
)
from tests.doubles.watermarks import some_chain, some_pkh

KEY = MarkKey("NetXo5iVw1vBoxM", "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", Right.ATTESTATION)
A = bytes(32)
B = bytes([1] * 32)
STORED = Mark(10, 5, A)
LAST = MAX_LEVEL
JUMP = DEFAULT_MAX_LEVEL_JUMP

ADVANCES = [
    (None, Mark(0, 0, A)),
    (None, Mark(LAST, LAST, A)),
    (None, Mark(1, 0, None)),
    (STORED, Mark(11, 5, B)),
    (STORED, Mark(11, 0, B)),
    (STORED, Mark(10, 6, B)),
    (STORED, Mark(10, LAST, B)),
    (STORED, Mark(10 + JUMP, 0, B)),
    (STORED, Mark(11, 0, None)),
    (Mark(10, 5, None), Mark(10, 6, A)),
    (Mark(10, 5, None), Mark(11, 0, None)),
    (Mark(LAST - 1, 0, A), Mark(LAST, 0, B)),
    (Mark(LAST, LAST - 1, A), Mark(LAST, LAST, B)),
]
REPEATS = [
    (STORED, Mark(10, 5, A)),
    (Mark(0, 0, A), Mark(0, 0, A)),
    (Mark(LAST, LAST, A), Mark(LAST, LAST, A)),
]
REFUSALS = [
    (STORED, Mark(10, 5, B), "another message was allowed there"),
    (STORED, Mark(10, 5, None), "another message was allowed there"),
    (STORED, Mark(10, 4, B), "a higher level or round may have been signed already"),
    (STORED, Mark(9, 5, B), "a higher level or round may have been signed already"),
    (STORED, Mark(9, 6, B), "a higher level or round may have been signed already"),
    (STORED, Mark(0, 0, B), "a higher level or round may have been signed already"),
    (Mark(LAST, LAST, A), Mark(0, 0, B), "a higher level or round may have been signed already"),
    # No digest stored: an identical request cannot be distinguished from another one.
    (Mark(10, 5, None), Mark(10, 5, A), "which message was signed there is not known"),
    (Mark(10, 5, None), Mark(10, 5, None), "which message was signed there is not known"),
    # The stored digest with another level or round: a lie, whichever way.
    (STORED, Mark(10, 4, A), "one message cannot have two levels or rounds"),
    (STORED, Mark(10, 6, A), "one message cannot have two levels or rounds"),
    (STORED, Mark(9, 5, A), "one message cannot have two levels or rounds"),
    (STORED, Mark(11, 5, A), "one message cannot have two levels or rounds"),
    # Out of range, whatever is stored: Signatory's comparison wraps around here.
    (None, Mark(-1, 0, A), "levels and rounds go from 0 to 2147483647"),
    (None, Mark(0, -1, A), "levels and rounds go from 0 to 2147483647"),
    (None, Mark(LAST + 1, 0, A), "levels and rounds go from 0 to 2147483647"),
    (None, Mark(0, LAST + 1, A), "levels and rounds go from 0 to 2147483647"),
    (Mark(LAST, 0, A), Mark(-2, 0, B), "levels and rounds go from 0 to 2147483647"),
    (STORED, Mark(11, -1, A), "levels and rounds go from 0 to 2147483647"),
    # Too far ahead.
    (STORED, Mark(11 + JUMP, 0, B), "stop the host and use `enclave-host watermark raise`"),
    (Mark(10, 5, None), Mark(LAST, 0, B), "stop the host and use `enclave-host watermark raise`"),
]


@pytest.mark.parametrize(("stored", "asked"), ADVANCES)
def test_advance(stored: Mark | None, asked: Mark) -> None:
    assert judge(KEY, stored, asked) is Verdict.ADVANCE


@pytest.mark.parametrize(("stored", "asked"), REPEATS)
def test_repeat(stored: Mark | None, asked: Mark) -> None:
    assert judge(KEY, stored, asked) is Verdict.REPEAT


@pytest.mark.parametrize(("stored", "asked", "reason"), REFUSALS)
def test_refusal_names_key_right_chain_and_both_marks(stored: Mark | None, asked: Mark, reason: str) -> None:
    with pytest.raises(WatermarkRejected) as caught:
        judge(KEY, stored, asked)
    text = str(caught.value)
    assert text.startswith("watermark validation failed: ")
    assert text.endswith(reason)
    assert f"attestation of {KEY.pkh} on {KEY.chain_id}" in text
    assert f"asked level {asked.level} round {asked.round}" in text
    was = f"level {stored.level} round {stored.round}" if stored else "nothing"
    assert f"stored {was}:" in text
    assert caught.value.http_status == 409


@pytest.mark.parametrize("right", Right)
def test_refusal_names_the_right_by_its_word(right: Right) -> None:
    with pytest.raises(WatermarkRejected, match=f": {right.value} of tz1"):
        judge(MarkKey(KEY.chain_id, KEY.pkh, right), STORED, Mark(9, 0, B))


@pytest.mark.parametrize(("jump", "level", "allowed"), [(3, 13, True), (3, 14, False), (0, 10, True), (0, 11, False)])
def test_largest_jump_is_a_number_of_levels(jump: int, level: int, allowed: bool) -> None:
    asked = Mark(level, 9, B)
    if allowed:
        assert judge(KEY, STORED, asked, jump) is Verdict.ADVANCE
    else:
        with pytest.raises(WatermarkRejected, match=f"more than {jump} levels ahead"):
            judge(KEY, STORED, asked, jump)


def on_chains(key: MarkKey, count: int, first: int = 0) -> list[MarkKey]:
    return [key._replace(chain_id=some_chain(number)) for number in range(first, first + count)]


def first_mark_is_refused(key: MarkKey, chains: MarkedChains, why: str) -> None:
    with pytest.raises(
        WatermarkRejected, match=r"stored nothing: .*`allowed_chains`.*`enclave-host watermark raise`"
    ) as e:
        judge(key, None, Mark(1, 0, A), chains=chains)
    assert why in str(e.value)


def test_a_key_gets_marks_on_so_many_chains_and_no_more() -> None:
    chains = MarkedChains(on_chains(KEY, MAX_CHAINS_PER_KEY - 1))
    assert judge(KEY, None, Mark(1, 0, A), chains=chains) is Verdict.ADVANCE
    chains.add(KEY)
    (other,) = on_chains(KEY, 1, first=100)
    first_mark_is_refused(other, chains, "the key has marks on 16 chains already")
    # What has a mark, and other rights where the key has one, go on; so do other keys.
    assert judge(other, STORED, Mark(11, 0, B), chains=chains) is Verdict.ADVANCE
    assert judge(other, STORED, STORED, chains=chains) is Verdict.REPEAT
    assert judge(KEY._replace(right=Right.BLOCK), None, Mark(1, 0, A), chains=chains) is Verdict.ADVANCE
    assert judge(other._replace(pkh=some_pkh(1)), None, Mark(1, 0, A), chains=chains) is Verdict.ADVANCE


def test_marks_are_kept_on_so_many_chains_in_all_and_no_more() -> None:
    everywhere = on_chains(KEY, MAX_CHAINS)
    chains = MarkedChains(key._replace(pkh=some_pkh(number // 16)) for number, key in enumerate(everywhere))
    (other,) = on_chains(KEY, 1, first=100)
    first_mark_is_refused(other, chains, "there are marks on 64 chains already")
    assert judge(everywhere[0], None, Mark(1, 0, A), chains=chains) is Verdict.ADVANCE
    assert judge(other, STORED, Mark(11, 0, B), chains=chains) is Verdict.ADVANCE


def test_marks_beyond_the_largest_number_of_chains_only_keep_others_out() -> None:
    chains = MarkedChains(on_chains(KEY, 100))
    assert judge(KEY._replace(chain_id=some_chain(99)), None, Mark(1, 0, A), chains=chains) is Verdict.ADVANCE
    first_mark_is_refused(KEY, chains, "the key has marks on 100 chains already")
    first_mark_is_refused(KEY._replace(pkh=some_pkh(1)), chains, "there are marks on 100 chains already")


def test_a_level_out_of_range_is_the_first_reason() -> None:
    with pytest.raises(WatermarkRejected, match="levels and rounds go from 0"):
        judge(KEY, None, Mark(-1, 0, A), chains=MarkedChains(on_chains(KEY, 100)))


def test_level_counts_before_round() -> None:
    assert is_above(Mark(2, 0, A), Mark(1, 9, A))
    assert not is_above(Mark(1, 9, A), Mark(2, 0, A))
    assert not is_above(Mark(1, 1, A), Mark(1, 1, B))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, STORED, STORED),
        (STORED, STORED, STORED),
        (STORED, Mark(10, 6, None), Mark(10, 6, None)),
        (STORED, Mark(11, 0, B), Mark(11, 0, B)),
        (STORED, Mark(9, LAST, B), STORED),
        # Two messages at one place, or one that is not known: neither may be repeated.
        (STORED, Mark(10, 5, B), Mark(10, 5, None)),
        (STORED, Mark(10, 5, None), Mark(10, 5, None)),
        (Mark(10, 5, None), Mark(10, 5, None), Mark(10, 5, None)),
    ],
)
def test_of_two_marks_the_higher_one_counts(one: Mark | None, other: Mark, expected: Mark) -> None:
    assert merged(one, other) == expected
    if one is not None:
        assert merged(other, one) == expected


@pytest.mark.parametrize("known", [None, STORED])
def test_the_text_of_a_damaged_mark_has_the_way_back(known: Mark | None) -> None:
    text = damaged_text(KEY, known)
    assert f"the mark for {KEY} is damaged" in text
    assert f"`enclave-host watermark raise {KEY.chain_id} {KEY.pkh} attestation LEVEL`" in text
    assert ("above level 10" in text) is (known is not None)


def test_range() -> None:
    assert in_range(Mark(0, 0, None))
    assert in_range(Mark(LAST, LAST, None))
    assert not in_range(Mark(-1, 0, None))
    assert not in_range(Mark(0, LAST + 1, None))
