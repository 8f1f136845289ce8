"""Which branches of a `oneOf` exclude each other, found by the values that they list, alone or under a required name.

In charge of: not multiplying out "and none of the others" where a value of one branch is none of another anyway.
Branches are looked up by what tells them apart, so that a thousand constants or tagged objects are not compared by
pairs. Never wrongly apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from streamguard.viability.patterns.regexes import PatternTimeout
from streamguard.viability.schema.nodes import Group, Node
from streamguard.viability.schema.normal_form import Conj, Options
from streamguard.viability.syntax.grammar import NUMBER, OBJECT, STRING
from streamguard.viability.syntax.values_equal import canonical

_FEW: Final = 8
"""Branches that are compared by pairs at once."""
_ITSELF: Final = None
"""In place of a name: the value itself."""


def overlapping(nodes: Sequence[Node | None], branches: Sequence[Options], kind: int) -> list[list[int]]:
    """For each branch, which others some value of that kind may satisfy as well."""
    alive = [i for i, options in enumerate(branches) if options]
    found: list[list[int]] = [[] for _ in branches]
    if len(alive) <= _FEW:
        candidates = dict.fromkeys(alive, alive)
    else:
        candidates = _candidates({i: _signature(nodes[i], branches[i], kind) for i in alive})
    for i in alive:
        found[i] = [j for j in candidates[i] if j != i and not _are_apart(nodes, branches, i, j, kind)]
    return found


def _candidates(signatures: dict[int, dict[str | None, set[Any]]]) -> dict[int, list[int]]:
    """For each branch those that its most telling name does not tell apart from it."""
    holders: dict[str | None, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    having: dict[str | None, set[int]] = defaultdict(set)
    for i, signature in signatures.items():
        for name, values in signature.items():
            having[name].add(i)
            for value in values:
                holders[name][value].append(i)
    without: dict[str | None, list[int]] = {}
    found = {}
    for i, signature in signatures.items():
        if not signature:
            found[i] = list(signatures)
            continue
        name = max(signature, key=lambda name: len(having[name]))
        if name not in without:
            without[name] = [j for j in signatures if j not in having[name]]
        same = {j for value in signature[name] for j in holders[name][value]}
        found[i] = sorted({*same, *without[name]})
    return found


def _signature(node: Node | None, options: Options, kind: int) -> dict[str | None, set[Any]]:
    """Per name that a value of the branch must have, the values that its member can have, if those are listed."""
    listed = None if node is None else _listed(node)
    if listed is None and kind in (STRING, NUMBER):
        listed = _listed_by(options)
    if listed is not None:
        return {_ITSELF: listed}
    if kind != OBJECT or len(options) > _COMPARED:
        return {}
    found: dict[str | None, set[Any]] | None = None
    for conj in options:
        groups = _groups(conj)
        here: dict[str | None, set[Any]] = {}
        for name in _required(conj):
            lists = [values for part in _applying(groups, name) if (values := _listed(part)) is not None]
            if lists:
                here[name] = set.intersection(*lists)
        known = here if found is None else found
        found = {name: values | here[name] for name, values in known.items() if name in here}
    return found or {}


def _listed_by(options: Options) -> set[Any] | None:
    """The values that the alternatives list; `None` if one does not."""
    found: set[Any] = set()
    for conj in options:
        lists = [set(map(canonical, atom.arg)) for atom, positive in conj.atoms if positive and atom.tag == "values"]
        if not lists:
            return None
        found |= set.intersection(*lists)
    return found


def _are_apart(nodes: Sequence[Node | None], branches: Sequence[Options], i: int, j: int, kind: int) -> bool:
    one, other = nodes[i], nodes[j]
    if one is not None and other is not None:
        ours, theirs = _listed(one), _listed(other)
        if ours is not None and theirs is not None and ours.isdisjoint(theirs):
            return True
    return apart(branches[i], branches[j], kind)


_COMPARED: Final = 8
"""Alternatives of a branch that are compared."""


def apart(one: Options, other: Options, kind: int) -> bool:
    """Whether no value of that kind satisfies both."""
    if kind in (STRING, NUMBER):
        ours, theirs = _listed_by(one), _listed_by(other)
        return ours is not None and theirs is not None and ours.isdisjoint(theirs)
    if len(one) > _COMPARED or len(other) > _COMPARED:
        return False
    return kind == OBJECT and all(_apart(a, b) for a in one for b in other)


def _apart(one: Conj, other: Conj) -> bool:
    required = _required(one) | _required(other)
    if not required:
        return False
    ours, theirs = _groups(one), _groups(other)
    return any(_clash(_applying(ours, name), _applying(theirs, name)) for name in required)


def _required(conj: Conj) -> set[str]:
    return {name for atom, positive in conj.atoms if positive and atom.tag == "required" for name in atom.arg}


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
            return set(schema["enum"].known) if node.lists else None
    for op in node.ops:
        if op.op == "all" and depth:
            for inner in op.nodes:
                found = _listed(inner, depth - 1) if inner is not None else None
                if found is not None:
                    return found
    return None
