"""Usage as an interval: exact with the provider's count, and the truth within it whenever a stream is cut."""

from __future__ import annotations

import struct
from base64 import b64encode
from decimal import Decimal as _d
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events import BlockKind, BlockStarted, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.guards.metering import (
    FRAMING_ESTIMATE,
    LAG_TOKENS,
    InputEstimate,
    input_upper,
    output_upper,
    usage_range,
)
from streamguard.guards.transcript import Transcript
from streamguard.pricing.input_upper import content_upper, input_upper_bound
from streamguard.pricing.price import Price, cost
from streamguard.pricing.tokens import Calibration, TokenScale
from streamguard.request import Request
from streamguard.usage import UsageRange
from tests.recorded import recorded

BODY: dict[str, Any] = {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "x" * 100}]}
TEXT = BlockStarted(0, "text")
HUNDRED = Delta(0, "text", "abcd" * 100)  # weighs 100


def transcript(*events: Event) -> Transcript:
    made = Transcript()
    for event in events:
        made.feed(event, 0.0)
    return made


def ranged(*events: Event, body: dict[str, Any] | None = BODY) -> UsageRange:
    return usage_range(transcript(*events), None if body is None else Request(body), Calibration())


def most_input(body: dict[str, Any]) -> int:
    return input_upper_bound(content_upper(body, {}), body)


def test_the_final_count_is_exact() -> None:
    """With the count that comes with the stop reason the interval is a point, caches included, `Stopped` or not."""
    counted = Usage(input_tokens=9, cache_write_tokens=33_763, output_tokens=70, thinking_tokens=2)
    start = Started(usage=Usage(input_tokens=9))
    for end in ((), (Stopped("end_turn"),)):
        found = ranged(start, TEXT, HUNDRED, Metered(counted, stop_reason="end_turn"), *end)
        assert found == UsageRange(low=counted, high=counted, exact=True)


def test_a_count_of_the_output_alone_keeps_the_start_for_the_input() -> None:
    """`message_delta` need not repeat the input: what it leaves out stands as `message_start` said it."""
    found = ranged(Started(usage=Usage(input_tokens=664)), Metered(Usage(output_tokens=400), stop_reason="max_tokens"))
    assert found == UsageRange.of(Usage(input_tokens=664, output_tokens=400))


def test_counts_that_fall_are_an_interval() -> None:
    """One of the two is wrong, and nobody knows which."""
    told = Usage(input_tokens=40, output_tokens=400)
    found = ranged(Started(usage=Usage(input_tokens=664)), Metered(told, stop_reason="end_turn"))
    assert (found.low.input_tokens, found.high.input_tokens, found.exact) == (40, 664, False)


def test_an_output_lighter_than_its_text_is_no_count() -> None:
    """Then the request bounds it, as where nothing was counted. Thinking cannot be more than all output."""
    told = Usage(input_tokens=30, output_tokens=5)
    light = ranged(Started(usage=Usage(input_tokens=30)), TEXT, HUNDRED, Metered(told, stop_reason="end_turn"))
    assert (light.exact, light.high.output_tokens) == (False, 1000)
    more = Usage(input_tokens=30, output_tokens=50, thinking_tokens=51)
    assert not ranged(Started(usage=Usage(input_tokens=30)), Metered(more, stop_reason="end_turn")).exact


@pytest.mark.parametrize("blanks", ["=" * 4000, " " * 4000, "\u2500" * 4000])
def test_runs_of_one_sign_may_be_few_tokens(blanks: str) -> None:
    """Some tokens take a hundred of them in."""
    told = Usage(input_tokens=30, output_tokens=40)
    text = Delta(0, "text", blanks)
    assert ranged(Started(usage=Usage(input_tokens=30)), TEXT, text, Metered(told, stop_reason="end_turn")).exact


PNG = b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1000, 1000)).decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest.mark.parametrize(
    ("content", "told", "exact"),
    [
        ("word " * 1000, 9, False),
        ("word " * 1000, 1010, True),
        ([IMAGE, {"type": "text", "text": "word " * 1000}], 9, False),
        ([IMAGE], 9, False),
        ([IMAGE], 1400, True),
        ([{"type": "document", "source": {"type": "file", "file_id": "f"}}], 9, False),
        ([{"type": "thinking", "thinking": "word " * 1000, "signature": "x" * 4000}], 9, True),
        ([{"type": "text", "text": "word " * 1000, "clear_at": 1}], 9, True),
        ([{"type": "tool_use", "id": "t", "name": "t", "input": {"a": "word " * 1000}}], 9, False),
    ],
)
def test_an_input_lighter_than_what_was_sent_is_no_count(content: Any, told: int, exact: bool) -> None:
    """Text, images and pages have a weight; earlier thinking and what is cleared need not be read again."""
    body = {**BODY, "model": "claude-opus-5", "messages": [{"role": "user", "content": content}]}
    count = Usage(input_tokens=told, output_tokens=4)
    found = ranged(Started(usage=Usage(input_tokens=told)), Metered(count, stop_reason="end_turn"), body=body)
    assert found.exact == exact


def test_an_aborted_answer_is_estimated_on_both_sides() -> None:
    """Output from the visible text, lag included; input from the start below and from the bytes above."""
    found = ranged(Started(usage=Usage(input_tokens=30)), TEXT, HUNDRED)
    assert found == UsageRange(
        low=Usage(input_tokens=30, output_tokens=60),
        high=Usage(input_tokens=most_input(BODY), output_tokens=250 + LAG_TOKENS),
        exact=False,
    )


def test_before_any_event_nothing_is_sure() -> None:
    """A request that was sent may have been read and answered, or not."""
    found = ranged()
    assert (found.low, found.exact) == (Usage(input_tokens=0, output_tokens=0), False)
    # What was made before the first block cannot be seen.
    assert found.high == Usage(input_tokens=most_input(BODY), output_tokens=1000)


def test_max_tokens_bounds_every_estimate() -> None:
    """No more than the request allows, above and below."""
    found = ranged(Started(), TEXT, HUNDRED, body={**BODY, "max_tokens": 50})
    assert (found.low.output_tokens, found.high.output_tokens) == (50, 50)


def test_a_running_count_is_a_lower_bound() -> None:
    """A count without a stop reason is true so far, and not the end."""
    found = ranged(Started(), TEXT, HUNDRED, Metered(Usage(output_tokens=900)))
    assert (found.low.output_tokens, found.high.output_tokens, found.exact) == (900, 1000, False)


@pytest.mark.parametrize(
    ("events", "body", "high"),
    [
        ((BlockStarted(0, "thinking"), Delta(0, "thinking", "hm"), BlockStarted(1, "text")), {}, 1000),
        ((TEXT, HUNDRED), {"thinking": {"type": "adaptive"}}, 1000),
        ((TEXT, HUNDRED), {"thinking": {"type": "enabled", "budget_tokens": 500}}, 1500),
        ((TEXT, HUNDRED), {"thinking": {"type": "disabled"}}, 450),
        ((BlockStarted(0, "tool_input", name="t"),), {"tools": [{"name": "t", "input_schema": {}}]}, 1000),
        (
            (BlockStarted(0, "tool_input", name="t"),),
            {"tools": [{"name": "t", "input_schema": {}, "eager_input_streaming": True}]},
            LAG_TOKENS + 76,  # a call's framing and its name, at the high end of the scale
        ),
        ((BlockStarted(0, "tool_input", name="t"), BlockStarted(1, "text")), {}, LAG_TOKENS + 76),
    ],
)
def test_where_output_may_be_hidden_only_the_request_bounds_it(
    events: tuple[Event, ...], body: dict[str, Any], high: int
) -> None:
    """Thinking may be left out, and tool input that is not streamed eagerly comes in whole values."""
    assert ranged(Started(), *events, body={**BODY, **body}).high.output_tokens == high


@pytest.mark.parametrize(
    ("events", "body"),
    [
        ((), None),
        ((BlockStarted(0, "server_tool"),), BODY),
        ((), {**BODY, "messages": [{"role": "user", "content": [{"source": {"type": "file", "file_id": "f"}}]}]}),
        ((), {**BODY, "messages": [{"role": "user", "content": [{"source": {"type": "url", "url": "u"}}]}]}),
        ((), {**BODY, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ((), {**BODY, "tools": [{"type": "yet_to_be_invented", "name": "x"}]}),
        ((), {**BODY, "mcp_servers": [{"type": "url", "name": "m"}]}),
        ((), {**BODY, "context_management": {"edits": [{"type": "compact_20260112"}]}}),
    ],
)
def test_input_that_nothing_visible_bounds_is_unknown(events: tuple[Event, ...], body: dict[str, Any] | None) -> None:
    """No request, server tools (called, or only allowed), a compaction, files and links: `None`, never 0."""
    assert ranged(Started(usage=Usage(input_tokens=9)), *events, body=body).high.input_tokens is None


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "bash_20250124", "name": "bash"}, {"name": "own", "input_schema": {}}]},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    ],
)
def test_tools_that_the_caller_runs_bound_the_input(body: dict[str, Any]) -> None:
    """The provider's own definitions of them too, and edits that only take input away."""
    assert ranged(Started(), body={**BODY, **body}).high.input_tokens is not None


def test_what_may_be_made_in_a_silence_counts() -> None:
    """As much as no model makes in that time, for a call that was silent in the midst of its text."""
    seen = transcript(Started(), TEXT, HUNDRED)
    request = Request(BODY)
    assert output_upper(seen, request, TokenScale()) == 250
    assert output_upper(seen, request, TokenScale(), 7.5) == 250 + 3000


def test_without_a_request_hidden_output_is_unknown() -> None:
    """Thinking and no `max_tokens` leave nothing to bound it by."""
    found = ranged(Started(), BlockStarted(0, "thinking"), body=None)
    assert found.high.output_tokens is None
    assert output_upper(transcript(BlockStarted(0, "thinking")), None, TokenScale()) is None


@pytest.mark.parametrize("write", [0, 20, 110])
def test_a_cache_makes_the_bound_the_dearest(write: int) -> None:
    """However the input was cached in truth: its sum and its cost stay below the upper end."""
    body = {**BODY, "system": [{"type": "text", "text": "y" * 50, "cache_control": {"type": "ephemeral"}}]}
    found = ranged(Started(usage=Usage(input_tokens=9)), body=body)
    price = Price(input=_d(3), output=_d(15), cache_read=_d("0.3"), cache_write=_d("3.75"), cache_write_1h=_d(6))
    truth = Usage(input_tokens=110 + 9 - write, cache_write_tokens=write, cache_write_1h_tokens=write, output_tokens=5)
    assert (found.high.input_tokens, found.high.cache_write_tokens) == (9, most_input(body) - 9)
    high, true = cost(price, found.high), cost(price, truth)
    assert high is not None
    assert true is not None
    assert true <= high


def test_a_word_in_a_text_is_no_cache() -> None:
    """Somebody may write about `cache_control` without asking for one."""
    body = {**BODY, "system": 'say "cache_control": and "file_id":'}
    assert ranged(body=body).high.input_tokens == most_input(body)


def test_recorded_streams_cut_anywhere_hold_the_truth() -> None:
    """At every tenth delta of all 60 streams: what was truly generated up to there lies within the interval."""
    for stream in recorded():
        made = transcript(Started(usage=Usage(input_tokens=700)), TEXT)
        for position, piece in enumerate(stream.deltas, start=1):
            made.feed(Delta(0, "text", piece), 0.0)
            if position % 10 == 0:
                found = usage_range(made, Request({**BODY, "max_tokens": 400}), Calibration())
                # A delta of these streams holds one token or more; how many in all is known at the end.
                assert found.high.output_tokens is not None
                assert found.high.output_tokens >= position, stream.name
        final = usage_range(made, Request({**BODY, "max_tokens": 400}), Calibration())
        assert final.low.output_tokens is not None
        assert final.high.output_tokens is not None
        assert final.low.output_tokens <= stream.output_tokens <= final.high.output_tokens, stream.name


@pytest.mark.parametrize(
    ("told", "extra", "expected"),
    [
        (Usage(input_tokens=150), {}, InputEstimate(150, cache_writes=False)),
        (Usage(input_tokens=9), {}, InputEstimate(250 + FRAMING_ESTIMATE, cache_writes=False)),
        (Usage(), {}, InputEstimate(250 + FRAMING_ESTIMATE, cache_writes=False)),
        (
            Usage(input_tokens=9, cache_read_tokens=150),
            {"cache_control": {"type": "ephemeral"}},
            InputEstimate(250 + FRAMING_ESTIMATE, cache_writes=True),
        ),
        (Usage(input_tokens=150), {"container": {"file_id": "f"}}, None),
    ],
    ids=["a start that can be right", "a start that cannot", "no count", "a cache", "a file"],
)
def test_what_an_aborted_attempt_read(told: Usage, extra: dict[str, Any], expected: InputEstimate | None) -> None:
    """The start's count is taken where it can be all there is; else the text's weight at the upper end."""
    text = "a" * 400  # 0.25 each
    body = Request({"model": "m", "max_tokens": 9, "messages": text, **extra})
    made = transcript(Started(usage=told), TEXT)
    found = input_upper(made, body, TokenScale())
    if found is not None and expected is not None and found.tokens > 1000:
        found = msgspec.structs.replace(found, tokens=found.tokens - 3)  # the quotes around it
    assert found == expected


KINDS: list[BlockKind] = ["text", "thinking", "tool_input", "server_tool", "other"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.text("ab \n{", max_size=50)), max_size=5),
    st.none() | st.integers(0, 2000),
    st.none() | st.integers(1, 2000),
)
def test_an_interval_is_never_inside_out(
    blocks: list[tuple[BlockKind, str]], running: int | None, max_tokens: int | None
) -> None:
    """Whatever was seen: low <= high wherever both are known."""
    events: list[Event] = [Started(usage=Usage(input_tokens=5))]
    for index, (kind, text) in enumerate(blocks):
        events += [BlockStarted(index, kind), Delta(index, "text", text)]
    events.append(Metered(Usage(output_tokens=running)))
    found = ranged(*events, body=None if max_tokens is None else {**BODY, "max_tokens": max_tokens})
    for name in ("input_tokens", "output_tokens"):
        low, high = getattr(found.low, name), getattr(found.high, name)
        assert low is not None
        assert high is None or low <= high


def test_totals_add_up_field_by_field() -> None:
    """Sums of bounds are bounds; one unknown bound makes the sum unknown, a cache nobody spoke of does not."""
    exact = UsageRange.of(Usage(input_tokens=10, output_tokens=5, cache_read_tokens=3))
    cut = UsageRange(
        low=Usage(input_tokens=1, output_tokens=2), high=Usage(input_tokens=None, output_tokens=20), exact=False
    )
    assert UsageRange.total([exact, cut]) == UsageRange(
        low=Usage(input_tokens=11, output_tokens=7, cache_read_tokens=3),
        high=Usage(input_tokens=None, output_tokens=25, cache_read_tokens=3),
        exact=False,
    )
    assert UsageRange.total([exact, exact]).exact
    assert UsageRange.total([]) == UsageRange.nothing() == UsageRange.of(Usage(input_tokens=0, output_tokens=0))
