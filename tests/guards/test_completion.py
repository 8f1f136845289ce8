"""Stop reasons, content and the order of events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Other, Ping, Started, Stopped, Usage
from streamguard.guards.base import AttemptContext, Watch
from streamguard.guards.completion import STOP_REASONS, Completion
from streamguard.request import Request
from streamguard.verdict import Trip, Where

TEXT = (BlockStarted(0, "text"), Delta(0, "text", "{}"), BlockStopped(0))
CALL = (BlockStarted(0, "tool_input"), Delta(0, "tool_input", "{}"), BlockStopped(0))


HINTS = {
    "max_tokens": "; a rule of retry.rules can ask again with more (patch: max_tokens)",
    "refusal": "; streamguard:interactive_chat accepts it",
    "pause_turn": "; streamguard:agent accepts it",
    "compaction": "; add it there, and send the turn back to go on",
}
"""What else to do about a stop reason that is not accepted."""


def end(stop_reason: str | None) -> tuple[Event, ...]:
    return (Metered(Usage(output_tokens=3), stop_reason=stop_reason), Stopped(stop_reason))


def fed(*events: Event, spec: Completion | None = None, **ctx: Any) -> Trip | None:
    """The verdict on the last event; none may come before."""
    watch = (spec or Completion()).watch(AttemptContext(**ctx), 0.0)
    assert isinstance(watch, Watch)
    *before, last = events
    assert [watch.feed(event, 0.0) for event in before] == [None] * len(before)
    return watch.feed(last, 0.0)


@pytest.mark.parametrize(
    ("blocks", "stop_reason"),
    [(TEXT, "end_turn"), (TEXT, "stop_sequence"), (CALL, "tool_use"), (CALL, "end_turn")],
)
def test_a_good_end_is_accepted(blocks: tuple[Event, ...], stop_reason: str) -> None:
    """A complete protocol, an accepted stop reason and content: no verdict."""
    assert fed(Started(), Ping(), *blocks, *end(stop_reason)) is None


@pytest.mark.parametrize(
    ("stop_reason", "reason", "seen"),
    [
        ("max_tokens", "stop.max_tokens", "the answer was cut off at max_tokens (100)"),
        ("refusal", "stop.refusal", "the model refused"),
        ("pause_turn", "stop.pause", "the provider paused the turn"),
        (
            "model_context_window_exceeded",
            "stop.context_window",
            "the answer was cut off where the context window ends",
        ),
        ("compaction", "stop.not_allowed", "the provider compacted the conversation"),
        ("brand_new", "stop.unknown", "unknown stop reason 'brand_new'"),
        (None, "stop.unknown", "the provider gave no stop reason"),
    ],
)
def test_every_other_end_trips(stop_reason: str | None, reason: str, seen: str) -> None:
    """Each stop reason that is not accepted has a reason of ours; unknown ones and none are never success."""
    trip = fed(Started(), *TEXT, *end(stop_reason), request=Request({"model": "m", "max_tokens": 100}))
    accept = ("end_turn", "stop_sequence", "tool_use")
    assert trip == Trip(
        reason=reason,
        message=f"{seen}; completion.accept is end_turn, stop_sequence, tool_use" + HINTS.get(stop_reason or "", ""),
        knob="completion.accept",
        limit=accept,
        observed=stop_reason,
        guard="completion",
    )


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", "tool_use"])
def test_a_known_reason_that_is_left_out_is_not_allowed(stop_reason: str) -> None:
    """A policy for tools alone may refuse the end of a turn, and the other way round."""
    others = tuple({"end_turn", "tool_use"} - {stop_reason})
    trip = fed(Started(), *CALL, *end(stop_reason), spec=Completion(accept=others))
    assert trip is not None
    assert trip.reason == "stop.not_allowed"


def test_a_cut_can_be_accepted_on_purpose() -> None:
    """`max_tokens` in `accept` is the user's word."""
    assert fed(Started(), *TEXT, *end("max_tokens"), spec=Completion(accept=("max_tokens",))) is None


def test_the_last_stop_reason_counts() -> None:
    """Usage may come several times; a source whose end has no reason of its own leaves the last one standing."""
    metered = (
        Metered(Usage(output_tokens=1)),
        Metered(Usage(), stop_reason="refusal"),
        Metered(Usage(output_tokens=2)),
    )
    trip = fed(Started(), *TEXT, *metered, Stopped())
    assert trip is not None
    assert trip.reason == "stop.refusal"


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (BlockStarted(0, "text"), Delta(0, "text", " \n"), Delta(0, "text", ""), BlockStopped(0)),
        (BlockStarted(0, "thinking"), Delta(0, "thinking", "hm"), BlockStopped(0)),
        (BlockStarted(0, "server_tool"), Delta(0, "tool_input", "{}"), BlockStopped(0)),
    ],
)
def test_an_empty_answer_trips(blocks: tuple[Event, ...]) -> None:
    """No blocks, blank text, thinking alone and the provider's own tools are no answer; unless none is required."""
    trip = fed(Started(), *blocks, *end("end_turn"))
    assert trip is not None
    assert (trip.reason, trip.knob) == ("stop.empty", "completion.require_content")
    assert fed(Started(), *blocks, *end("end_turn"), spec=Completion(require_content=False)) is None


@pytest.mark.parametrize("require_content", [True, False])
def test_tool_use_without_a_tool_is_empty(require_content: bool) -> None:
    """The stop reason promises a call; text instead of it is not what was promised."""
    trip = fed(Started(), *TEXT, *end("tool_use"), spec=Completion(require_content=require_content))
    assert trip is not None
    assert (trip.reason, trip.message) == ("stop.empty", "the stop reason is tool_use, but no tool was called")


@pytest.mark.parametrize(
    ("events", "what", "block"),
    [
        ((Started(), Started()), "a second message start", None),
        ((TEXT[0],), "the start of a content block before the message's start", 0),
        ((TEXT[1],), "output before the message's start", 0),
        ((Stopped("end_turn"),), "a message end before the message's start", None),
        ((Started(), Delta(3, "text", "x")), "output for content block 3, which was never opened", 3),
        ((Started(), TEXT[0], CALL[1]), "a piece of tool_input in content block 0, which is text", 0),
        ((Started(), CALL[0], TEXT[1]), "a piece of text in content block 0, which is tool_input", 0),
        (
            (Started(), BlockStarted(0, "server_tool"), TEXT[1]),
            "a piece of text in content block 0, which is server_tool",
            0,
        ),
        ((Started(), *TEXT, TEXT[1]), "output for content block 0, which is closed", 0),
        ((Started(), BlockStopped(2)), "the end of content block 2, which was never opened", 2),
        ((Started(), *TEXT, BlockStopped(0)), "the end of content block 0, which was closed already", 0),
        ((Started(), TEXT[0], TEXT[0]), "content block 0 opened a second time", 0),
        ((Started(), *TEXT, TEXT[0]), "content block 0 opened a second time", 0),
        ((Started(), *TEXT[:2], *end("end_turn")), "the message's end while content block 0 is open", None),
        ((Started("a"), Started("b")), "a second message start", None),
        ((Started("a"), *TEXT, Started("a")), "a second message start", None),
        ((Started("a"), TEXT[0], Started("a")), "a second message start", None),
    ],
)
def test_a_broken_protocol_trips(events: tuple[Event, ...], what: str, block: int | None) -> None:
    """Missing, doubled and mixed-up events are told at once, with the block."""
    assert fed(*events) == Trip(
        reason="transport.decode",
        message=f"the stream breaks the protocol: {what}",
        where=Where(block=block),
        guard="completion",
    )


def test_a_start_may_be_said_again_before_any_block() -> None:
    """Gateways that rebuild a stream repeat the start; the same id says that it is the same answer."""
    assert fed(Started("a"), Started("a", model="m"), *TEXT, *end("end_turn")) is None


def test_a_turn_that_goes_on_needs_any_block() -> None:
    """A paused or compacted turn that is accepted by name has work of the provider's, and nothing more."""
    spec = Completion(accept=("pause_turn", "compaction"))
    for reason in ("pause_turn", "compaction"):
        work = (BlockStarted(0, "server_tool"), Delta(0, "tool_input", "{}"), BlockStopped(0))
        assert fed(Started(), *work, *end(reason), spec=spec) is None
        trip = fed(Started(), *end(reason), spec=spec)
        assert trip is not None
        assert trip.reason == "stop.empty"


@pytest.mark.parametrize("named", [None, "END"])
@pytest.mark.parametrize("request_", [None, {}, {"stop_sequences": []}, {"stop_sequences": ["END"]}])
def test_a_stop_sequence_that_nobody_asked_for_is_unknown(named: str | None, request_: dict[str, Any] | None) -> None:
    """Gateways say it of filtered answers. It is refused only where it cannot be true."""
    request = None if request_ is None else Request({"model": "m", "max_tokens": 9, "messages": [], **request_})
    watch = Completion().watch(AttemptContext(request=request), 0.0)
    events = (Started(), *TEXT, Metered(Usage(), "stop_sequence", named), Stopped("stop_sequence"))
    trips = [trip for event in events if (trip := watch.feed(event, 0.0)) is not None]
    impossible = named is None and request is not None and not request.body.get("stop_sequences")
    assert [trip.reason for trip in trips] == (["stop.unknown"] if impossible else [])


@pytest.mark.parametrize(
    ("events", "spec", "ended"),
    [
        ((Metered(Usage(), "end_turn"), Other("[DONE]")), Completion(done_ends=True), True),
        ((Metered(Usage(), "end_turn"), Other("[DONE]")), Completion(), False),
        ((Metered(Usage(), "end_turn"),), Completion(done_ends=True), False),
        ((Other("[DONE]"),), Completion(done_ends=True), False),
        ((TEXT[0], Metered(Usage(), "end_turn"), Other("[DONE]")), Completion(done_ends=True), False),
    ],
)
def test_another_end_mark(events: tuple[Event, ...], spec: Completion, ended: bool) -> None:
    """It ends an answer only where the policy says so, with a stop reason and no block open."""
    watch = spec.watch(AttemptContext(), 0.0)
    assert [watch.feed(event, 0.0) for event in (Started(), *events)] == [None] * (len(events) + 1)
    assert watch.ended is ended


@pytest.mark.parametrize("pieces", ["text", "thinking", "tool_input"])
def test_blocks_yet_to_be_invented_may_be_made_of_anything(pieces: Any) -> None:
    """Only of text, thinking and tools it is known what they are made of."""
    block = (BlockStarted(1, "other"), Delta(1, pieces, "x"), BlockStopped(1))
    assert fed(Started(), *TEXT, *block, *end("end_turn")) is None


def test_keep_alives_may_stand_anywhere() -> None:
    """Pings and unknown events are outside the protocol, before the start too."""
    watch = Completion().watch(AttemptContext(), 0.0)
    extra = (Ping(), Other("shiny"), Other("citation", 7))
    events = (*extra, Started(), *extra, *TEXT, *extra, *end("end_turn"))
    assert [watch.feed(event, 0.0) for event in events] == [None] * len(events)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.randoms(use_true_random=False))
def test_blocks_may_interleave(sizes: list[int], order: Any) -> None:
    """Any merge of well-formed blocks is well-formed."""
    blocks = [
        [BlockStarted(i, "text"), *[Delta(i, "text", "x")] * size, BlockStopped(i)] for i, size in enumerate(sizes)
    ]
    merged: list[Event] = []
    while any(blocks):
        merged.append(order.choice([block for block in blocks if block]).pop(0))
    assert fed(Started(), *merged, *end("end_turn"), spec=Completion(require_content=False)) is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(BlockStarted, st.integers(0, 2), st.just("text")),
            st.builds(Delta, st.integers(0, 2), st.just("text"), st.just("x")),
            st.builds(BlockStopped, st.integers(0, 2)),
        ),
        max_size=10,
    )
)
def test_it_agrees_with_the_grammar(events: list[Event]) -> None:
    """A stream is accepted just if each block's own events read: one start, any output, one end."""
    grammar = all(
        [type(e) for e in events if e.index == i] in ([], [BlockStarted, *[Delta] * n, BlockStopped])  # type: ignore[union-attr]
        for i in range(3)
        for n in [sum(type(e) is Delta and e.index == i for e in events)]
    )
    watch = Completion(require_content=False).watch(AttemptContext(), 0.0)
    verdicts = [watch.feed(event, 0.0) for event in (Started(), *events, *end("end_turn"))]
    assert all(verdict is None for verdict in verdicts) == grammar


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        (["end_trun"], "accept: unknown stop reason 'end_trun'; did you mean 'end_turn'"),
        (["zzz"], "accept: unknown stop reason 'zzz'; known are end_turn, stop_sequence"),
        ([], "accept needs at least one stop reason"),
    ],
)
def test_accept_is_checked(accept: list[str], message: str) -> None:
    """A typing mistake would make every answer trip, so it is told when the policy is read."""
    with pytest.raises(ValidationError, match=message):
        Completion.model_validate({"accept": accept})


def test_a_file_and_code_give_equal_hashable_specs() -> None:
    """A file's list is a tuple, and every known stop reason may be accepted."""
    read = Completion.model_validate({"accept": list(STOP_REASONS)})
    assert read == Completion(accept=tuple(STOP_REASONS))
    assert len({read, Completion(accept=tuple(STOP_REASONS))}) == 1
    assert read.name == "completion"
