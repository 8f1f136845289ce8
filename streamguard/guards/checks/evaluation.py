"""How a compiled expression is evaluated: its scope, its steps, and the small functions that it is made of.

In charge of run time. Every function here takes the scope and gives a value, or raises `Absent` or `Unusable`. What
takes longer for more data is charged in steps, so that no document and no expression holds the event loop up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, DecimalException
from typing import Any, Final

from streamguard.guards.checks.functions import Function
from streamguard.guards.checks.types import kinds_in_words
from streamguard.guards.checks.values import (
    Absent,
    Unusable,
    add,
    divide,
    floor_divide,
    kind,
    modulo,
    multiply,
    shown,
    subtract,
)

MAX_STEPS: Final = 100_000
"""Steps of one evaluation, each a part of an expression looked at once: some 20 ms."""

_TEXT_STEP: Final = 256
"""Characters of a text that are looked at in one step."""

ABSENT: Final = object()
"""What stands for a value of the document that has not come."""


class Scope:
    """What one evaluation sees."""

    __slots__ = ("doc", "folds", "index", "it", "names", "steps")

    def __init__(self, doc: Sequence[Any], folds: Sequence[Any], it: Any, index: Any, slots: int) -> None:
        self.doc = doc
        """The value of each place, or `ABSENT`."""
        self.folds = folds
        """What each fold came to: a value, or what it raised."""
        self.it = it
        self.index = index
        self.names: list[Any] = [None] * slots
        """The item of each `for` that is being evaluated."""
        self.steps = MAX_STEPS


Run = Callable[[Scope], Any]
"""A compiled expression."""


def charge(scope: Scope, steps: int) -> None:
    """Count steps.

    :raises Unusable: there are none left.
    """
    scope.steps -= steps
    if scope.steps < 0:
        raise Unusable(f"it takes more than {MAX_STEPS:,} steps")


def constant(value: Any) -> Run:
    """Return what gives a value."""
    return lambda _: value


def the_item(scope: Scope) -> Any:
    """Give `it`."""
    return scope.it


def the_index(scope: Scope) -> Any:
    """Give `index`."""
    return scope.index


def named(slot: int) -> Run:
    """Return what gives the item of a `for`."""
    return lambda scope: scope.names[slot]


def of_document(place: int) -> Run:
    """Return what gives the value of a place."""

    def run(scope: Scope) -> Any:
        value = scope.doc[place]
        if value is ABSENT or value is None:
            raise Absent
        return value

    return run


def folded(number: int) -> Run:
    """Return what gives the result of a fold, or raises what the fold raised."""

    def run(scope: Scope) -> Any:
        found = scope.folds[number]
        if isinstance(found, Exception):
            raise found
        return found

    return run


def below(root: Run, parts: tuple[str | int, ...]) -> Run:
    """Return what gives a member of a value, and so on; absent where there is none, or null."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return member(root, parts[0])

    def run(scope: Scope) -> Any:
        value = root(scope)
        for part in parts:
            value = _reached(value, part)
        if value is None:
            raise Absent
        return value

    return run


def _reached(value: Any, part: str | int) -> Any:
    if isinstance(part, str):
        return value.get(part) if type(value) is dict else None
    return value[part] if type(value) is list and -len(value) <= part < len(value) else None


def member(root: Run, name: str) -> Run:
    """Return what gives one member of an object."""

    def run(scope: Scope) -> Any:
        value = root(scope)
        if type(value) is not dict or (value := value.get(name)) is None:
            raise Absent
        return value

    return run


def item_at(value: Any, where: Any) -> Any:
    """Give an item of an array by its number, or a member of an object by its name; absent where there is none."""
    found: Any = None
    if type(value) in (list, tuple) and type(where) is Decimal:
        if where.copy_abs() <= len(value) and where == where.to_integral_value():
            number = int(where)
            found = value[number] if -len(value) <= number < len(value) else None
    elif type(value) is dict and type(where) is str:
        found = value.get(where)
    if found is None:
        raise Absent
    return found


def truth(value: Any) -> bool:
    """Give a condition's value.

    :raises Unusable: it is something else than true or false.
    """
    if type(value) is not bool:
        raise Unusable(f"a condition is true or false, not {shown(value)}")
    return value


def items_of(value: Any, name: str) -> Sequence[Any]:
    """Give the items of an array."""
    if type(value) is not list and type(value) is not tuple:
        raise Unusable(f"{name} needs an array, not {shown(value)}")
    found: Sequence[Any] = value
    return found


def called(name: str, function: Function, runs: Sequence[Run]) -> Run:
    """Return what calls a function."""
    call, takes, reads_text = function.run, function.takes, function.reads_text

    def run(scope: Scope) -> Any:
        values = [one(scope) for one in runs]
        for value, able in zip(values, takes, strict=False):
            if kind(value) not in able:
                raise Unusable(f"{name} needs {kinds_in_words(able)}, not {shown(value)}")
            if reads_text:
                charge(scope, len(value) // _TEXT_STEP)
        try:
            return call(*values)
        except DecimalException:
            raise Unusable(f"{name} of a number with too many digits") from None

    return run


ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Decimal]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "//": floor_divide,
    "%": modulo,
}

Compare = Callable[[Scope, Any, Any], bool]


def _equal(scope: Scope, left: Any, right: Any) -> bool:
    same = type(left)
    if same is not type(right):
        return False
    if same is Decimal:
        return bool(left == right)
    if same is str:
        charge(scope, min(len(left), len(right)) // _TEXT_STEP)
    elif kind(left) in ("array", "object"):
        raise Unusable(f"== compares no {kind(left)}s")
    return bool(left == right)


def _unequal(scope: Scope, left: Any, right: Any) -> bool:
    return not _equal(scope, left, right)


def _contains(scope: Scope, left: Any, right: Any) -> bool:
    if type(right) is str:
        if type(left) is not str:
            raise Unusable(f"a string has only strings in it, not {shown(left)}")
        charge(scope, (len(left) + len(right)) // _TEXT_STEP)
        return left in right
    found = items_of(right, "in")
    charge(scope, len(found))
    return any(_equal(scope, left, one) for one in found)


def _misses(scope: Scope, left: Any, right: Any) -> bool:
    return not _contains(scope, left, right)


def _ordered(sign: str, compare: Callable[[Any, Any], bool]) -> Compare:
    def run(scope: Scope, left: Any, right: Any) -> bool:
        same = type(left)
        if same is not type(right) or kind(left) not in ("number", "string", "date"):
            raise Unusable(f"{sign} cannot compare {shown(left)} and {shown(right)}")
        if same is str:
            charge(scope, min(len(left), len(right)) // _TEXT_STEP)
        return compare(left, right)

    return run


COMPARISONS: Final[Mapping[str, Compare]] = {
    "==": _equal,
    "!=": _unequal,
    "in": _contains,
    "not in": _misses,
    "<": _ordered("<", lambda left, right: left < right),
    "<=": _ordered("<=", lambda left, right: left <= right),
    ">": _ordered(">", lambda left, right: left > right),
    ">=": _ordered(">=", lambda left, right: left >= right),
}
