"""Checks of one's own: when the function is called and with what, and what its answers mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamguard
from streamguard import Check, JsonDocument, Policy, PolicyError, Trip, Where
from streamguard.errors import Problem
from streamguard.events import Delta
from streamguard.guards.base import AttemptContext, AwaitedWatch
from streamguard.guards.checks.custom import CustomCheck
from streamguard.guards.panel import Panel
from streamguard.policy.checks import check_policy, reasons_of
from streamguard.policy.given import as_policy
from streamguard.request import Request
from tests.guards.checks.test_verdicts import settled
from tests.guards.documents import Written, text_events, tool_events, ways

NEEDS = [
    ["/total"],
    ["/total", "/lines"],
    [""],
    ["", "/total"],
    ["/lines/*"],
    ["/lines/*/qty", "/lines/*/price"],
    ["/total", "/lines/*/qty", "/lines/*"],
    ["/lines/0/qty", "/total"],
    ["/rates/*", "/total"],
    ["/lines/*/parts/*/n", "/lines/*/qty", "/total"],
    ["/lines/*/parts/*", "/lines/*"],
    ["/*"],
    ["/*/0"],
    ["/*/*/qty", "/*/0/price"],
]

AMOUNTS = st.none() | st.integers(0, 9) | st.sampled_from([2.5, 0.1, "x", True, [], {}])
LINES = st.fixed_dictionaries(
    {},
    optional={
        "qty": AMOUNTS,
        "parts": st.lists(st.fixed_dictionaries({}, optional={"n": AMOUNTS}) | AMOUNTS, max_size=3) | AMOUNTS,
        "price": AMOUNTS,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "total": AMOUNTS,
        "rates": st.dictionaries(st.sampled_from(["a", "*", "~/"]), AMOUNTS, max_size=3) | AMOUNTS,
        "lines": st.lists(LINES | AMOUNTS, max_size=4) | AMOUNTS,
    },
).flatmap(lambda made: st.permutations(list(made)).map(lambda order: {name: made[name] for name in order}))


class Called(NamedTuple):
    """A call of a function."""

    at: int
    """How many characters of the document had come, as far as they matter."""
    values: str
    """The arguments, as JSON."""


def said(values: Any) -> str:
    """Values as a text; a number of JSON is a different one for each type."""
    return json.dumps(values, default=lambda one: f"Decimal {one}")


def expected(needs: list[str], written: Written) -> list[Called]:
    """Every call, by looking at the whole document."""
    split = [one.split("/") for one in needs]
    starred = [parts[: max(at for at, part in enumerate(parts) if part == "*") + 1] for parts in split if "*" in parts]
    item = max(starred, key=len, default=[])
    calls = []
    for path in written.ends if item else [""]:
        parts = path.split("/") if item else []
        if len(parts) != len(item) or not all(want in ("*", own) for want, own in zip(item, parts, strict=True)):
            continue
        own = ["/".join(parts[at] if part == "*" else part for at, part in enumerate(one)) for one in split]
        due = max(settled(pointer, written.ends) for pointer in own)
        calls.append(Called(due, said([written.values.get(pointer) for pointer in own])))
    return sorted(calls)


def calls(needs: list[str], parts: list[str], *, ahead: bool, tool: bool, wait: bool, **options: Any) -> list[Called]:
    """Every call that is made as a document comes in pieces."""
    found: list[Called] = []
    shown = 0

    def note(*values: Any) -> None:
        found.append(Called(shown, said(list(values))))

    async def later(*values: Any) -> None:
        note(*values)

    made = streamguard.check(needs=needs, reason="house.x", missing="call")(later if wait else note)
    section = JsonDocument(expect="any", where="tool:x" if tool else "text", **options)
    panel = Panel(Policy(json=section, checks=[made]).panel_guards, AttemptContext(), 0.0)
    events = tool_events(("x", parts)) if tool else text_events(parts)
    if ahead:
        panel.ahead(events, next(i for i, one in enumerate(events) if isinstance(one, Delta)), 0.0)
    for event in events:
        shown += len(event.text) if isinstance(event, Delta) else 0
        assert panel.feed(event, 0.0) is None
        for watch in panel.asynchronous:
            for due in watch.pending():
                assert asyncio.run(watch.check(due)) is None
    return sorted(found)


def first(length: int, parts: list[str]) -> int:
    """How many characters have come with the piece that has a character."""
    count = 0
    for part in parts:
        count += len(part)
        if count >= length:
            break
    return count


@pytest.mark.parametrize("needs", NEEDS, ids=" ".join)
@settings(max_examples=25, deadline=None)
@given(DOCUMENTS, st.integers(0, 99))
def test_each_call_is_made_once_and_at_once(needs: list[str], made: dict[str, Any], seed: int) -> None:
    """Whatever the pieces: with the values of the whole document, by the event that brings the last of them."""
    written = Written(made)
    due = expected(needs, written)
    for parts in ways(written.text, seed):
        now = sorted(Called(first(one.at, parts), one.values) for one in due)
        assert calls(needs, parts, ahead=False, tool=False, wait=False) == now
        assert calls(needs, parts, ahead=True, tool=False, wait=False) == now
    late = sorted(Called(len(written.text), one.values) for one in due)
    parts = list(written.text)
    assert calls(needs, parts, ahead=False, tool=False, wait=False, duplicate_names="allow") == late
    assert calls(needs, [written.text], ahead=False, tool=True, wait=True) == late


def verdict(made: CustomCheck, text: str, **options: Any) -> Trip | None:
    """What becomes of a document, character by character; asynchronous functions are asked."""
    panel = Panel(Policy(json=JsonDocument(**options), checks=[made]).panel_guards, AttemptContext(), 0.0)
    for event in text_events(list(text)):
        found = panel.feed(event, 0.0)
        if isinstance(found, Trip):
            return found
        for watch in panel.asynchronous:
            for due in watch.pending():
                if (answer := asyncio.run(watch.check(due))) is not None:
                    assert isinstance(answer, Trip)
                    return panel.stamped(answer, 0.0)
    return None


def function(answer: Any, wait: bool) -> Callable[..., Any]:
    """A function with an answer."""

    def total(value: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def later(value: Any) -> Any:
        return total(value)

    later.__name__ = "total"
    return later if wait else total


OWN = Trip(reason="other.thing", message="m")
GROUP = ExceptionGroup("two", [ValueError("no"), ExceptionGroup("one", [KeyError("a")])])
ANSWERS: list[tuple[Any, Any]] = [
    (None, None),
    (True, None),
    (False, ("house.x", "total does not hold: /total is 3 (at character 11, in /total)", "/total is 3")),
    ("too much", ("house.x", "too much (at character 11, in /total)", "/total is 3")),
    ("", ("house.x", "total does not hold: /total is 3 (at character 11, in /total)", "/total is 3")),
    (OWN, ("other.thing", "m", None)),
    (
        ValueError("no"),
        ("guard.failed", "guard total raised ValueError: no (at character 11, in /total)", "ValueError"),
    ),
    (
        GROUP,
        ("guard.failed", "guard total raised ValueError: no; KeyError: 'a' (at character 11, in /total)", "ValueError"),
    ),
    (
        AssertionError("3 is too much"),
        (
            "guard.failed",
            "guard total raised AssertionError: 3 is too much (at character 11, in /total)",
            "AssertionError",
        ),
    ),
    (
        3,
        (
            "guard.failed",
            (
                "guard total raised TypeError: answered 3, which is not True, False, None, a message or a Trip "
                "(at character 11, in /total)"
            ),
            "TypeError",
        ),
    ),
]


@pytest.mark.parametrize("wait", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize(("answer", "means"), ANSWERS, ids=[repr(answer)[:30] for answer, _ in ANSWERS])
def test_what_an_answer_means(answer: Any, means: Any, wait: bool) -> None:
    """Plain and asynchronous functions give the same verdict for the same answer; what they raise is a trip."""
    made = streamguard.check(needs=["/total"], reason="house.x")(function(answer, wait))
    found = verdict(made, '{"total": 3, "x": 1}')
    assert (found and (found.reason, found.message, found.observed)) == means
    if found is not None:
        assert (found.guard, found.where) == ("total", Where(event=13, block=0, offset=11, char=11, pointer="/total"))


@pytest.mark.parametrize("wait", [False, True], ids=["plain", "async"])
def test_an_interrupt_goes_through(wait: bool) -> None:
    """A cancellation or a keyboard interrupt is nobody's verdict."""
    made = streamguard.check(needs=["/total"], reason="house.x")(function(asyncio.CancelledError(), wait))
    with pytest.raises(asyncio.CancelledError):
        verdict(made, '{"total": 3, "x": 1}')


@pytest.mark.parametrize(
    "text", ['{"total": null, "n": 1}', '{"n": 1}', '{"total": {}, "n": 1}', '{"n": 2, "total": []}']
)
def test_a_value_that_is_not_there(text: str) -> None:
    """Not asked about, refused, or handed over as `None`; an empty object and an empty array are there."""
    there = "null" not in text and "total" in text
    seen: list[Any] = []
    for missing in ("skip", "reject", "call"):
        made = streamguard.check(needs=["/n", "/total"], reason="house.x", missing=missing)(  # type: ignore[arg-type]
            lambda n, total: seen.append((n, total))
        )
        found = verdict(made, text)
        assert (found is not None) == (missing == "reject" and not there)
        if found is not None:
            assert found.message.startswith("<lambda> needs /total, which is absent or null (at character ")
            assert found.observed == "absent"
    n, total = json.loads(text).get("n"), json.loads(text).get("total")
    assert seen == ([(n, total)] * 3 if there else [(n, None)])


def test_numbers_are_exact() -> None:
    """Whole numbers are `int`, others exact decimals, inside of arrays and objects, too."""
    seen: list[Any] = []
    made = streamguard.check(needs=["/a", "/b"], reason="house.x")(lambda a, b: seen.append((a, b)))
    text = '{"a": 0.1, "b": [12, 1e2, {"c": -0.20}, true, "x"]}'
    for options in ({}, {"duplicate_names": "allow"}):
        assert verdict(made, text, **options) is None
    value = (Decimal("0.1"), [12, Decimal("1e2"), {"c": Decimal("-0.20")}, True, "x"])
    assert repr(seen) == repr([value, value])


def test_a_function_may_change_what_it_is_given() -> None:
    """Each call has values of its own; what is said of them is what the answer had."""
    seen: list[Any] = []

    def emptied(lines: list[Any]) -> bool:
        seen.append(list(lines))
        lines.clear()
        return len(seen) < 2

    made = [streamguard.check(needs=["/lines"], reason="house.x")(emptied) for _ in range(2)]
    checks = [*made, Check(reason="check.x", that="count(l for l in doc.lines) == 9")]
    panel = Panel(Policy(json=JsonDocument(), checks=checks).panel_guards, AttemptContext(), 0.0)
    found = [one for event in text_events(['{"lines": [1, 2]}']) if (one := panel.feed(event, 0.0)) is not None]
    assert seen == [[1, 2], [1, 2]]
    assert isinstance(found[0], Trip)
    assert found[0].observed == "/lines is an array of 2"


def test_where_an_item_stands() -> None:
    """The trip names the item, whichever of its values was the last."""
    made = streamguard.check(needs=["/orders/*/id", "/orders/*/lines/*/n"], reason="house.x")(lambda id_, n: n != 2)
    found = verdict(made, '{"orders": [{"lines": [{"n": 1}, {"n": 2}], "id": "a"}, {"id": 1}]}')
    assert found is not None
    assert found.where is not None
    assert found.where.pointer == "/orders/0/lines/1"
    assert found.observed == '/orders/0/id is "a", /orders/0/lines/1/n is 2'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reason": "total"}, "reason must be dotted lower-case words such as 'house.shouting', not 'total'"),
        ({"reason": "json.mine"}, "reason 'json.mine' has a prefix of this package's own"),
        ({"needs": "/total"}, "needs must be a list of JSON Pointers such as ['/total', '/lines'], not '/total'"),
        ({"needs": []}, "needs must be a list of JSON Pointers such as ['/total', '/lines'], not []"),
        ({"needs": [3]}, "needs must be a list of JSON Pointers such as ['/total', '/lines'], not [3]"),
        ({"needs": ["total"]}, "needs: 'total' is no JSON Pointer: it is empty or begins with \"/\""),
        (
            {"needs": ["/lines/*/a", "/rates/*"]},
            (
                "needs: /rates/* and /lines/* are items of two places, and a function is called for each item of one: "
                "need the array itself for the other"
            ),
        ),
        ({"missing": "ignore"}, "missing must be one of skip, reject, call, not 'ignore'"),
        ({"mode": "off"}, "mode must be one of enforce, observe, not 'off'"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    """A mistake is told where the check is made, not in the middle of a stream."""
    with pytest.raises(PolicyError, match=r"@check: ") as error:
        streamguard.check(**({"needs": ["/total"], "reason": "house.x"} | options))
    assert message in str(error.value)


def test_a_function_that_cannot_be_called_so() -> None:
    """A function must take as many values as there are needs."""

    def total(a: int, b: int) -> bool:
        return a == b

    make = streamguard.check(needs=["/total"], reason="house.x")
    with pytest.raises(
        PolicyError, match=r"needs names 1 value, and total\(a: .*int.*\) .* does not take them: missing"
    ):
        make(total)
    with pytest.raises(PolicyError, match="@check needs a function, not 3"):
        make(3)  # type: ignore[arg-type]
    assert make(partial(total, 1))(1) is True
    assert make(max).name == "max"  # a builtin that does not say


class Async:
    """An object that is called."""

    async def __call__(self, total: int) -> None: ...


def test_what_is_awaited() -> None:
    """An `async def`, a partial of one, an object whose call is one."""

    async def total(given: int, value: int) -> None: ...

    make = streamguard.check(needs=["/total"], reason="house.x", name="mine")
    for one, waits in [(partial(total, 1), True), (Async(), True), (lambda total: None, False)]:
        made = make(one)
        assert (made.asynchronous, isinstance(made.watch(AttemptContext(), 0.0), AwaitedWatch)) == (waits, waits)
        assert (made.name, len({made, made})) == ("mine", 1)


SCHEMA = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "lines": {"type": "array", "items": {"properties": {"qty": {}}}}},
}


@pytest.mark.parametrize(
    ("needs", "problem"),
    [
        (["/totl"], "needs[0] of f, '/totl': the document has no member totl; did you mean \"total\"?"),
        (["/total", "/lines/*/qt"], "needs[1] of f, '/lines/*/qt': /lines/* has no member qt; did you mean \"qty\"?"),
        (["/total/*"], "needs[0] of f, '/total/*': /total is a number: it has no items"),
        (["/lines/*/qty"], None),
        (["/lines/0/qty"], None),
        ([""], None),
    ],
)
def test_needs_that_the_schema_does_not_know(needs: list[str], problem: str | None) -> None:
    """Nobody sends anything under such a policy, wherever it has its schema from and its check stands."""

    def f(*values: Any) -> None: ...

    made = streamguard.check(needs=needs, reason="house.x")(f)
    for section in ("checks", "guards"):
        policy = Policy(json=JsonDocument(schema=SCHEMA), **{section: [made]})  # type: ignore[arg-type]
        found = [(one.path, one.problem) for one in check_policy(policy)]
        assert found == ([((section, 0), problem)] if problem else [])
        if problem:
            with pytest.raises(PolicyError) as error:
                as_policy(policy)
            assert list(error.value.problems) == [Problem(pointer=f"/{section}/0", problem=problem)]
    asks = Policy(json=JsonDocument(schema="request"), checks=[made])
    request = Request({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}})
    for _ in range(1 if problem else 0):
        with pytest.raises(PolicyError) as error:
            Panel(asks.panel_guards, AttemptContext(request=request), 0.0)
        assert list(error.value.problems) == [Problem(pointer="/checks", problem=problem or "")]


def test_a_check_needs_a_document() -> None:
    """Without a json section there is nothing to check."""
    made = streamguard.check(needs=["/total"], reason="house.x")(lambda total: None)
    what = "checks are about a JSON document: add a json section, such as json: {}"
    assert [(one.path, one.problem) for one in check_policy(Policy(checks=[made]))] == [(("checks",), what)]
    assert [(one.path, one.problem) for one in check_policy(Policy(guards=[made]))] == [(("guards", 0), what)]
    for policy in (Policy(checks=[made]), Policy(guards=[made])):
        with pytest.raises(PolicyError, match=r"house.x is a check of a document, and there is none"):
            Panel(policy.panel_guards, AttemptContext(), 0.0)


def test_in_a_policy() -> None:
    """Beside expressions and as a guard; it is equal to itself, known by its reason, and can be written out."""
    made = streamguard.check(needs=["/total"], reason="house.x")(lambda total: None)
    expression = Check(reason="check.x", that="doc.total > 0")
    policy = Policy(json=JsonDocument(), checks=[expression, made])
    assert policy.checks == (expression, made)
    assert policy == policy.replace(mode="enforce")
    assert hash(policy) == hash(policy.replace())
    assert "house.x" in reasons_of(policy)
    assert "house.x" in reasons_of(Policy(json=JsonDocument(), guards=[made]))
    assert policy.model_dump(by_alias=True)["checks"][0]["reason"] == "check.x"
    with pytest.raises(PolicyError, match="/checks/0"):
        Policy(checks=[lambda total: None])  # type: ignore[list-item]
