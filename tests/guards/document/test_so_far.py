"""What a guard of one's own sees of the finished values of a document, whenever it looks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import JsonDocument, Policy, View
from streamguard.events import Delta, Event
from streamguard.guards.base import AttemptContext
from streamguard.guards.panel import Panel
from streamguard.request import Request
from streamguard.testing import scripted
from tests.guards.documents import Written, text_events, tool_events, ways

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([0.1, 2.5, 1e300])
    | st.text('ab"\\/~é\U0001f600', max_size=4)
)
NAMES = st.text("ab/~*0é", max_size=2)
VALUES = st.recursive(
    SCALARS, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=3), max_leaves=12
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4) | st.lists(VALUES, max_size=4)


def seen(section: JsonDocument, events: Sequence[Event], *, body: Any = None, ahead: bool = False) -> list[View]:
    """The views that a guard gets of an answer, one for each delta."""
    views: list[View] = []
    record = streamguard.guard(reason="house.x", kinds=("text", "tool_input"))(views.append)
    policy = Policy(json=section, guards=[record], mode="observe")
    request = None if body is None else Request(body)
    panel = Panel(policy.panel_guards, AttemptContext(request=request), 0.0, mode="observe")
    for place, event in enumerate(events):
        if ahead and isinstance(event, Delta) and not isinstance(events[place - 1], Delta):
            panel.ahead(events, place, 0.0)
        panel.feed(event, 0.0)
    return views


def shown(parts: Sequence[str]) -> list[int]:
    """How many characters have come with each part."""
    return [sum(map(len, parts[: count + 1])) for count in range(len(parts))]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(0, 99), st.integers(0, 8))
def test_every_view_has_what_is_complete(made: Any, seed: int, first: int) -> None:
    """Whatever the pieces, whether or not they are read ahead, and from whichever view on somebody looks."""
    written = Written(made)
    for parts in ways(written.text, seed):
        for ahead in (False, True):
            views = seen(JsonDocument(expect="any"), text_events(parts), ahead=ahead)
            assert len(views) == len(parts)
            for view, length in list(zip(views, shown(parts), strict=True))[first:]:
                assert list(view.values.items()) == list(written.complete(length).items())
                assert len(view.values) == len(written.complete(length))
        tool = seen(JsonDocument(expect="any", where="tool:x"), tool_events(("x", parts)))
        assert dict(tool[-1].values) == written.complete(len(written.text))


def test_it_looks_while_the_answer_comes() -> None:
    """Each view, when it comes, has what has come: nothing more, however far the document was read."""
    written = Written({"a": [1, {"b": "c"}], "d": 2.50, "e": ""})
    parts = list(written.text)
    for ahead in (False, True):
        found: list[dict[str, Any]] = []
        record = streamguard.guard(reason="house.x")(lambda view: found.append(dict(view.values)))  # noqa: B023
        panel = Panel(Policy(json=JsonDocument(), guards=[record]).panel_guards, AttemptContext(), 0.0)
        events = text_events(parts)
        if ahead:
            panel.ahead(events, 2, 0.0)
        assert [panel.feed(event, 0.0) for event in events] == [None] * len(events)
        assert found == [written.complete(length) for length in shown(parts)]


FENCED = ["Here", " it is: ", '```json\n{"a"', ': 1, "b": 2', "}\n```"]


@pytest.mark.parametrize("ahead", [False, True])
def test_only_the_document_counts(ahead: bool) -> None:
    """Words before it, its fence and what follows are none of it; a prefill is."""
    views = seen(JsonDocument(preamble="skip", fence="strip"), text_events(FENCED), ahead=ahead)
    assert [dict(view.values) for view in views] == [{}, {}, {}, {"/a": 1}, {"/a": 1, "/b": 2, "": {"a": 1, "b": 2}}]
    body = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": '{"a": 1,'}]}
    views = seen(JsonDocument(), text_events([' "b": "c"', "}"]), body=body, ahead=ahead)
    assert [list(view.values) for view in views] == [["/a", "/b"], ["/a", "/b", ""]]


def test_of_several_calls_it_is_the_latest() -> None:
    """One document after the other; of a tool that nobody asked for there is none."""
    events = tool_events(("x", ['{"a": 1}']), ("y", ['{"b": 1}']), ("x", ['{"c":', " 1}"]))
    assert [list(view.values) for view in seen(JsonDocument(where="tool:x"), events)] == [
        ["/a", ""],
        ["/a", ""],
        [],
        ["/c", ""],
    ]
    assert [list(view.values) for view in seen(JsonDocument(where="tools"), events)][1] == ["/b", ""]


def test_where_names_repeat_the_accepted_document_counts() -> None:
    """A later value replaces an earlier one, so nothing is known before the end."""
    views = seen(JsonDocument(duplicate_names="allow"), text_events(['{"a": {"b": 1}, ', '"a": 2, "c": [2.5]}']))
    assert [dict(view.values) for view in views] == [{}, {}]
    found: list[dict[str, Any]] = []
    last = streamguard.guard(reason="house.x", every=10**6)(lambda view: found.append(dict(view.values)))
    policy = Policy(json=JsonDocument(duplicate_names="allow"), guards=[last])
    panel = Panel(policy.panel_guards, AttemptContext(), 0.0)
    for event in text_events(['{"a": {"b": 1}, ', '"a": 2, "c": [2.5]}']):
        assert panel.feed(event, 0.0) is None
    assert found == [{"/a": 2, "/c/0": Decimal("2.5"), "/c": [Decimal("2.5")], "": {"a": 2, "c": [Decimal("2.5")]}}]


@pytest.mark.parametrize("text", ["12", '"x"', "[]"])
def test_a_document_that_is_one_value(text: str) -> None:
    """A number is complete when the answer is."""
    found: list[Any] = []
    last = streamguard.guard(reason="house.x", every=100)(lambda view: found.append(dict(view.values)))
    panel = Panel(Policy(json=JsonDocument(expect="any"), guards=[last]).panel_guards, AttemptContext(), 0.0)
    for event in text_events([text]):
        panel.feed(event, 0.0)
    assert found == [{"": json.loads(text)}]


def test_a_mapping_like_any_other() -> None:
    """Looked up, asked for and left out; without a document it is empty."""
    view = seen(JsonDocument(), text_events(['{"a": 1, "b": 2', "}"]))[0]
    assert (view.values["/a"], view.values.get("/b"), "/b" in view.values, 3 in view.values) == (1, None, False, False)
    with pytest.raises(KeyError, match="/b"):
        view.values["/b"]
    assert repr(view.values) == "Values({'/a': 1})"
    assert View(text="x").values == {}
    assert View(text="x", values={"/a": 1}).values == {"/a": 1}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_asynchronous_guard_looks_up_too(backend: str) -> None:
    """In a whole call, it ends the answer by a value that is complete."""

    @streamguard.guard(reason="house.currency")
    async def known(view: View) -> str | None:
        await anyio.lowlevel.checkpoint()
        return "no such currency" if view.values.get("/currency") == "XXX" else None

    policy = Policy(json=JsonDocument(), guards=[known])
    source = scripted.script(scripted.answer('{"currency": "XXX", "lines": []}'))

    async def run() -> str:
        with pytest.raises(streamguard.GaveUp) as caught:
            await streamguard.run(source, policy=policy)
        return caught.value.record.reasons[0]

    assert anyio.run(run, backend=backend) == "house.currency"
