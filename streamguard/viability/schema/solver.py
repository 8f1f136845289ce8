"""What can be satisfied at all: builds the alternatives of each constraint and drops those that no value meets.

In charge of: least fixpoints over recursive schemas (a schema whose every instance would be infinite accepts nothing),
and of giving up soundly: what is too much work counts as satisfiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from streamguard.viability.schema.formula import AnyOf, Constraint, Logic
from streamguard.viability.schema.keywords import EVERY_KIND
from streamguard.viability.schema.nodes import denied
from streamguard.viability.schema.normal_form import Conj
from streamguard.viability.state.arrays import ArrayAlt
from streamguard.viability.state.numbers import NumberAlt
from streamguard.viability.state.objects import ObjectAlt
from streamguard.viability.state.strings import StringAlt, units
from streamguard.viability.syntax.grammar import ARRAY, NUMBER, OBJECT, STRING
from streamguard.viability.syntax.trampoline import Steps, run

T = TypeVar("T")

_WORK: Final = 20_000
"""Constraints looked at for one answer."""

_SCALARS_FIRST: Final = (*(k for k in EVERY_KIND if k not in (OBJECT, ARRAY)), ARRAY, OBJECT)


class ConstantAlt:
    """`true`, `false` or `null`: nothing but choices can be asked of them, and those were made."""

    __slots__ = ("subs", "wants_value")

    def __init__(self) -> None:
        self.subs: tuple[AnyOf, ...] = ()
        self.wants_value = False


Built = ObjectAlt | ArrayAlt | StringAlt | NumberAlt | ConstantAlt
"""The alternatives of each kind."""


class Search:
    """One answer, as far as it has got. Its questions are answered at once where that is known, else in steps."""

    __slots__ = ("_known", "_lowest", "_open", "_solver", "_work")

    def __init__(self, solver: Solver, known: dict[tuple[Constraint, int], bool]) -> None:
        self._solver = solver
        self._known = known
        self._open: dict[tuple[Constraint, int], int] = {}
        self._lowest = 0
        self._work = 0

    def __call__(self, query: Constraint) -> bool | Steps[bool]:
        """Whether some value meets the constraint."""
        if not query.key:
            return True
        known = self._known
        for kind in _SCALARS_FIRST:
            found = known.get((query, kind))
            if found is None:
                return self._any_kind(query)
            if found:
                return True
        return False

    def _any_kind(self, query: Constraint) -> Steps[bool]:
        for kind in _SCALARS_FIRST:
            if (yield self.any(query, kind)):
                return True
        return False

    def choice(self, choice: AnyOf) -> bool | Steps[bool]:
        """Whether some value meets the choice."""
        return self.any(choice, choice.kind)

    def any(self, constraint: Constraint, kind: int) -> bool | Steps[bool]:
        """Whether some value of that kind meets the constraint."""
        found = self._known.get((constraint, kind))
        return self._look((constraint, kind)) if found is None else found

    def _look(self, key: tuple[Constraint, int]) -> Steps[bool]:
        if key in self._open:  # a circle: no finite value comes of it
            self._lowest = min(self._lowest, self._open[key])
            return False
        depth = len(self._open)
        self._work += 1
        if self._work > _WORK:
            return True
        before, self._lowest = self._lowest, depth
        self._open[key] = depth
        found = False
        for alt in self._solver.raw(*key):
            if (yield self.possible(alt)):
                found = True
                break
        del self._open[key]
        lowest = self._lowest
        self._lowest = min(before, lowest)
        if found or lowest >= depth:
            self._known[key] = found
        return found

    def possible(self, alt: Built) -> Steps[bool]:
        """Whether some value meets an alternative."""
        if isinstance(alt, (ObjectAlt, ArrayAlt)):
            found: bool = yield alt.possible(self)
            return found
        subs: tuple[Any, ...] = alt.subs
        for sub in subs:
            if not (yield self.choice(sub)):
                return False
        return True


class Solver:
    """Answers for one schema."""

    def __init__(self) -> None:
        self._known: dict[tuple[Constraint, int], bool] = {}
        self._raw: dict[tuple[Constraint, int], tuple[Built, ...]] = {}

    def forget(self) -> None:
        """Drop what is remembered; it is worked out again where needed."""
        self._known.clear()
        self._raw.clear()

    def answer(self, question: Callable[[Search], bool | Steps[T]]) -> T:
        """The answer to what is asked in steps."""
        found = question(Search(self, self._known))
        return cast("T", found) if isinstance(found, bool) else run(found)

    def __call__(self, query: Constraint) -> bool:
        """Whether some value meets the constraint."""
        return self.answer(lambda search: search(query))

    def any(self, constraint: Constraint, kind: int) -> bool:
        """Whether some value of that kind meets the constraint."""
        return self.answer(lambda search: search.any(constraint, kind))

    def raw(self, constraint: Constraint, kind: int) -> tuple[Built, ...]:
        """The alternatives that are not absurd in themselves."""
        key = (constraint, kind)
        found = self._raw.get(key)
        if found is None:
            made = (_make(constraint.logic, conj, kind) for conj in constraint.options(kind))
            found = self._raw[key] = tuple(alt for alt in made if alt is not None)
        return found

    def build(self, constraint: Constraint, kind: int) -> tuple[Built, ...]:
        """The alternatives that some value meets, ready for use."""
        found = tuple(alt for alt in self.raw(constraint, kind) if run(Search(self, self._known).possible(alt)))
        for alt in found:
            if isinstance(alt, (ObjectAlt, ArrayAlt)):
                alt.finish(self)
        return found


def _make(logic: Logic, conj: Conj, kind: int) -> Built | None:
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
