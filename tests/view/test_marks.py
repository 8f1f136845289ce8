"""Where the first wrong character stands: what the display marks is what the guard meant, whatever stands around it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import Content, Grounded, JsonDocument, Policy, Repetition, Runtime
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Metered, Started, Stopped, Usage
from streamguard.testing import script
from streamguard.verdict import Trip, Where
from streamguard.view.board import Board
from streamguard.view.marks import mark

TOOL = {"name": "t", "input_schema": {"type": "object"}}


def stream(*blocks: tuple[str, str], size: int = 3) -> list[Event]:
    """An answer of (kind, text) blocks."""
    events: list[Event] = [Started("m", "model", Usage(input_tokens=3))]
    for index, (kind, text) in enumerate(blocks):
        events.append(BlockStarted(index, kind, "x", name="t", id="i"))
        events += [Delta(index, kind, text[at : at + size]) for at in range(0, len(text), size)]
        events.append(BlockStopped(index))
    return [*events, Metered(Usage(output_tokens=3), "end_turn"), Stopped("end_turn")]


def marked(
    policy: Policy, *blocks: tuple[str, str], prefill: str = "", size: int = 3
) -> tuple[str, int, str, str] | None:
    """What the board marks of an answer: the reason, the block, what stands before the mark, the character."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
    if prefill:
        messages.append({"role": "assistant", "content": prefill})
    request = {"model": "m", "max_tokens": 99, "messages": messages, "tools": [TOOL]}

    async def main() -> Any:
        runtime = Runtime()
        board = Board(runtime)
        source = script(stream(*blocks, size=size), request=request)
        with pytest.raises(streamguard.GaveUp) as caught:
            await streamguard.run(source, policy=policy, runtime=runtime)
        [name] = board.overview()["finished"]
        [attempt] = board.detail(name)["attempts"].values()
        for block in attempt["blocks"]:
            if block["mark"] is not None:
                at, text = block["mark"], block["text"]
                return caught.value.reason, block["index"], text[:at], text[at : at + 1]
        return None

    return anyio.run(main)


def json(**options: Any) -> Policy:
    return Policy(json=JsonDocument(**options))


@pytest.mark.parametrize(
    ("policy", "blocks", "prefill", "found"),
    [
        (json(), [("text", '{"a" 1}')], "", ("json.malformed", 0, '{"a" ', "1")),
        (json(), [("text", ' \n{"ä": é}')], "", ("json.malformed", 0, ' \n{"ä": ', "é")),
        (json(), [("thinking", "hm"), ("text", '{"a": '), ("text", "1 2}")], "", ("json.malformed", 2, "1 ", "2")),
        (json(), [("text", '"a" 1}')], '{"b": 2, ', ("json.malformed", 0, '"a" ', "1")),
        (json(fence="strip"), [("text", '```json\n{"a" 1}\n```')], "", ("json.malformed", 0, '```json\n{"a" ', "1")),
        (json(preamble="skip"), [("text", 'Well: {"a" 1}')], "", ("json.malformed", 0, 'Well: {"a" ', "1")),
        (json(), [("text", "Sorry, no.")], "", ("json.preamble", 0, "", "S")),
        (json(), [("text", '```json\n{"a": 1}')], "", ("json.fence", 0, "", "`")),
        (json(), [("text", '{"a": 1} and')], "", ("json.trailing", 0, '{"a": 1} ', "a")),
        (json(fence="strip"), [("text", '```\n{"a": 1}\n``` x')], "", ("json.trailing", 0, '```\n{"a": 1}\n``` ', "x")),
        (
            json(where="tools"),
            [("text", "so"), ("tool_input", '{"a": 1}'), ("tool_input", '{"b" 1}')],
            "",
            ("json.malformed", 2, '{"b" ', "1"),
        ),
        (
            json(schema={"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}),
            [("text", '{"a": "z"}')],
            "",
            ("json.schema", 0, '{"a": "', "z"),
        ),
        (
            Policy(content=[Content(reason="content.apology", pattern="sorry")]),
            [("text", "I am "), ("text", "so sorry, indeed")],
            "",
            ("content.apology", 1, "so ", "s"),
        ),
        (json(), [("text", '{"a": 1')], "", None),
        (Policy(caps=streamguard.Caps(characters=4)), [("text", "Hello there")], "", None),
    ],
)
def test_marks(policy: Policy, blocks: Any, prefill: str, found: Any) -> None:
    """The mark is on the character that the trip is about: behind fences, preambles and prefills, in whichever block."""
    for size in (1, 3, 100):
        assert marked(policy, *blocks, prefill=prefill, size=size) == found


def test_a_loop() -> None:
    """A loop's mark is behind the last character that was looked at."""
    reason, block, before, _ = marked(Policy(repetition=Repetition()), ("text", "so " + "on and on " * 80))
    assert (reason, block) == ("repetition.loop", 0)
    assert len(before) > 100


@pytest.mark.parametrize(
    "where",
    [
        None,
        Where(),
        Where(block=0),
        Where(char=1),
        Where(block=9, char=1),
        Where(block=0, char=99),
        Where(block=0, char=-1),
    ],
)
def test_no_mark(where: Where | None) -> None:
    """A trip without a place, or with one that is not there, marks nothing."""
    trip = Trip(reason="house.rule", message="no", where=where)
    assert mark(trip, [(0, "text", "abc")], None, None) is None


@settings(max_examples=60, deadline=None)
@given(
    cut=st.integers(1, 40),
    sizes=st.integers(1, 7),
    around=st.sampled_from([("", {}), ("```json\n", {"fence": "strip"}), ("See: ", {"preamble": "skip"})]),
)
def test_the_mark_is_where_the_document_was_broken(cut: int, sizes: int, around: Any) -> None:
    """A document broken at any place is marked at or before that place, and behind what stands before it."""
    document = '{"total": 12, "lines": ["ä", {"b": [1, 2]}]}'
    before, options = around
    cut = min(cut, len(document) - 1)
    broken = before + document[:cut] + "\x01" + document[cut:]
    found = marked(json(**options), ("text", broken), size=sizes)
    if found is not None:
        assert len(before) <= len(found[2]) <= len(before) + cut
        assert broken.startswith(found[2])


def test_what_stands_nowhere_in_the_source() -> None:
    """The first character with which a value occurs nowhere is marked, and the source's sentence stands beside it."""
    policy = json(grounded=[Grounded(at="/a")])
    assert marked(policy, ("text", '{"a": "xyz"}')) == ("json.ungrounded", 0, '{"a": "x', "y")

    async def main() -> Any:
        runtime = Runtime()
        board = Board(runtime)
        source = script(stream(("text", '{"a": "Globex Inc"}')))
        with pytest.raises(streamguard.GaveUp):
            await streamguard.run(source, policy=policy, runtime=runtime, source_text="Order of Globex AG, Basel")
        [name] = board.overview()["finished"]
        [attempt] = board.detail(name)["attempts"].values()
        return attempt["ended"]

    ended = anyio.run(main)
    assert (ended["reason"], ended["where"]["pointer"]) == ("json.ungrounded", "/a")
    assert ended["message"].startswith(
        'nowhere in the source stands "Globex I": it has "Globex ", in "Order of Globex AG, Basel" (at character'
    )
