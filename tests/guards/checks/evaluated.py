"""Python's own evaluation of a check's expression, over a whole document: what any way of streaming has to agree with."""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, getcontext
from typing import Any, Literal

Outcome = Literal["holds", "false", "absent", "failed"]


class Missing(Exception):
    """A value that is not there, or null."""


class Reached:
    """An object whose members are reached by name."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def __getattr__(self, name: str) -> Any:
        return wrapped(self._members.get(name))

    def __getitem__(self, name: Any) -> Any:
        if not isinstance(name, str):
            raise Missing
        return wrapped(self._members.get(name))


class Items:
    """An array; null items are not there."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(Lazy(item) for item in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, str | Truth):
            raise Missing
        return wrapped(self._items[int(at)]) if -len(self._items) <= at < len(self._items) else wrapped(None)


class Lazy:
    """An item that is null until somebody asks for it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        value = wrapped(self._value)
        if not isinstance(value, Reached):
            raise Missing
        return getattr(value, name)


class Chars(str):
    """A string of the document, which is no array."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        raise TypeError

    def __getitem__(self, at: Any) -> str:
        raise Missing


class Truth:
    """A boolean of the document, which is no number."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return self._value is (other._value if isinstance(other, Truth) else other)

    def __hash__(self) -> int:
        return hash(self._value)


def wrapped(value: Any) -> Any:
    """A value of a document as an expression sees it."""
    if value is None:
        raise Missing
    if isinstance(value, dict):
        return Reached(value)
    if isinstance(value, bool):
        return Truth(value)
    if isinstance(value, str):
        return Chars(value)
    return Items(value) if isinstance(value, list) else value


class _Exact(ast.NodeTransformer):
    """Numbers as exact decimals; `has(x)` as a function of a function."""

    def __init__(self, source: str) -> None:
        self._source = source

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) in (int, float):
            text = ast.get_source_segment(self._source, node)
            return ast.copy_location(_call("Decimal", ast.Constant(text)), node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "has":
            empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
            node.args = [ast.Lambda(empty, node.args[0])]
        return node


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])


def _has(reach: Callable[[], Any]) -> bool:
    try:
        reach()
    except Missing:
        return False
    return True


def _distinct(values: Any) -> bool:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return False
        seen.add(value)
    return True


def _extreme(choose: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(values: Any) -> Any:
        found = list(values)
        if not found:
            raise Missing
        return choose(found)

    return of


NAMES: dict[str, Any] = {
    "Decimal": Decimal,
    "has": _has,
    "sum": lambda values: sum(values, Decimal(0)),
    "count": lambda values: Decimal(len(list(values))),
    "len": lambda value: Decimal(len(value)),
    "distinct": _distinct,
    "min": _extreme(min),
    "max": _extreme(max),
    "date": dt.date.fromisoformat,
    "days": lambda later, earlier: Decimal((later - earlier).days),
    "number": Decimal,
    "lower": str.lower,
    **{name: getattr(__builtins__, name, None) or __builtins__[name] for name in ("abs", "all", "any")},  # type: ignore[index]
}


def outcome(text: str, document: Any, item: Any = None, index: Any = None) -> Outcome:
    """Evaluate an expression as Python does."""
    getcontext().prec = 50
    tree = _Exact(text).visit(ast.parse(text, mode="eval"))
    code = compile(ast.fix_missing_locations(tree), "<check>", "eval")
    try:
        names = {"doc": wrapped(document)}
        if index is not None:
            names |= {"it": wrapped(item), "index": index}
        found = eval(code, {"__builtins__": {}, **NAMES, **names})  # the test's own texts
    except Missing:
        return "absent"
    except AttributeError:
        return "absent"  # a member of what has none
    except (TypeError, ValueError, ArithmeticError) as error:
        return "absent" if "subscriptable" in str(error) else "failed"
    assert isinstance(found, bool)
    return "holds" if found else "false"
