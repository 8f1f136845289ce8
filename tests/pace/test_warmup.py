"""Which rows of a shared prefix go, and which wait for the first answer with it."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.pace.warmup import SPARE, Prefix, WarmUps, prefixes

A, B = Prefix(b"a", 300.0), Prefix(b"b", 300.0)
MARK = {"cache_control": {"type": "ephemeral"}}


def test_one_leads_until_its_answer_begins() -> None:
    """The second row waits for the first; rows of other prefixes and rows without one pass."""
    warm = WarmUps()
    assert (warm.enter([A], 0.0), warm.enter([A], 0.1), warm.enter([B], 0.1), warm.enter([], 0.1)) == (1, None, 2, 0)
    warm.began([A], 1, 0.0)
    assert (warm.enter([A], 1.0), warm.enter([B], 1.0)) == (0, None)


def test_a_failure_lets_the_next_one_lead() -> None:
    """A row that fails before its answer begins releases its prefix at once."""
    warm = WarmUps()
    assert warm.enter([A], 0.0) == 1
    warm.left(1)
    assert (warm.enter([A], 0.1), warm.enter([A], 0.1)) == (2, None)


def test_known_as_cached_until_shortly_before_its_lifetime() -> None:
    """From the request's start on, and renewed by each answer that reads it."""
    warm = WarmUps()
    warm.began([A], warm.enter([A], 0.0) or 0, 0.0)
    assert (warm.cached(A, 300.0 - SPARE - 0.1), warm.cached(A, 300.0 - SPARE)) == (True, False)
    warm.began([A], 0, 200.0)
    assert (warm.cached(A, 489.0), warm.cached(A, 490.0)) == (True, False)


def test_a_longer_prefix_waits_for_the_shorter_one() -> None:
    """A row that marks a prefix of its own behind the shared one waits for the row that writes the shared one."""
    warm = WarmUps()
    assert (warm.enter([A, B], 0.0), warm.enter([A, Prefix(b"c", 300.0)], 0.0)) == (1, None)
    warm.began([A, B], 1, 0.0)
    assert warm.enter([A, Prefix(b"c", 300.0)], 1.0) == 2


@pytest.mark.parametrize("kinds", list(itertools.product([(A,), (B,)], repeat=4)))
def test_every_order_of_four_rows_ends(kinds: tuple[tuple[Prefix, ...], ...]) -> None:
    """Every order of four rows of two prefixes, each failing anywhere: no two write one prefix at once while a third
    waits, no row waits for ever, and after a failure the next one goes at once."""
    seen: set[Any] = set()

    def explore(warm: WarmUps, states: tuple[str, ...], rows: tuple[int, ...]) -> None:
        cached = tuple(warm.cached(one, 1.0) for one in (A, B))
        mark = (states, tuple(warm._led), cached)
        if mark in seen:
            return
        seen.add(mark)
        writing = [kind for kind, state, row in zip(kinds, states, rows, strict=True) if state == "sent" and row]
        assert len(writing) == len(set(writing))
        moved = False
        for i, state in enumerate(states):
            for how in {"waits": ("enter", "cancelled"), "sent": ("begins", "fails")}.get(state, ()):
                after, now_rows, became = copy.deepcopy(warm), list(rows), list(states)
                if how == "enter":
                    number = after.enter(kinds[i], 1.0)
                    if number is None:
                        assert kinds[i] in writing, "it waits for nobody"
                        continue
                    now_rows[i], became[i] = number, "sent"
                elif how == "begins":
                    after.began(kinds[i], rows[i], 0.5)
                    became[i] = "over"
                elif how == "fails":
                    after.left(rows[i])
                    became[i] = "over"
                else:
                    became[i] = "over"
                moved = moved or how != "cancelled"
                explore(after, tuple(became), tuple(now_rows))
        assert moved or all(state == "over" for state in states)
        if all(state == "over" for state in states):
            assert warm._led == {}

    explore(WarmUps(), ("waits",) * 4, (0,) * 4)
    assert len(seen) > 20


def request(system: str, user: str, **more: Any) -> dict[str, Any]:
    """A request whose system text is marked."""
    marked = [{"type": "text", "text": system, **MARK}]
    return {"model": "m", "system": marked, "messages": [{"role": "user", "content": user}], **more}


def test_rows_that_share_a_marked_text_share_a_prefix() -> None:
    """What stands behind the mark does not count; model, tools and the text before it do."""
    one = prefixes(request("Long.", "a"))
    assert [prefix.lifetime for prefix in one] == [300.0]
    assert prefixes(request("Long.", "b", max_tokens=9)) == one
    others = [request("Other.", "a"), request("Long.", "a", model="n"), request("Long.", "a", tools=[{"name": "t"}])]
    assert len({prefixes(other) for other in others} | {one}) == 4


def test_marks_in_tools_and_messages_count() -> None:
    """Each mark ends a prefix, in the provider's order; an hour is an hour."""
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = request("Long.", "a", tools=[{"name": "t", **hour}])
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "Shared.", **MARK}, {"type": "text"}]}]
    assert [prefix.lifetime for prefix in prefixes(body)] == [3600.0, 300.0, 300.0]


def test_a_request_without_marks_shares_nothing() -> None:
    """The provider caches nothing of it, so nobody waits."""
    assert prefixes({"model": "m", "system": "Long.", "messages": [{"role": "user", "content": "a"}]}) == ()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cache_control", "content", "role", "text", "ttl"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["model", "system", "tools", "messages"]), JUNK))
def test_rubbish_is_read_as_it_stands(body: dict[str, Any]) -> None:
    """A request that nobody would answer raises nothing, and is the same each time."""
    assert prefixes(body) == prefixes(copy.deepcopy(body))
