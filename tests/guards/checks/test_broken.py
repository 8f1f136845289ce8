"""Broken expressions: each is refused when the policy is loaded, with its line, its column and what to write."""

from __future__ import annotations

import pytest

from streamguard.errors import PolicyError
from streamguard.guards.checks.spec import Check
from streamguard.policy.file import loads_policy

HEAD = """version: 1
json:
  schema:
    type: object
    properties:
      supplier: {type: string}
      date: {type: string}
      due: {type: string}
      paid: {type: boolean}
      total: {type: number}
      tax: {anyOf: [{type: number}, {type: "null"}]}
      from: {type: string}
      address: {type: object, properties: {city: {type: string}}}
      rates: {type: object, additionalProperties: {type: number}}
      lines:
        type: array
        items:
          type: object
          properties: {sku: {type: string}, qty: {type: integer}, price: {type: number}, amount: {type: number}}
checks:
  - reason: check.x
"""

CHECKS = {
    "that": "    that: {text}\n",
    "item": "    at: /lines/*\n    that: {text}\n",
    "say": "    at: /lines/*\n    that: it.qty > 0\n    say: {text}\n",
    "at": "    that: it.qty > 0\n    at: {text}\n",
}
"""Which of a check's texts is broken → the rest of the file. Lines are counted from the one behind `reason`."""

BROKEN = [
    ("that", '""', "1:12 that: the expression is empty"),
    ("that", '"  "', "1:12 that: the expression is empty"),
    ("that", "doc.total = 3", "1:21 that: =: write == to compare"),
    ("that", "doc.total === 3", "1:21 that: ===: write =="),
    ("that", "doc.total <> 3", "1:21 that: <>: write !="),
    ("that", "doc.paid && doc.total > 1", "1:20 that: &&: write and"),
    ("that", "doc.paid || doc.total > 1", "1:20 that: ||: write or"),
    ("that", '"!doc.paid"', "1:12 that: !: write not"),
    ("that", "doc.total => 1", "1:21 that: =>: write >="),
    ("that", "doc.total ** 2 > 1", "1:21 that: **: write x * x"),
    ("that", '"doc.total > 1 # more"', "1:26 that: #: there are no comments; write them as YAML's"),
    ("that", "doc.total > 1; doc.total < 9", "1:24 that: ;: one check is one expression"),
    (
        "that",
        "\"doc.supplier == 'a\\\\b'\"",
        "1:30 that: a backslash: there are no escapes; write the character, or use the other quotes",
    ),
    ("that", '"doc.supplier == \'abc"', "1:28 that: the closing ' is missing"),
    ("that", "\"doc.supplier == f'abc'\"", "1:28 that: a text with f before it: leave the f out"),
    ("that", "\"doc.supplier == '''abc'''\"", "1:28 that: three quotes: one is enough"),
    ("that", "(doc.total > 1", "1:11 that: ( is never closed"),
    ("that", "doc.total > 1)", "1:24 that: ) closes nothing"),
    ("that", "(doc.total > 1]", "1:25 that: ] where ) has to close the ( before"),
    ("that", "doc.total > 007", "1:23 that: 007 is no number: leave the zeros and underscores before it out"),
    ("that", "doc.total > 12kg", "1:23 that: 12kg is no number"),
    ("that", "doc.total > 1.2.3", "1:23 that: 1.2.3 is no number"),
    ("that", "doc.total > 1e999", "1:23 that: 1e999 is a number beyond 100 digits or an exponent of 300"),
    ("that", "doc.total >", "1:22 that: the expression ends where a value is expected"),
    ("that", "doc.total > 1 doc.tax", "1:25 that: doc where the end is expected"),
    ("that", "doc.total is 1", "1:21 that: is: write =="),
    ("that", "doc.paid == true", "1:23 that: true: write True"),
    ("that", "doc.supplier == None", '1:27 that: None: null is no value here: ask has(…), or write == "…"'),
    ("that", '"lambda: True"', "1:12 that: lambda: there are no functions of one's own"),
    ("that", 'doc.from == "x"', '1:15 that: from is a word of the language: write ["from"]'),
    ("that", 'doc["lines"][0:2] == 1', "1:25 that: :: there are no slices and no functions of one's own"),
    ("that", 'doc.supplier.upper() == "A"', "1:29 that: only functions can be called, by their name"),
    ("that", "doc.total ≤ 3", "1:21 that: ≤: write <="),
    ("that", "doc.total > $total", "1:23 that: $: the document is doc"),
    ("that", '"{doc.total} > 3"', "1:12 that: {: there are no braces outside of say"),
    ("that", '"doc.lines == []"', "1:25 that: an empty list"),
    (
        "that",
        '"[l.qty for l in doc.lines] == 1"',
        "1:19 that: for … in … stands inside a function's brackets alone, such as sum(… for …)",
    ),
    (
        "that",
        "sum(l.qty for l in doc.lines for m in doc.lines) > 1",
        "1:40 that: one for in each function: put the second one inside a function of its own",
    ),
    ("that", "sum(l.qty for l in doc.lines, 1) > 1", "1:39 that: , where ) is expected"),
    ("that", "doc.totl > 1", '1:15 that: doc has no member totl; did you mean "total"?'),
    ("that", 'doc.address.town == "x"', "1:23 that: doc.address has no member town; there are city"),
    ("that", "doc.total.net > 1", "1:21 that: doc.total is a number: it has no member net"),
    ("that", "total > 1", "1:11 that: total is no name here; did you mean doc.total?"),
    ("that", "lines > 1", "1:11 that: lines is no name here; did you mean doc.lines?"),
    ("that", "it.qty > 0", "1:11 that: it is the item of a check with at, and this one has none"),
    ("that", "doc.total", "1:11 that: the expression is a number, and must be true or false, such as a == b"),
    ("that", "1 < 2", "1:11 that: the expression reads nothing of the document"),
    ("that", 'doc.total + "1" == doc.tax', '1:23 that: "1" is a string: + needs numbers'),
    (
        "that",
        'doc.supplier * 3 == "x"',
        '1:11 that: doc.supplier is a string: * needs numbers; 1:11 that: doc.supplier * 3 is a number and "x" is a string: == compares values of one kind',
    ),
    (
        "that",
        "doc.supplier > doc.total",
        "1:11 that: doc.supplier is a string and doc.total is a number: > compares values of one kind",
    ),
    (
        "that",
        'doc.total == "12"',
        '1:11 that: doc.total is a number and "12" is a string: == compares values of one kind',
    ),
    ("that", "doc.paid + 1 > 0", "1:11 that: doc.paid is a boolean: + needs numbers"),
    ("that", "not doc.total", "1:15 that: doc.total is a number: not needs a condition"),
    ("that", "doc.total and doc.paid", "1:11 that: doc.total is a number: and needs conditions"),
    ("that", "doc.lines > 3", "1:11 that: doc.lines is an array, which > does not compare"),
    ("that", "sum(doc.total) > 1", "1:15 that: doc.total is a number: sum needs an array, or x for x in …"),
    (
        "that",
        "sum(l.amout for l in doc.lines) == doc.total",
        '1:17 that: l has no member amout; did you mean "amount"?',
    ),
    ("that", "sum(l.sku for l in doc.lines) == doc.total", "1:15 that: l.sku is a string: sum needs a number each"),
    (
        "that",
        "sum(r.x for r in doc.rates) > 1",
        "1:28 that: doc.rates is an object: for needs an array, or values(…) of an object",
    ),
    ("that", "sum(doc.lines) > 1", "1:15 that: doc.lines is an object: sum needs a number each"),
    ("that", "len(doc.total) > 1", "1:15 that: doc.total is a number: len needs an array, an object or a string"),
    ("that", "round(doc.total, 1, 2) > 1", "1:11 that: round takes 1 or 2 arguments, not 3"),
    ("that", "abs() > 1", "1:11 that: abs takes 1 argument, not 0"),
    (
        "that",
        "smu(l.amount for l in doc.lines) == doc.total",
        "1:11 that: there is no function smu; there are abs, round, number, date, days, len, lower, upper, strip, startswith, endswith, sum, count, min, max, all, any, distinct, has, values",
    ),
    ("that", 'str(doc.total) == "1"', '1:11 that: there is no function str; did you mean "strip"?'),
    ("that", "doc.total.__class__ == 1", "1:21 that: doc.total is a number: it has no member __class__"),
    (
        "that",
        '__import__("os") == 1',
        "1:11 that: there is no function __import__; there are abs, round, number, date, days, len, lower, upper, strip, startswith, endswith, sum, count, min, max, all, any, distinct, has, values",
    ),
    ("that", "date(doc.total) > date(doc.due)", "1:16 that: doc.total is a number: date needs a string"),
    (
        "that",
        "days(doc.due, doc.date) > 1",
        "1:16 that: doc.due is a string: days needs a date; 1:25 that: doc.date is a string: days needs a date",
    ),
    ("that", "has(doc)", "1:15 that: has asks for a member or an item, not for doc"),
    ("that", "has(doc.total + 1)", "1:15 that: has asks for a member or an item, not for doc.total + 1"),
    ("that", "all(l.qty for l in doc.lines)", "1:15 that: l.qty is a number: all needs a boolean each"),
    (
        "that",
        "all(sum > 0 for sum in doc.lines)",
        "1:15 that: sum is an object, which > does not compare; 1:27 that: sum already means something here: take another name",
    ),
    ("that", "doc.total in doc.paid", "1:24 that: doc.paid is a boolean: in looks into an array or a string"),
    ("that", "doc.total in doc.supplier", "1:11 that: doc.total is a number: a string has only strings in it"),
    ("that", 'doc.total in ("a", "b")', "1:11 that: doc.total is a number, and the list has a string"),
    (
        "that",
        "doc.total if doc.total > 1 else 2",
        "1:11 that: the expression is a number, and must be true or false, such as a == b",
    ),
    ("that", "doc.paid if doc.total else doc.paid", "1:23 that: doc.total is a number: if needs a condition"),
    ("that", 'doc.lines["x"] == 1', "1:21 that: doc.lines is an array: it has no member x"),
    ("that", "doc[doc.paid] == 1", "1:15 that: doc.paid is a boolean: an index is a number or a string"),
    ("item", "it.qty * it.prise == it.amount", '2:23 that: it has no member prise; did you mean "price"?'),
    ("item", "it.qty * price == it.amount", "2:20 that: price is no name here; did you mean it.price?"),
    ("item", 'index == "a"', '2:11 that: index is a number and "a" is a string: == compares values of one kind'),
    ("item", "qty > 0", "2:11 that: qty is no name here; did you mean it.qty?"),
    ("say", '"line {it.prise}"', '3:20 say: it has no member prise; did you mean "price"?'),
    ("say", '"line {it.qty"', "3:16 say: { is never closed; a brace itself is {{"),
    ("say", '"line }"', "3:16 say: } closes nothing; a brace itself is }}"),
    ("say", '"line {it.qty *}"', "3:25 say: the expression ends where a value is expected"),
    ("say", '"{}"', "3:12 say: the expression is empty"),
    (
        "say",
        '"{it.qty} and {foo(1)}"',
        "3:25 say: there is no function foo; there are abs, round, number, date, days, len, lower, upper, strip, startswith, endswith, sum, count, min, max, all, any, distinct, has, values",
    ),
    (
        "at",
        "lines/*",
        '2:9 at: \'lines/*\' is no JSON Pointer: it is empty or begins with "/", and "~" stands only in ~0 and ~1',
    ),
    ("at", "/total/*", "2:16 at: /total is a number: it has no items"),
    ("at", "/items/*", "2:10 at: the document has no member items"),
    ("at", "/lines/*/sku/*", "2:22 at: /lines/*/sku is a string: it has no items"),
]


def said(text: str) -> str:
    """Every mistake of a file, with line and column."""
    with pytest.raises(PolicyError) as caught:
        loads_policy(text, "p.yaml")
    lines = HEAD.count("\n")
    return "; ".join(
        f"{one.line - lines}:{one.column} {one.pointer.rpartition('/')[2]}: {one.problem}"
        for one in caught.value.problems
        if one.file == "p.yaml" and one.line and one.pointer
    )


@pytest.mark.parametrize(("where", "text", "expected"), BROKEN, ids=[text for _, text, _ in BROKEN])
def test_a_broken_expression_is_refused_where_it_stands(where: str, text: str, expected: str) -> None:
    """Each mistake names the character and what would be right; there is no other."""
    assert said(HEAD + CHECKS[where].replace("{text}", text)) == expected


STYLES = [
    ('    that: "doc.supplier != \\"x\\" and doc.totl > 1"\n', (1, 42)),
    ("    that: doc.total > 1 and doc.totl > 1\n", (1, 33)),
    ("    that: 'doc.total > 1 and doc.totl > 1'\n", (1, 34)),
    ('    that: "doc.total > 1 and \\x64oc.totl > 1"\n', (1, 37)),
    ("    that: |\n      doc.total > 1\n      and doc.totl > 1\n", (3, 15)),
    ("    that: >\n      doc.total > 1\n\n      and doc.totl > 1\n", (4, 15)),
    ("    that: >-\n      doc.total > 1\n        and doc.totl > 1\n", (3, 17)),
    ("    that: doc.total > 1\n      and doc.totl > 1\n", (2, 15)),
    ("    that: 'doc.supplier != ''x'' and doc.totl > 1'\n", (1, 42)),
]


@pytest.mark.parametrize(("text", "place"), STYLES)
def test_the_place_is_found_in_every_style_of_text(text: str, place: tuple[int, int]) -> None:
    """Plain, quoted, folded, in a block: the column is that of the file."""
    assert said(HEAD + text) == f'{place[0]}:{place[1]} that: doc has no member totl; did you mean "total"?'


def test_all_mistakes_are_told_at_once() -> None:
    """One file with three broken checks has three problems, those that need the schema included."""
    text = HEAD + "    that: doc.totl > 1\n  - reason: check.y\n    that: doc.total = 1\n"
    text += "  - reason: check.z\n    at: /lines/*\n    that: it.qty > '1'\n"
    assert said(text).count(";") == 3  # one of them is a did-you-mean


def test_in_code_the_character_is_named() -> None:
    """A check that is made in Python names the key and the character."""
    with pytest.raises(PolicyError) as caught:
        Check(reason="check.x", that="doc.total = 3")
    assert [(one.pointer, one.problem) for one in caught.value.problems] == [
        ("/that", "=: write == to compare (character 11)")
    ]


def test_checks_without_a_document_are_refused() -> None:
    """There is nothing to check without a json section."""
    with pytest.raises(PolicyError, match="checks are about a JSON document: add a json section"):
        loads_policy("version: 1\nchecks:\n  - {reason: check.x, that: doc.a == 1}\n")
