"""Disjunctive normal form: an "or" of "and"s of atoms, multiplied out as long as it stays small.

Plain operations on alternatives. Knows neither schemas nor values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from streamguard.viability.schema.nodes import Atom

MAX_ALTERNATIVES: Final = 48
"""Alternatives of one constraint that are multiplied out."""

Literal = tuple[Atom, bool]


class Conj(NamedTuple):
    """Atoms that hold (`True`) or fail (`False`) together. `cover`: the groups or items whose evaluation counts for an
    `unevaluated*` further out; `rough`: there may be more of them than meant."""

    atoms: frozenset[Literal]
    cover: frozenset[Atom] = frozenset()
    rough: bool = False

    def ordered(self) -> list[Literal]:
        """The atoms as they stand in the schema, so that the same verdict always has the same words."""
        return sorted(self.atoms, key=lambda literal: (literal[0].pointer, literal[0].keyword, literal[1]))


Options = tuple[Conj, ...]
TRUE: Final[Options] = (Conj(frozenset()),)
FALSE: Final[Options] = ()


def conjoin(parts: list[Options], most: int = MAX_ALTERNATIVES) -> Options:
    """All of them, multiplied out as long as there are at most so many; the rest as choices."""
    if not all(parts):
        return FALSE
    found: list[Conj] = [Conj(frozenset())]
    choices: list[Options] = []
    for part in sorted(parts, key=len):
        if part is TRUE:
            continue
        if len(found) * len(part) > most and len(part) > 1:
            choices.append(part)
            continue
        found = list(
            dict.fromkeys(Conj(a.atoms | b.atoms, a.cover | b.cover, a.rough or b.rough) for a in found for b in part)
        )
        found = [conj for conj in found if not _contradicts(conj)]
    for part in choices:
        cover = frozenset(a for conj in part for a in conj.cover)
        rough = bool(cover) or any(conj.rough for conj in part)
        first = next(iter(part[0].atoms), None)
        like = first[0] if first else Atom("choice", None, "anyOf", "")
        atom = (like.like("choice", part), True)
        found = [Conj(a.atoms | {atom}, a.cover | cover, a.rough or rough) for a in found]
    return tuple(found)


def _contradicts(conj: Conj) -> bool:
    return any(not positive and (atom, True) in conj.atoms for atom, positive in conj.atoms)


def either(parts: Iterable[Options]) -> Options:
    found = dict.fromkeys(conj for part in parts for conj in part)
    plain = Conj(frozenset())
    return TRUE if plain in found and len(found) == 1 else tuple(found)


def merged(options: Options, like: Atom) -> Options:
    """The same, with the alternatives that list values and nothing else as one, put down to the keyword of `like`."""
    lists = [conj for conj in options if _lists_only(conj)]
    if len(lists) < 2:
        return options
    values = [value for conj in lists for atom, _ in conj.atoms for value in atom.arg]
    one = Conj(frozenset({(like.like("values", values), True)}))
    return (one, *(conj for conj in options if not _lists_only(conj)))


def _lists_only(conj: Conj) -> bool:
    return len(conj.atoms) == 1 and not conj.cover and all(p and atom.tag == "values" for atom, p in conj.atoms)


def opposite(atom: Atom) -> Options:
    """When one atom fails."""
    found: Options | None = atom.opposites
    if found is None:
        found = atom.opposites = tuple(Conj(frozenset(literals)) for literals in _opposites(atom))
    return found


_FLIPPED: Final = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


def _opposites(atom: Atom) -> Iterator[list[Literal]]:
    if atom.tag in ("length", "size"):
        lo, hi = atom.arg
        if lo > 0:
            yield [(atom.like(atom.tag, (0, lo - 1)), True)]
        if hi < math.inf:
            yield [(atom.like(atom.tag, (hi + 1, math.inf)), True)]
    elif atom.tag == "bound":
        op, limit = atom.arg
        yield [(atom.like("bound", (_FLIPPED[op], limit)), True)]
    elif atom.tag == "contains":
        node, lo, hi = atom.arg
        if lo > 0:
            yield [(atom.like("contains", (node, 0, lo - 1)), True)]
        if hi < math.inf:
            yield [(atom.like("contains", (node, hi + 1, math.inf)), True)]
    elif atom.tag == "needs":
        for name, needed in atom.arg.items():
            yield [(atom.like("required", (name,)), True), (atom.like("required", needed), False)]
    else:
        yield [(atom, False)]
