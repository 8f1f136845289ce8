"""What can be satisfied at all: builds the alternatives of each constraint and drops those that no value meets.

In charge of: least fixpoints over recursive schemas (a schema whose every instance would be infinite accepts nothing),
and of giving up soundly: what is too much work counts as satisfiable.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from streamguard.viability.schema.formula import AnyOf, Conj, Constraint, Logic
from streamguard.viability.schema.keywords import EVERY_KIND
from streamguard.viability.schema.nodes import denied
from streamguard.viability.state.arrays import ArrayAlt
from streamguard.viability.state.numbers import NumberAlt
from streamguard.viability.state.objects import ObjectAlt
from streamguard.viability.state.strings import StringAlt, units
from streamguard.viability.syntax.grammar import ARRAY, NUMBER, OBJECT, STRING

_WORK: Final = 20_000
"""Constraints looked at for one answer."""

_DEPTH: Final = 50
"""Levels looked down for one answer; each takes some ten calls of Python's stack."""

_SCALARS_FIRST: Final = (*(k for k in EVERY_KIND if k not in (OBJECT, ARRAY)), ARRAY, OBJECT)


class ConstantAlt:
    """`true`, `false` or `null`: nothing but choices can be asked of them, and those were made."""

    __slots__ = ("subs", "wants_value")

    def __init__(self) -> None:
        self.subs: tuple[Any, ...] = ()
        self.wants_value = False


class _Search:
    """One answer, as far as it has got."""

    __slots__ = ("lowest", "open", "work")

    def __init__(self) -> None:
        self.open: dict[tuple[Constraint, int], int] = {}
        self.lowest = 0
        self.work = 0


_SEARCH: ContextVar[_Search | None] = ContextVar("_SEARCH", default=None)
"""The one at hand. Of its own thread: what is open in another is no circle, and must not be remembered as one."""


class Solver:
    """Answers for one schema."""

    def __init__(self) -> None:
        self._known: dict[tuple[Constraint, int], bool] = {}
        self._raw: dict[tuple[Constraint, int], tuple[Any, ...]] = {}

    def forget(self) -> None:
        """Drop what is remembered; it is worked out again where needed."""
        self._known.clear()
        self._raw.clear()

    def __call__(self, query: Constraint) -> bool:
        """Whether some value meets the constraint."""
        return not query.key or any(self.any(query, kind) for kind in _SCALARS_FIRST)

    def choice(self, choice: AnyOf) -> bool:
        return self.any(choice, choice.kind)

    def any(self, constraint: Constraint, kind: int) -> bool:
        """Whether some value of that kind meets the constraint."""
        key = (constraint, kind)
        known = self._known.get(key)
        if known is not None:
            return known
        search = _SEARCH.get()
        if search is None:
            token = _SEARCH.set(_Search())
            try:
                return self.any(constraint, kind)
            finally:
                _SEARCH.reset(token)
        if key in search.open:
            search.lowest = min(search.lowest, search.open[key])
            return False
        depth = len(search.open)
        search.work += 1
        if search.work > _WORK or depth > _DEPTH:
            return True
        before, search.lowest = search.lowest, depth
        search.open[key] = depth
        try:
            found = any(self._possible(alt) for alt in self.raw(constraint, kind))
        finally:
            del search.open[key]
        lowest = search.lowest
        search.lowest = min(before, lowest)
        if found or lowest >= depth:
            self._known[key] = found
        return found

    def _possible(self, alt: Any) -> bool:
        if isinstance(alt, (ObjectAlt, ArrayAlt)):
            return alt.possible(self)
        return all(map(self.choice, alt.subs))

    def raw(self, constraint: Constraint, kind: int) -> tuple[Any, ...]:
        """The alternatives that are not absurd in themselves."""
        key = (constraint, kind)
        found = self._raw.get(key)
        if found is None:
            made = (_make(constraint.logic, conj, kind) for conj in constraint.options(kind))
            found = self._raw[key] = tuple(alt for alt in made if alt is not None)
        return found

    def build(self, constraint: Constraint, kind: int) -> tuple[Any, ...]:
        """The alternatives that some value meets, ready for use."""
        found = tuple(alt for alt in self.raw(constraint, kind) if self._possible(alt))
        for alt in found:
            if isinstance(alt, (ObjectAlt, ArrayAlt)):
                alt.finish(self)
        return found


def _make(logic: Logic, conj: Conj, kind: int) -> Any:
    if kind == OBJECT:
        return ObjectAlt(logic, conj)
    if kind == ARRAY:
        return ArrayAlt(logic, conj)
    if kind == STRING:
        return _string(logic, conj)
    if kind == NUMBER:
        return _number(logic, conj)
    alt = ConstantAlt()
    alt.subs = tuple(logic.choice(atom, kind) for atom, _ in conj.ordered() if atom.tag == "choice")
    return alt


def _string(logic: Logic, conj: Conj) -> StringAlt | None:
    alt = StringAlt()
    for atom, positive in conj.ordered():
        if atom.tag == "values":
            if not positive:
                alt.banned.update(atom.arg)
                alt.sources["banned"] = denied(atom)
                continue
            texts = {units(text): text for text in atom.arg}
            old = alt.candidates
            alt.candidates = texts if old is None else {u: t for u, t in texts.items() if u in old}
            alt.sources["candidates"] = atom
        elif atom.tag == "length":
            lo, hi = atom.arg
            if lo > alt.lo:
                alt.lo, alt.sources["lo"] = lo, atom
            if hi < alt.hi:
                alt.hi, alt.sources["hi"] = hi, atom
        elif atom.tag == "pattern":
            (alt.patterns if positive else alt.no_patterns).append((atom.arg, atom if positive else denied(atom)))
        elif atom.tag == "format":
            (alt.formats if positive else alt.no_formats).append((atom.arg, atom if positive else denied(atom)))
        elif atom.tag == "choice":
            alt.subs += (logic.choice(atom, STRING),)
    return alt if alt.settle() else None


def _number(logic: Logic, conj: Conj) -> NumberAlt | None:
    alt = NumberAlt()
    for atom, positive in conj.ordered():
        if atom.tag == "values":
            if not positive:
                alt.banned.update(atom.arg)
                alt.sources["banned"] = denied(atom)
                continue
            alt.only(atom.arg)
            alt.sources["candidates"] = atom
        elif atom.tag == "bound":
            op, limit = atom.arg
            alt.limit(op, limit, atom)
        elif atom.tag in ("integer", "strict_integer"):
            if positive:
                alt.integer = True
                alt.strict_integer = alt.strict_integer or atom.tag == "strict_integer"
                alt.sources["integer"] = atom
            elif atom.tag == "integer":
                alt.not_integer = True
                alt.sources["not_integer"] = denied(atom)
            else:
                alt.no_strict = True
                alt.sources["not_integer"] = denied(atom)
        elif atom.tag == "multiple":
            source = atom if positive else denied(atom)
            (alt.multiples if positive else alt.no_multiples).append((atom.arg, source))
            alt.sources["multiples" if positive else "no_multiples"] = source
        elif atom.tag == "choice":
            alt.subs += (logic.choice(atom, NUMBER),)
    return alt if alt.settle() else None
