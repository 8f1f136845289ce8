"""When a second request is worth its price: the delay, every *never*, and the allowance over any 200 calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamguard import PolicyError
from streamguard.pace.hedge import Hedges, HedgeSpec
from streamguard.pace.limits import Limit, Limits


def known(first_tokens: list[float] | None = None, calls: int = 200, **fields: float) -> Hedges:
    """What is known after so many calls and these first tokens."""
    hedges = Hedges(HedgeSpec(**fields))
    for _ in range(calls):
        hedges.began()
    for seconds in [1.0] * 64 if first_tokens is None else first_tokens:
        hedges.first_token(seconds)
    return hedges


def left(share: int) -> Limits:
    return Limits(requests=Limit(100, 100), input_tokens=Limit(100, share))


@pytest.mark.parametrize(
    ("first_tokens", "delay"),
    [
        ([1.0] * 63, None),
        ([1.0] * 64, 3.0),
        ([1.0] * 90 + [5.0] * 10, 5.0),
        ([1.0] * 96 + [5.0] * 4, 3.0),
        ([9.0] * 512 + [1.0] * 512, 3.0),
        ([1.0] * 60 + [2.0] * 60, 4.5 * 4 / 3),
    ],
    ids=["too few", "three medians", "the quantile", "a tail beyond it", "the last 512", "the upper median"],
)
def test_the_delay_is_the_larger_of_quantile_and_medians(first_tokens, delay) -> None:
    """p95 of the last 512 first tokens, and three of their medians at least; none within the first 64."""
    assert known(first_tokens).delay == delay


def spent(hedges: Hedges) -> None:
    for _ in range(10):
        hedges.spend()


@pytest.mark.parametrize(
    ("bring_about", "said", "why"),
    [
        (lambda hedges: None, {}, None),
        (lambda hedges: None, {"cooling": True}, "cooldown"),
        (lambda hedges: None, {"broken": True}, "breaker"),
        (lambda hedges: hedges.stated(left(19)), {}, "limits"),
        (lambda hedges: hedges.stated(left(20)), {}, None),
        (lambda hedges: [hedges.first_token(2.1) for _ in range(17)], {}, "slow"),
        (lambda hedges: [hedges.first_token(2.0) for _ in range(17)], {}, None),
        (spent, {}, "spend"),
        (spent, {"spent": True}, None),
    ],
    ids=["nothing", "cool-down", "breaker", "19 % left", "20 % left", "slow", "not slow", "spent", "its own place"],
)
def test_never(bring_about: Callable[[Hedges], object], said, why) -> None:
    """Each state in which no second request is sent is named, and its border is where it should be."""
    hedges = known()
    bring_about(hedges)
    assert hedges.never(**{"cooling": False, **said}) == why


def test_nothing_is_asked_twice_within_the_first_answers() -> None:
    """63 first tokens are too few, 64 are enough."""
    assert known([1.0] * 63).never(cooling=False) == "answers"
    assert known([1.0] * 64).never(cooling=False) is None


def test_what_stays_slow_becomes_usual() -> None:
    """A provider that is slower for good is asked twice again: the usual median grows by 2 % with 64 answers."""
    hedges = known()
    for _ in range(64 * 45):
        hedges.first_token(2.2)
    assert hedges.never(cooling=False) is None


@example([False] * 600 + [True] * 100, 0.05)
@given(st.lists(st.booleans(), min_size=1, max_size=900), st.sampled_from([0.01, 0.05, 0.29, 0.5]))
def test_any_200_calls_have_no_more_than_their_share(wanted, spend) -> None:
    """Whenever calls want a second request, no 200 of them in a row have more than `spend` of them, nor do the first."""
    hedges = known(calls=0, spend=spend)
    sent = []
    for wants in wanted:
        hedges.began()
        if wants and hedges.never(cooling=False) is None:
            hedges.spend()
            sent.append(1)
        else:
            sent.append(0)
    for end in range(1, len(sent) + 1):
        window = sent[max(0, end - 200) : end]
        assert sum(window) <= spend * len(window) + 1e-9


def test_what_was_not_sent_is_given_back() -> None:
    """A place in the allowance that was not used is there for the next."""
    hedges = known()
    spent(hedges)
    hedges.give_back()
    assert hedges.never(cooling=False) is None


@pytest.mark.parametrize("fields", [{"at": 1.0}, {"medians": 0.5}, {"spend": 0.0}, {"spent": 0.1}])
def test_mistakes_are_refused(fields) -> None:
    """Values out of their bounds, and unknown keys, are typed errors."""
    with pytest.raises(PolicyError):
        HedgeSpec(**fields)
