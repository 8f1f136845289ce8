"""Which branches of a `oneOf` exclude each other by what they plainly say.

Where two do, one accepting means that the other rejects, and nothing need be followed for that: the usual `oneOf`
over a `kind` costs no more than an `anyOf`. Only looks at what is written in the branches; in doubt they do not
exclude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from streamguard.viability.patterns.regexes import PatternTimeout
from streamguard.viability.schema.nodes import Group, Node
from streamguard.viability.syntax.grammar import OBJECT
from streamguard.viability.syntax.values_equal import canonical

if TYPE_CHECKING:
    from streamguard.viability.schema.formula import Conj, Options

_MOST: Final = 8
"""Alternatives of a branch that are compared."""


def apart(one: Options, other: Options, kind: int) -> bool:
    """Whether no value of that kind satisfies both."""
    if len(one) > _MOST or len(other) > _MOST:
        return False
    return kind == OBJECT and all(_apart(a, b) for a in one for b in other)


def _apart(one: Conj, other: Conj) -> bool:
    required = {
        name
        for atom, positive in (*one.atoms, *other.atoms)
        if positive and atom.tag == "required"
        for name in atom.arg
    }
    if not required:
        return False
    ours, theirs = _groups(one), _groups(other)
    return any(_clash(_applying(ours, name), _applying(theirs, name)) for name in required)


def _groups(conj: Conj) -> list[Group]:
    return [atom.arg for atom, positive in conj.atoms if positive and atom.tag == "group"]


def _applying(groups: list[Group], name: str) -> list[Node]:
    try:
        return [node for group in groups for node in group.applying(name)]
    except PatternTimeout:
        return []


def _clash(ours: list[Node], theirs: list[Node]) -> bool:
    for a in ours:
        for b in theirs:
            if not a.kinds & b.kinds:
                return True
            listed, other = _listed(a), _listed(b)
            if listed is not None and other is not None and listed.isdisjoint(other):
                return True
    return not all(node.kinds for node in (*ours, *theirs))


def _listed(node: Node, depth: int = 8) -> set[Any] | None:
    """The values that a schema lists; `None` if it does not."""
    schema = node.schema
    if isinstance(schema, dict) and not (len(node.ops) == 1 and node.ops[0].keyword == "$ref"):
        if "const" in schema:
            return {canonical(schema["const"])} if node.lists else None
        if "enum" in schema:
            return set(map(canonical, schema["enum"])) if node.lists else None
    for op in node.ops:
        if op.op == "all" and depth:
            for inner in op.nodes:
                found = _listed(inner, depth - 1) if inner is not None else None
                if found is not None:
                    return found
    return None
