# ruff: noqa: E501
"""What checks cost, and what a million hostile expressions reach: `python -m bench.checks [costs|fuzz] [--count N]`.

`costs`: microseconds of CPU, the best of some runs. `fuzz`: expressions made of the language's words and of what has
broken other languages, each compiled and, if it can be, evaluated over hostile documents. Nothing may be reached (no
import, no file, no code: Python's own audit events tell), nothing may be raised but the two kinds of answer, and nothing
may take longer than the bound.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from streamguard.errors import PolicyError
from streamguard.guards.checks.gathering import Gathering
from streamguard.guards.checks.spec import Check, compiled
from streamguard.guards.checks.values import Absent, Unusable
from streamguard.guards.document.finished import exact, values_at

BOUND = 0.1
"""Seconds of CPU without a pause: to read an expression, to take one value of the document, to evaluate once."""


def _best(what: Callable[[], Any], times: int = 1, repeat: int = 25) -> float:
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        for _ in range(times):
            what()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


def costs() -> None:
    """Print what one evaluation costs."""
    line = Check(reason="check.line", at="/lines/*", that="it.qty * it.price == it.amount")
    total = Check(reason="check.total", that="abs(doc.total - sum(l.amount for l in doc.lines)) < 0.005")
    text = '{"sku": "a-1", "qty": 3, "price": 2.50, "amount": 7.50}'
    item, program = exact(text), line.program()
    print(
        f"one item, evaluated   {_best(lambda: program.holds(program.scope((), (), item, Decimal(1))), 2000):6.2f} µs"
    )
    print(f"one item, read        {_best(lambda: exact(text), 2000):6.2f} µs")
    whole = Check(reason="check.total", at="", that="abs(it.total - sum(l.amount for l in it.lines)) < 0.005").program()
    for count in (3, 20, 200):
        document = exact(json.dumps({"total": 7.5 * count, "lines": [json.loads(text)] * count}))
        print(f"{count:3} lines at once      {_best(lambda: whole.holds(whole.scope((), (), document)), 20):6.1f} µs")  # noqa: B023
        told = list(values_at(document, total.program().wanted.paths))
        print(f"{count:3} lines, as they come {_best(lambda: _folded(total, told), 20):6.1f} µs")  # noqa: B023
    print(f"loading a check       {_best(lambda: total.mistakes(True), 50):6.0f} µs")


def _folded(check: Check, told: list[tuple[int, Any]]) -> None:
    program = check.program()
    gathering = Gathering(program.wanted)
    for number, value in told:
        for _ in gathering.take(number, value):
            assert program.holds(program.scope(gathering.values(), gathering.folds))


WORDS = (
    *(
        "doc",
        "it",
        "index",
        "x",
        "l",
        "doc.a",
        "doc.n",
        "doc.s",
        "doc.l",
        "doc.m",
        "it.a",
        "x.a",
        "doc.deep",
        "doc.huge",
    ),
    *("1", "0", "2.5", "1e300", "1e-300", "9" * 90, "0.1", '"a"', "'%99999999d'", "''", "True", "False"),
    *("+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "<<", "|", "&", "@", ":=", "=", "~", "^"),
    *(" and ", " or ", " not ", " in ", " not in ", " if ", " else ", " for x in ", " for l in ", " is ", " lambda: "),
    *("(", ")", "[", "]", "{", "}", ",", ".", ":", ";", "\\", "#", "\n", "\t", "\x00", "é", "\u202e", "$", "`", "?"),
    *("abs(", "round(", "number(", "date(", "days(", "len(", "lower(", "upper(", "strip(", "startswith(", "endswith("),
    *("sum(", "count(", "min(", "max(", "all(", "any(", "distinct(", "has(", "values("),
    *(".__class__", ".__globals__", "__import__('os')", "getattr(", "eval(", "open('/etc/passwd')", "().__class__"),
    *(".mro()", ".format(", "f'{x}'", "b''", "0x10", "1j", "None", "await ", "yield ", "print(", "exec(", "globals()"),
)
GROWING: dict[str, tuple[str, ...]] = {
    "n": (
        *("doc.a", "doc.n", "x.a", "x", "it.a", "index", "1", "0", "2.5", "1e300", "1e-300", "9" * 90, "doc.l[0].a"),
        *("({n} + {n})", "({n} - {n})", "{n} * {n}", "({n} / {n})", "({n} // {n})", "{n} % {n}", "-{n}", "abs({n})"),
        *("round({n}, {n})", "number({s})", "days({d}, {d})", "len({a})", "len({s})", "sum({n} for x in {a})"),
        *(
            "max({n}, {n})",
            "min({a})",
            "max({n} for l in {a} if {b})",
            "count({n} for x in {a})",
            "({n} if {b} else {n})",
        ),
        *(
            "sum(sum({n} for x in doc.l) for l in doc.l)",
            "sum(sum(sum(1 for x in doc.l) for l in doc.l) for k in doc.l)",
        ),
    ),
    "b": (
        *("{n} == {n}", "{n} < {n} <= {n}", "{s} == {s}", "{s} < {s}", "{n} in {a}", "{s} in {s}", "{s} not in {a}"),
        *("({b} and {b})", "({b} or {b})", "(not {b})", "all({b} for x in {a})", "any({b} for l in doc.l)", "True"),
        *("distinct({n} for x in {a})", "distinct(doc.l)", "has(doc.m.a)", "startswith({s}, {s})", "{d} < {d}"),
    ),
    "s": (
        "doc.s",
        "x",
        "doc.a",
        '"a"',
        "'%99999999d'",
        "lower({s})",
        "upper({s})",
        "strip({s})",
        "({s} if {b} else {s})",
    ),
    "a": ("doc.l", "doc.huge", "values(doc.m)", "[{n}, {n}]", "({s}, {n})", "doc.l[0].l", "values(doc)"),
    "d": ("date({s})", 'date("2026-01-31")', "date(doc.s)"),
}
"""What an expression of a kind can be: a number, a condition, a string, an array, a date."""


def _documents() -> list[Any]:
    long = "ab" * 500_000
    return [
        exact(json.dumps({"a": 1, "n": 3, "s": "x", "l": [{"a": i} for i in range(150)], "m": {"a": 1, "b": 2}})),
        exact('{"a": 1e999999, "n": -1e-999999, "s": "1e999999999999", "l": [1, "a", null, true, [], {}], "m": []}'),
        {
            "a": Decimal("9" * 400),
            "n": Decimal(0),
            "s": long,
            "l": [long] * 150,
            "m": {str(i): Decimal(i) for i in range(999)},
        },
        {"a": long, "n": long + "c", "s": long, "l": [{"a": long}] * 150, "huge": [Decimal(7)] * 20_000},
        {},
    ]


def _grown(draw: random.Random, kind: str, left: int) -> str:
    """An expression of a kind, and now and then of another."""
    choices = GROWING[kind if draw.random() < 0.97 else draw.choice("nbsad")]
    form = draw.choice(choices if left > 0 else [one for one in choices if "{" not in one] or ["doc.a"])
    while (at := form.find("{")) >= 0:
        form = form[:at] + _grown(draw, form[at + 1], left - 1).replace("{", "") + form[at + 3 :]
    return form


def _expression(draw: random.Random) -> str:
    if draw.random() < 0.25:
        return "".join(draw.choices(WORDS, k=draw.randint(1, 14)))
    text = _grown(draw, "b", draw.randint(1, 5))
    if draw.random() < 0.25:
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(WORDS) + text[at + draw.randint(0, 2) :]
    return text


_watched: list[str] = []
_WATCHING = [False]


_TOOK = [0.0]
"""The longest pause of the expression at hand."""


def _timed(what: Callable[[], Any]) -> Any:
    began = time.process_time()
    try:
        return what()
    finally:
        _TOOK[0] = max(_TOOK[0], time.process_time() - began)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING[0] and not event.startswith(("object.__", "sys._getframe", "code.__new__", "gc.")):
        _watched.append(f"{event} {arguments!r:.80}")


def fuzz(count: int, seed: int) -> int:
    """Read and evaluate expressions; gives how many went wrong."""
    draw, documents = random.Random(seed), _documents()
    "\0".encode("unicode_escape")  # Python imports a codec when it is first used
    sys.addaudithook(_audit)
    became: Counter[str] = Counter()
    slowest, longest = 0.0, ""
    wrong = 0
    began = time.process_time()
    for _ in range(count):
        text = _expression(draw)
        _TOOK[0] = 0.0
        _WATCHING[0] = True
        try:
            end = _judge(text, documents[draw.randrange(len(documents))])
        except Exception as error:
            end = f"raised {type(error).__name__}"
            print(f"{end}: {text!r}: {error}")
        finally:
            _WATCHING[0] = False
        took = _TOOK[0]
        became[end] += 1
        if took > slowest:
            slowest, longest = took, text
        if _watched or took > BOUND or end.startswith("raised"):
            wrong += 1
            print(f"{took * 1e3:.0f} ms, {_watched}: {text!r}")
            _watched.clear()
    print(f"{count:,} expressions in {time.process_time() - began:.0f} s of CPU: {dict(became)}")
    print(f"slowest {slowest * 1e3:.1f} ms of {BOUND * 1e3:.0f}: {longest[:200]!r}")
    print(f"wrong: {wrong}")
    return wrong


def _judge(text: str, document: Any) -> str:
    """What becomes of an expression, as a check of the whole and then of items."""
    end = "refused"
    for at in (None, "/l/*"):
        program, _ = _timed(lambda: compiled(text, at, None, True))  # noqa: B023
        if program is None:
            continue
        gathering = Gathering(program.wanted)
        for number, value in values_at(document, program.wanted.paths):
            for due in _timed(lambda: list(gathering.take(number, value))):  # noqa: B023
                end = _timed(lambda: _holds(program, gathering, due))  # noqa: B023
                if at is not None:
                    return end
    return end


def _holds(program: Any, gathering: Gathering, due: Any) -> str:
    item = None if due.item is None else due.item.value
    scope = program.scope(gathering.values(), gathering.folds, item, Decimal(1))
    try:
        found = program.holds(scope)
    except Absent:
        return "absent"
    except Unusable:
        return "unusable"
    assert isinstance(found, bool)
    program.message(scope)
    return "holds" if found else "false"


def main(arguments: list[str] | None = None) -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("costs", "fuzz"), nargs="?", default="costs")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.part == "costs":
            costs()
            return 0
        return fuzz(chosen.count, chosen.seed)
    except PolicyError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
