"""Weights and scales: exact sums, lone surrogates, the prior against recorded truth, and what calibration learns."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.pricing.tokens import Calibration, TokenScale, weigh
from tests.recorded import recorded

ANY = st.text(st.characters(codec=None, categories=None), max_size=80)  # surrogates too


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("", 0.0),
        ("abcd", 1.0),
        ("ABCD", 2.0),
        ("a b", 0.25 + 4 / 64 + 0.25),
        ("    ", 4 / 64),
        ("\n\n\n\n", 38 / 64),
        ("{}", 76 / 64),
        ("12", 84 / 64),
        ("漢字", 148 / 64),
        ("\N{ROCKET}", 154 / 64),
        ("\ud800", 83 / 64),
    ],
)
def test_weights_by_class(text: str, weight: float) -> None:
    """Each class has its weight, a whole number of 64ths."""
    assert weigh(text) == weight


@settings(max_examples=200, deadline=None)
@given(ANY, ANY)
def test_pieces_weigh_as_much_as_the_whole(a: str, b: str) -> None:
    """But for runs of blanks, which may be cut: pieces never weigh less, and then little more."""
    whole, pieces = weigh(a + b), weigh(a) + weigh(b)
    assert whole <= pieces <= whole + 3 * 38 / 64
    if not (a.endswith((" ", "\n")) and b.startswith((" ", "\n"))):
        assert whole == pieces


@settings(max_examples=200, deadline=None)
@given(ANY)
def test_a_weight_is_bounded_by_the_characters(text: str) -> None:
    """Never negative, never more than 2.5 tokens a character, whatever the text."""
    assert 0 <= weigh(text) <= 2.5 * len(text)


def test_the_prior_holds_for_every_recorded_stream() -> None:
    """The true count of all 60 answers lies within the prior's interval; its middle is within 8 % for half of them."""
    prior = TokenScale()
    errors = []
    for stream in recorded():
        weight = weigh(stream.text)
        assert prior.low * weight <= stream.output_tokens <= prior.high * weight, stream.name
        errors.append(abs(weight * prior.mid / stream.output_tokens - 1))
    assert len(errors) == 60
    assert statistics.median(errors) < 0.08
    assert sorted(errors)[53] < 0.3  # 90 %


def test_a_learned_scale_holds_for_the_next_recorded_stream() -> None:
    """Learning one answer after the other, the interval narrows and still holds for every next one."""
    calibration = Calibration()
    for stream in recorded():
        scale = calibration.scale("m")
        weight = weigh(stream.text)
        assert scale.low * weight <= stream.output_tokens <= scale.high * weight, stream.name
        calibration.observe("m", weight, stream.output_tokens)
    learned, prior = calibration.scale("m"), TokenScale()
    assert learned.samples == 60
    assert learned.high / learned.low < prior.high / prior.low


def test_few_samples_widen_the_prior_and_many_replace_it() -> None:
    """A model unlike the prior is believed at once upwards, and wholly from eight samples on."""
    calibration = Calibration()
    calibration.observe("m", 100.0, 300)
    one = calibration.scale("m")
    assert (one.low, one.high, one.samples) == (0.6, pytest.approx(6.0), 1)
    assert 1.0 < one.mid < 3.0
    for _ in range(99):
        calibration.observe("m", 100.0, 300)
    many = calibration.scale("m")
    assert many == TokenScale(
        low=pytest.approx(3 / 1.208), mid=pytest.approx(3, rel=0.03), high=pytest.approx(3 * 1.208), samples=100
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(16, 1e6), st.integers(1, 10**6)), max_size=30))
def test_a_scale_is_ordered_and_holds_its_samples(samples: list[tuple[float, int]]) -> None:
    """Whatever was observed: 0 < low <= mid <= high, and every sample lies within."""
    calibration = Calibration()
    for weight, tokens in samples:
        calibration.observe("m", weight, tokens)
    scale = calibration.scale("m")
    assert 0 < scale.low <= scale.mid <= scale.high
    assert all(scale.low <= tokens / weight <= scale.high for weight, tokens in samples)


@pytest.mark.parametrize(
    ("model", "weight", "tokens"),
    [
        (None, 100.0, 100),
        ("m", 15.9, 10),
        ("m", float("inf"), 10),
        ("m", float("nan"), 10),
        ("m", 100.0, 0),
        ("m", 100.0, -5),
    ],
)
def test_what_teaches_nothing_is_left_out(model: str | None, weight: float, tokens: int) -> None:
    """Unnamed models, tiny answers and impossible numbers leave the prior as it is."""
    calibration = Calibration()
    calibration.observe(model, weight, tokens)
    assert calibration.scale(model) == calibration.scale("other") == TokenScale()


def test_memory_is_bounded() -> None:
    """The oldest ratios and the models unused for longest are forgotten."""
    calibration = Calibration(window=4, models=3)
    for model in ("a", "b", "c"):
        calibration.observe(model, 100.0, 1000)
    for _ in range(10):
        calibration.observe("a", 100.0, 100)
    calibration.observe("d", 100.0, 100)
    assert [calibration.scale(model).samples for model in ("a", "b", "c", "d")] == [4, 0, 1, 1]
    assert calibration.scale("a").mid == pytest.approx(1.0)


def test_models_are_kept_apart() -> None:
    """What one model taught says nothing of another; a prior of one's own is used for the unknown."""
    own = TokenScale(low=0.1, mid=0.2, high=0.3)
    calibration = Calibration(prior=own)
    calibration.observe("a", 100.0, 20)
    assert calibration.scale("b") == own
    assert calibration.scale("a").samples == 1
