"""The words of limits: what was stated, in order, and what share is left."""

from __future__ import annotations

from streamguard.pace.limits import Limit, Limits


def test_limits_give_those_that_were_stated() -> None:
    """Iteration gives names and limits in a fixed order, without those that nobody stated."""
    limits = Limits(output_tokens=Limit(400, 100), requests=Limit(10, 10))
    assert list(limits) == [("requests", Limit(10, 10)), ("output_tokens", Limit(400, 100))]


def test_a_limit_knows_its_share() -> None:
    """The share is of the limit per minute."""
    assert (Limit(400, 100).share_left, Limit(10, 10).share_left) == (0.25, 1.0)
