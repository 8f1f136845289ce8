"""Whether a constraint accepts a finished value, said at once and in safe cases only: a no may be wrong, a yes may not.

For values that a piece has whole, which are nearly all of them where much comes at a time. Per constraint one table of
functions, each made when a value of its type first comes. Knows neither text nor what is still open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from streamguard.viability.state.strings import units
from streamguard.viability.syntax.grammar import ARRAY, FALSE, NULL, NUMBER, OBJECT, STRING, TRUE
from streamguard.viability.syntax.values_equal import canonical

Fit = Callable[[Any], bool]
"""Whether an alternative surely accepts a value of its kind."""


class Acceptance(dict[type, Fit]):
    """Python type of a value → whether the constraint surely accepts it. Filled as types come."""

    __slots__ = ("_demand",)

    def __init__(self, constraint: Any) -> None:
        self._demand = constraint

    def __missing__(self, kind: type) -> Fit:
        if kind is bool:
            true, false = self._of(TRUE)(True), self._of(FALSE)(False)
            made: Fit = lambda value: true if value else false  # noqa: E731  # as the others are functions
        else:
            made = self._of(_KINDS[kind])
        self[kind] = made
        return made

    def _of(self, kind: int) -> Fit:
        fits = [fit for alt in self._demand.alternatives(kind) if (fit := _MAKE[kind](alt)) is not _never]
        if not fits:
            return _never
        if len(fits) == 1:
            return fits[0]
        return _either(fits) if kind in (OBJECT, ARRAY) else lambda value: any(fit(value) for fit in fits)


def _never(value: Any) -> bool:  # noqa: ARG001
    return False


def _always(value: Any) -> bool:  # noqa: ARG001
    return True


_KNOWN: ContextVar[dict[tuple[int, int], bool] | None] = ContextVar("_KNOWN", default=None)
"""What was found of the containers within the value at hand: by alternatives and container."""


def _either(fits: Sequence[Fit]) -> Fit:
    """Whether one of several alternatives accepts a container. Each is asked of it once: where alternatives nest, all
    of those further out ask the same, and the questions would double at each level."""
    us = id(fits)

    def either(value: Any) -> bool:
        known = _KNOWN.get()
        if known is None:
            token = _KNOWN.set({})
            try:
                return any(fit(value) for fit in fits)
            finally:
                _KNOWN.reset(token)
        key = (us, id(value))
        found = known.get(key)
        if found is None:
            found = known[key] = any(fit(value) for fit in fits)
        return found

    return either


class _Members(dict[str, Acceptance | None]):
    """Name of a member → what is asked of it; `None` for nothing. Holds names that the schema knows, and no others."""

    __slots__ = ("_alt",)

    def __init__(self, alt: Any) -> None:
        self._alt = alt

    def __missing__(self, name: str) -> Acceptance | None:
        alt = self._alt
        known = (name if name.isascii() else units(name)) in alt.known
        if not known and not alt.unlimited:
            return _NOTHING
        query = alt.child(name)
        found: Acceptance | None = query.fits if query.key else None
        if known:
            self[name] = found
        return found


def _object(alt: Any) -> Fit:
    if not alt.simple or alt.judges:
        return _never
    required = frozenset(alt.required)
    members = _Members(alt)

    def fits(value: dict[str, Any]) -> bool:
        if not value.keys() >= required:
            return False
        for name, member in value.items():
            asked = members[name]
            if asked is not None and not asked[type(member)](member):
                return False
        return True

    return fits


def _array(alt: Any) -> Fit:
    if not alt.simple or alt.judges:
        return _never
    least, most, unique, first = alt.lo, alt.hi, alt.unique is not None, alt.repeats_from

    def fits(value: list[Any]) -> bool:
        if not least <= len(value) <= most:
            return False
        if not value:
            return True
        for i, item in enumerate(value[:first]):
            query = alt.child(i)
            if query.key and not query.fits[type(item)](item):
                return False
        query = alt.child(first)
        if query.key:
            asked = query.fits
            for item in value[first:] if first else value:
                if not asked[type(item)](item):
                    return False
        return not unique or len(value) == 1 or len(set(map(canonical, value))) == len(value)

    return fits


def _string(alt: Any) -> Fit:
    if alt.subs or alt.wants_value:
        return _never
    if alt.candidates is not None:
        return frozenset(alt.candidates.values()).__contains__
    if alt.trivial:
        return _always
    least, most = alt.lo, alt.hi
    if not (alt.banned or alt.patterns or alt.no_patterns or alt.formats or alt.no_formats):
        return lambda text: least <= len(text) <= most
    return lambda text: alt.failing(text) is None


def _number(alt: Any) -> Fit:
    if alt.subs or alt.wants_value:
        return _never
    return _always if alt.trivial else lambda number: alt.failing(number) is None


def _constant(alt: Any) -> Fit:
    return _never if alt.subs or alt.wants_value else _always


class _Nothing:
    """In place of a constraint: nothing is accepted."""

    def alternatives(self, kind: int) -> tuple[Any, ...]:  # noqa: ARG002
        return ()


_NOTHING: Final = Acceptance(_Nothing())
_KINDS: Final = {dict: OBJECT, list: ARRAY, str: STRING, int: NUMBER, float: NUMBER, type(None): NULL}
_MAKE: Final[dict[int, Callable[[Any], Fit]]] = {
    OBJECT: _object,
    ARRAY: _array,
    STRING: _string,
    NUMBER: _number,
} | dict.fromkeys((TRUE, FALSE, NULL), _constant)
