"""The language is a part of Python's expressions: the same tree, the same precedence."""

from __future__ import annotations

import ast
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.guards.checks import nodes
from streamguard.guards.checks.parser import MAX_DEPTH, parse
from streamguard.guards.checks.tokens import Mistake

SIGNS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Not: "not",
    ast.USub: "-",
    ast.UAdd: "+",
    ast.And: "and",
    ast.Or: "or",
}


def ours(node: nodes.Node) -> Any:
    """A tree of ours as nested tuples."""
    match node:
        case nodes.Number(value=value):
            return float(value)
        case nodes.Text(value=value) | nodes.Boolean(value=value):
            return value
        case nodes.Name(name=name):
            return ("name", name)
        case nodes.Member(of=of, name=name):
            return ("member", ours(of), name)
        case nodes.Item(of=of, index=index):
            return ("item", ours(of), ours(index))
        case nodes.Unary(sign=sign, of=of):
            return (sign, ours(of))
        case nodes.Binary(sign=sign, left=left, right=right):
            return (sign, ours(left), ours(right))
        case nodes.Comparison(first=first, rest=rest):
            return ("compare", ours(first), [(sign, ours(each)) for sign, _, each in rest])
        case nodes.Logic(word=word, parts=parts):
            return (word, [ours(part) for part in parts])
        case nodes.Choice(condition=condition, yes=yes, no=no):
            return ("if", ours(condition), ours(yes), ours(no))
        case nodes.Listed(items=items):
            return [ours(item) for item in items]
        case nodes.Call(function=function, arguments=arguments):
            return ("call", function, [ours(argument) for argument in arguments])
        case nodes.Each(element=element, name=name, source=source, conditions=conditions):
            return ("each", ours(element), name, ours(source), [ours(one) for one in conditions])
    raise AssertionError(node)


def pythons(node: ast.AST) -> Any:
    """Python's own tree in the same form."""
    match node:
        case ast.Expression(body=body):
            return pythons(body)
        case ast.Constant(value=value):
            return float(value) if type(value) in (int, float) else value
        case ast.Name(id=name):
            return ("name", name)
        case ast.Attribute(value=of, attr=name):
            return ("member", pythons(of), name)
        case ast.Subscript(value=of, slice=index):
            return ("item", pythons(of), pythons(index))
        case ast.UnaryOp(op=sign, operand=of):
            return (SIGNS[type(sign)], pythons(of))
        case ast.BinOp(op=sign, left=left, right=right):
            return (SIGNS[type(sign)], pythons(left), pythons(right))
        case ast.Compare(left=first, ops=signs, comparators=rest):
            return ("compare", pythons(first), [(SIGNS[type(s)], pythons(r)) for s, r in zip(signs, rest, strict=True)])
        case ast.BoolOp(op=word, values=parts):
            return (SIGNS[type(word)], [pythons(part) for part in parts])
        case ast.IfExp(test=condition, body=yes, orelse=no):
            return ("if", pythons(condition), pythons(yes), pythons(no))
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return [pythons(item) for item in items]
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return ("call", function, [pythons(argument) for argument in arguments])
        case ast.GeneratorExp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as only]):
            return ("each", pythons(element), name, pythons(only.iter), [pythons(one) for one in only.ifs])
    raise AssertionError(ast.dump(node))


ATOMS = st.sampled_from(
    ["doc.a", 'doc["b c"].d', "doc.l[0]", "x", "1", "2.50", "0.1e3", "'t'", "True", "(1, 2)", "[x]"]
)


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    signs = st.sampled_from(["+", "-", "*", "/", "//", "%", "<", "<=", "==", "!=", " in ", " not in ", " and ", " or "])
    return st.one_of(
        st.tuples(inner, signs, inner).map("".join),
        inner.map(lambda one: f"({one})"),
        inner.map(lambda one: f"not {one}"),
        inner.map(lambda one: f"-{one}"),
        inner.map(lambda one: f"f({one}, 2)"),
        st.tuples(inner, inner, inner).map(lambda t: f"{t[0]} if {t[1]} else {t[2]}"),
        st.tuples(inner, inner, inner).map(lambda t: f"sum({t[0]} for x in {t[1]} if {t[2]})"),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(ATOMS, _wider, max_leaves=8))
def test_what_is_read_is_read_as_python_does(text: str) -> None:
    """Whatever our parser takes, Python's takes, and with the same tree."""
    found = parse(text)
    try:
        expected = pythons(ast.parse(text, mode="eval"))
    except SyntaxError:
        assert isinstance(found, Mistake)
    else:
        assert isinstance(found, nodes.Node), found
        assert ours(found) == expected


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("doc.itx()[]=<>!+-*/%'\" 019e,fornumsia"), max_size=24))
def test_no_text_is_read_that_python_would_not_read(text: str) -> None:
    """Any soup of characters is a mistake with its place, or one of Python's expressions."""
    found = parse(text)
    if isinstance(found, Mistake):
        assert 0 <= found.at <= len(text)
    else:
        assert ours(found) == pythons(ast.parse(text.strip(), mode="eval"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", "0.1"), ("1_000.50", "1000.50"), (".5", "0.5"), ("5.", "5"), ("1e3", "1E+3"), ("9" * 100, "9" * 100)],
)
def test_numbers_are_what_is_written(text: str, value: str) -> None:
    """No number passes through a float."""
    found = parse(text)
    assert isinstance(found, nodes.Number)
    assert found.value == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1500,
        "(" * 900 + "1" + ")" * 900,
        "-" * 1999 + "1",
        "not " * 400 + "x",
        "x" + ".a" * 900,
        "x" + "[0]" * 600,
        "f(" * 600 + ")" * 600,
        "1 if x else " * 150 + "1",
        "[" + "1," * 900 + "]",
        "x" * 2001,
    ],
)
def test_no_text_is_too_deep(text: str) -> None:
    """What is nested too deeply or too long is said, and reaches no limit of Python's."""
    found = parse(text)
    assert isinstance(found, Mistake)
    assert found.problem.startswith(
        (
            f"more than {MAX_DEPTH}",
            "( is never closed",
            "the expression has",
            "a list of more",
            "f( where",
            "an empty",
        )
    )
