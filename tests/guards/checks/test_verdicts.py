"""A check is decided as soon as the last value that it reads is complete, and as it would be at the end."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events import Delta
from streamguard.guards.base import AttemptContext
from streamguard.guards.checks.spec import Check
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.policy.model import Policy
from streamguard.verdict import Trip
from tests.guards.checks.evaluated import outcome
from tests.guards.documents import text_events, tool_events, ways


class Case(NamedTuple):
    """An expression, and what it has to wait for, as a person sees it."""

    that: str
    needs: tuple[str, ...]
    at: str | None = None
    split: str | None = None
    """The array whose first false item decides, and the expression of one item `it`."""


CASES = [
    Case("doc.total == sum(l.amount for l in doc.lines)", ("/total", "/lines")),
    Case("abs(doc.total - sum(l.amount for l in doc.lines)) < 0.005", ("/total", "/lines")),
    Case("doc.total >= 0", ("/total",)),
    Case("doc.tax <= doc.total", ("/tax", "/total")),
    Case("not has(doc.tax) or doc.tax <= doc.total", ("/tax", "/total")),
    Case("count(l for l in doc.lines if has(l.amount)) == len(doc.lines)", ("/lines",)),
    Case("0 <= days(date(doc.due), date(doc.date)) <= 366", ("/due", "/date")),
    Case("doc.lines[0].amount <= doc.total", ("/lines/0/amount", "/total")),
    Case('doc.lines[0].amount > 1 or doc.address.city == "Rome"', ("/lines/0/amount", "/address/city")),
    Case("doc.lines[doc.n].amount <= doc.total", ("/lines", "/n", "/total")),
    Case("any(l.amount > doc.total for l in doc.lines) == False", ("/lines", "/total")),
    Case("distinct(l.sku for l in doc.lines)", ("/lines",)),
    Case("max(l.amount for l in doc.lines if l.qty > 0) <= doc.total", ("/lines", "/total")),
    Case('lower(doc.address["city"]) in ("rome", "oslo")', ("/address/city",)),
    Case("all(l.qty > 0 for l in doc.lines)", (), split="it.qty > 0"),
    Case("all(l.qty > 0 for l in doc.lines) and doc.total > 0", ("/lines", "/total")),
    Case("it.qty * it.price == it.amount", (), "/lines/*"),
    Case("it.amount <= doc.total", ("/total",), "/lines/*"),
    Case("index < doc.n", ("/n",), "/lines/*"),
    Case("it.amount % 7 != 3 or it.qty // 2 == 1", (), "/lines/*"),
    Case("it.price > (2 if it.qty == 2 else 0)", (), "/lines/*"),
    Case("it > 0", (), "/rates/*"),
]

AMOUNTS = st.sampled_from([0, 1, 2, 2.5, 10, 0.1, 0.2, 0.3, 12.75])
SOMETIMES = st.sampled_from([None, "two", True, -1, 1e40])


def _mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).flatmap(lambda n: SOMETIMES if n == 0 else values)


LINES = st.fixed_dictionaries(
    {},
    optional={
        "sku": _mostly(st.sampled_from(["a", "b", "c", "d"])),
        "qty": _mostly(st.integers(0, 4)),
        "price": _mostly(AMOUNTS),
        "amount": _mostly(AMOUNTS),
    },
)
FULL = st.tuples(st.integers(1, 4), AMOUNTS, st.sampled_from("abcd")).map(
    lambda t: {"sku": t[2], "qty": t[0], "price": t[1], "amount": float(Decimal(str(t[1])) * t[0])}
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "total": _mostly(AMOUNTS),
        "tax": _mostly(AMOUNTS),
        "n": _mostly(st.integers(0, 3)),
        "due": _mostly(st.sampled_from(["2026-01-31", "2027-02-28", "soon"])),
        "date": _mostly(st.sampled_from(["2026-01-01", "2026-12-31"])),
        "address": _mostly(st.fixed_dictionaries({}, optional={"city": st.sampled_from(["Rome", "Bonn"])})),
        "rates": _mostly(st.dictionaries(st.sampled_from(["a", "b", "*"]), AMOUNTS, max_size=3)),
        "lines": _mostly(st.lists(FULL, max_size=4) | st.lists(LINES, max_size=4)),
    },
).flatmap(lambda made: st.permutations(list(made)).map(lambda order: {name: made[name] for name in order}))


def ends(text: str) -> dict[str, int]:
    """For each value of a document the number of characters that show that it is complete."""
    found: dict[str, int] = {}

    def walk(value: Any, path: str, begin: int) -> int:
        end = begin
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            end += 1
            for key, item in pairs:
                end += len(json.dumps(key)) + 1 if isinstance(key, str) else 0
                end = walk(item, f"{path}/{key}", end) + 1
            end = end if value else end + 1
        else:
            end += len(json.dumps(value))
        found[path] = end + (isinstance(value, int | float) and not isinstance(value, bool))
        return end

    walk(json.loads(text), "", 0)
    return found


def settled(pointer: str, known: dict[str, int]) -> int:
    """When a value is complete, or known to be absent: when the last thing that could hold it is."""
    while pointer not in known:
        pointer = pointer.rpartition("/")[0]
    return known[pointer]


def expected(case: Case, text: str) -> tuple[str, int] | None:
    """The first verdict against a document, and after how many characters: by evaluation at the end."""
    known = ends(text)
    document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if case.split is not None:
        array = document.get("lines")
        for index, item in enumerate(array if isinstance(array, list) else ()):
            found = outcome(case.split, document, item, index)
            if found == "false":
                return found, known[f"/lines/{index}"]
            if found != "holds":
                return None if found == "absent" else (found, known["/lines"])
        if isinstance(array, list):
            return None
        return None if array is None else ("failed", known["/lines"])
    needs = max([0, *(settled(pointer, known) for pointer in case.needs)])
    if case.at is None:
        found = outcome(case.that, document)
        return (found, needs) if found in ("false", "failed") else None
    around = document.get(case.at.split("/")[1])
    pairs = around.items() if isinstance(around, dict) else enumerate(around) if isinstance(around, list) else ()
    for key, item in pairs:
        found = outcome(case.that, document, item, key)
        if found in ("false", "failed"):
            return found, max(needs, known[f"/{case.at.split('/')[1]}/{key}"])
    return None


def policy(case: Case, **options: Any) -> Policy:
    return Policy(json=JsonDocument(**options), checks=[Check(reason="check.x", that=case.that, at=case.at)])


def verdict(given: Policy, parts: list[str], *, ahead: bool = False, tool: bool = False) -> tuple[str, int] | None:
    """The first verdict against a document in pieces, and how many characters it is about."""
    panel = Panel(given.panel_guards, AttemptContext(), 0.0)
    events = tool_events(("x", parts)) if tool else text_events(parts)
    if ahead:
        assert panel.ahead(events, next(i for i, one in enumerate(events) if isinstance(one, Delta)), 0.0) is None
    shown = 0
    for event in events:
        shown += len(event.text) if isinstance(event, Delta) else 0
        found = panel.feed(event, 0.0)
        if isinstance(found, Trip):
            assert found.where is not None
            if found.where.char is not None:
                assert found.where.char < shown  # by the event that completed it …
                last = len(event.text) if isinstance(event, Delta) else 0
                assert found.where.char >= shown - last  # … and not later
            at = -1 if found.where.char is None else found.where.char + 1
            return ("false" if found.reason == "check.x" else "failed"), at
    return None


@pytest.mark.parametrize("case", CASES, ids=[f"{case.at or ''} {case.that}" for case in CASES])
@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.integers(0, 99))
def test_every_split_says_what_the_whole_says(case: Case, made: dict[str, Any], seed: int) -> None:
    """Whole, by character, at random, read ahead, as a tool's input: one verdict, at the same character."""
    text = json.dumps(made, separators=(",", ":"))
    due = expected(case, text)
    given = policy(case)
    for parts in ways(text, seed):
        assert verdict(given, parts) == due
        assert verdict(given, parts, ahead=True) == due
    assert verdict(policy(case, where="tool:x"), [text], tool=True) == due
    late = verdict(policy(case, duplicate_names="allow"), [text])
    assert late == (due and (due[0], -1))


def test_of_a_repeated_name_the_last_value_counts() -> None:
    """Where names may repeat, nothing is decided before the end."""
    given = policy(CASES[2], duplicate_names="allow")
    assert verdict(given, list('{"total": -1, "total": 1}')) is None
    assert verdict(given, list('{"total": 1, "total": -1}')) == ("false", -1)


def test_another_member_that_closes_says_nothing() -> None:
    """What one member lacks is no word on another one that is still to come."""
    text = '{"lines": [{"amount": 0}], "address": {"city": "Bonn"}}'
    case = Case('doc.lines[0].amount > 1 or doc.address.city == "Rome"', ())
    assert verdict(policy(case), list(text)) == ("false", text.index("}}"))


def test_a_condition_is_true_or_false() -> None:
    """Nothing else counts as one."""
    assert verdict(policy(Case("doc.paid", ())), list('{"paid": true}')) is None
    assert verdict(policy(Case("doc.paid", ())), list('{"paid": "yes"}')) == ("failed", 14)
