"""What an expression of a check comes to, over plain values: by walking Python's own tree of it, naively.

In charge of the part of the language that scripts use. It raises `ValueError` for what it does not know.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, DecimalException, localcontext
from typing import Any


class Absent(Exception):
    """A value that is not there, or null."""


class Unusable(Exception):
    """A value of a kind that an operation cannot use."""


Names = Mapping[str, Any]

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: lambda one, other: one - other * (one / other).__floor__(),
    ast.FloorDiv: lambda one, other: Decimal((one / other).__floor__()),
}
_ORDER: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def evaluate(node: ast.expr, names: Names) -> Any:
    """Evaluate a tree.

    :raises Absent: it reads what is not there.
    :raises Unusable: it cannot be evaluated.
    """
    match node:
        case ast.Constant(value=bool() | str() as value):
            return value
        case ast.Constant(value=int() | float() as value):
            return Decimal(repr(value))
        case ast.Name(id=name):
            return _there(names[name])
        case ast.Attribute(value=base, attr=name):
            return _member(evaluate(base, names), name)
        case ast.Subscript(value=base, slice=key):
            return _member(evaluate(base, names), evaluate(key, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _computed(_ARITHMETIC[type(op)], evaluate(left, names), evaluate(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _computed(operator.sub, Decimal(0), evaluate(operand, names))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _truth(evaluate(operand, names))
        case ast.BoolOp(op=op, values=values):
            stop = isinstance(op, ast.Or)
            return any(_truth(evaluate(one, names)) is stop for one in values) is stop
        case ast.IfExp(test=test, body=body, orelse=other):
            return evaluate(body if _truth(evaluate(test, names)) else other, names)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compared(left, ops, others, names)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [evaluate(one, names) for one in parts]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _called(name, arguments, names)
    raise ValueError(f"the oracle knows no {ast.unparse(node)}")


def _there(value: Any) -> Any:
    if value is None:
        raise Absent
    return value


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        return _there(value.get(str(key)))
    if isinstance(value, list) and isinstance(key, Decimal) and -len(value) <= key < len(value):
        return _there(value[int(key)])
    raise Absent


def _computed(compute: Callable[[Any, Any], Any], one: Any, other: Any) -> Decimal:
    if not isinstance(one, Decimal) or not isinstance(other, Decimal):
        raise Unusable
    with localcontext(prec=400):
        try:
            return Decimal(compute(one, other))
        except (DecimalException, ArithmeticError):
            raise Unusable from None


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unusable
    return value


def _compared(left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], names: Names) -> bool:
    one = evaluate(left, names)
    for op, right in zip(ops, others, strict=True):
        other = evaluate(right, names)
        if not _holds(op, one, other):
            return False
        one = other
    return True


def _holds(op: ast.cmpop, one: Any, other: Any) -> bool:
    if isinstance(op, ast.Eq | ast.NotEq):
        same = type(one) is type(other) and one == other
        return same if isinstance(op, ast.Eq) else not same
    if isinstance(op, ast.In | ast.NotIn):
        if isinstance(other, str) and not isinstance(one, str):
            raise Unusable
        if not isinstance(other, str | list):
            raise Unusable
        inside = one in other if isinstance(other, str) else any(_holds(ast.Eq(), one, each) for each in other)
        return inside if isinstance(op, ast.In) else not inside
    if type(op) not in _ORDER:
        raise ValueError(f"the oracle knows no {type(op).__name__}")
    if type(one) is not type(other) or not isinstance(one, Decimal | str):
        raise Unusable
    return _ORDER[type(op)](one, other)


def _called(name: str, arguments: list[ast.expr], names: Names) -> Any:
    if name == "has":
        try:
            evaluate(arguments[0], names)
        except Absent:
            return False
        return True
    if name in ("sum", "count", "all", "any"):
        return _folded(name, _items(arguments[0], names))
    values = [evaluate(one, names) for one in arguments]
    match name, values:
        case "len", [list() | str() as value]:
            return Decimal(len(value))
        case "abs", [Decimal() as value]:
            return abs(value)
        case "startswith" | "endswith", [str() as text, str() as part]:
            return text.startswith(part) if name == "startswith" else text.endswith(part)
        case "lower" | "upper", [str() as text]:
            return text.lower() if name == "lower" else text.upper()
        case "len" | "abs" | "startswith" | "endswith" | "lower" | "upper", _:
            raise Unusable
    raise ValueError(f"the oracle knows no {name}")


def _items(argument: ast.expr, names: Names) -> Iterator[Any]:
    """The values of an array, or of a comprehension."""
    if not isinstance(argument, ast.GeneratorExp):
        array = evaluate(argument, names)
        if not isinstance(array, list):
            raise Unusable
        yield from map(_there, array)
        return
    [part] = argument.generators
    array = evaluate(part.iter, names)
    if not isinstance(array, list) or not isinstance(part.target, ast.Name):
        raise Unusable
    for item in array:
        inner = {**names, part.target.id: item}
        if all(_truth(evaluate(one, inner)) for one in part.ifs):
            yield evaluate(argument.elt, inner)


def _folded(name: str, items: Iterator[Any]) -> Any:
    if name in ("all", "any"):
        return any(_truth(one) is (name == "any") for one in items) is (name == "any")
    total = Decimal(0)
    for one in items:
        total = _computed(operator.add, total, one if name == "sum" else Decimal(1))
    return total
