"""From schemas to alternatives: what must hold of one value of one kind, as an "or" of "and"s of atoms.

In charge of: `allOf`, `anyOf`, `oneOf`, `not`, `if`, references and dependent schemas, turned into disjunctive normal
form as long as it stays small (`MAX_ALTERNATIVES`). What would grow too large stays an `AnyOf` that is followed on its
own, and forgets how it hangs together with its siblings: still sound, less sharp. Also which keywords have evaluated
what, for `unevaluated*`. Does not know values or text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from streamguard.viability.patterns.regexes import PatternTimeout
from streamguard.viability.schema.accepts import Acceptance
from streamguard.viability.schema.graph import Graph
from streamguard.viability.schema.nodes import UNKNOWN, Atom, Group, Node, Op
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS, NUMBER, OBJECT, STRING
from streamguard.viability.syntax.values_equal import canonical

MAX_ALTERNATIVES: Final = 48
"""Alternatives of one constraint that are multiplied out."""
_KEPT: Final = 20_000
"""Constraints that are remembered, so that no document can fill the memory."""
_SPLIT: Final = 4
"""Branches of an `anyOf` below `unevaluated*` of which every combination is followed."""

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


class Constraint:
    """What is asked of one value. `alternatives(kind)`: those for a value of that kind, as the logic builds them."""

    __slots__ = ("_alternatives", "finite", "fits", "key", "kind", "logic")

    def __init__(self, logic: Logic, key: Any, kind: int = 0) -> None:
        self.logic = logic
        self._alternatives: dict[int, tuple[Any, ...]] = {}
        self.key = key
        self.kind = kind  # the one kind of a choice
        self.finite: Any = ...  # see Logic.finite
        self.fits = Acceptance(self)
        """Whether it surely accepts a finished value."""

    def options(self, kind: int) -> Options:
        """What comes down to it, for a value of that kind."""
        return conjoin([self.logic.options(node, kind, positive=positive) for node, positive in self._ordered()])

    def _ordered(self) -> list[tuple[Node, bool]]:
        return sorted(self.key, key=lambda literal: (literal[0].id, literal[1]))

    def why(self, kind: int) -> Atom:
        """What is to blame where no value of that kind is accepted."""
        nodes: list[Node] = [node for node, positive in self._ordered() if positive]
        seen: set[int] = set()
        fallback: Atom | None = None
        while nodes:
            node = nodes.pop(0)
            if node.id in seen:
                continue
            seen.add(node.id)
            if not node.kinds & kind and node.kind_atom is not None:
                return node.kind_atom
            for op in node.ops:
                fallback = fallback or Atom(op.op, None, op.keyword, op.pointer)
                if op.op in ("all", "any", "one"):
                    nodes += [n for n in op.nodes if n is not None]
            fallback = fallback or next(iter(node.atoms.get(kind, [])), None)
        found: Atom = UNKNOWN if fallback is None else fallback
        return found

    def alternatives(self, kind: int) -> tuple[Any, ...]:
        found = self._alternatives.get(kind)
        if found is None:
            found = self._alternatives[kind] = self.logic.sat.build(self, kind)
        return found


class AllOf(Constraint):
    """Schemas that must accept (`True`) or reject (`False`) a value, all of them."""

    __slots__ = ()


class AnyOf(Constraint):
    """One of several conjunctions, for a value of the kind at hand."""

    __slots__ = ()

    def options(self, kind: int) -> Options:  # noqa: ARG002  # made for one kind
        found: Options = self.key
        return found

    def why(self, kind: int) -> Atom:  # noqa: ARG002
        return next((atom for conj in self.key for atom, _ in conj.atoms), UNKNOWN)


class Logic:
    """The constraints that follow from one schema, each made once."""

    def __init__(self, graph: Graph, sat: Any, longest: int) -> None:
        self.graph = graph
        self.sat = sat
        """The solver."""
        self.longest = longest
        """Characters of a string's beginning that some keyword may look at."""
        self._choices: dict[tuple[Any, int], AnyOf] = {}
        self._queries: dict[frozenset[tuple[Node, bool]], AllOf] = {}
        self._options: dict[tuple[int, int, bool, bool], Options] = {}
        self._uneven: dict[Any, Atom] = {}

    def choice(self, atom: Atom, kind: int) -> AnyOf:
        """The constraint that a choice atom stands for."""
        key = (atom.arg, kind)
        choice = self._choices.get(key)
        if choice is None:
            choice = self._choices[key] = AnyOf(self, atom.arg, kind)
        return choice

    def finite(self, constraint: Constraint) -> set[Any] | None:
        """The values a constraint accepts, canonical, if they are listed; `None` if there may be others."""
        if constraint.finite is ...:
            constraint.finite = self._finite(constraint)
        found: set[Any] | None = constraint.finite
        return found

    def _finite(self, constraint: Constraint) -> set[Any] | None:
        if not constraint.key or any(constraint.options(kind) for kind in (OBJECT, ARRAY)):
            return None
        found: set[Any] = {canonical(value) for kind, value in CONSTANTS.items() if constraint.options(kind)}
        for kind in (STRING, NUMBER):
            for alt in self.sat.raw(constraint, kind):
                if alt.candidates is None:
                    return None
                found.update(alt.candidates.values() if kind == STRING else alt.candidates.values)
        return found

    def query(self, literals: Iterable[tuple[Node, bool]]) -> AllOf:
        """The constraint that these schemas accept or reject."""
        key = frozenset((n, p) for n, p in literals if not (p and n.always))
        query = self._queries.get(key)
        if query is None:
            if len(self._queries) >= _KEPT:  # names come from the text, and may match patterns in many combinations
                self._queries.clear()
                self.sat.forget()
            query = self._queries[key] = AllOf(self, key)
        return query

    def options(self, node: Node, kind: int, *, positive: bool, covering: bool = False) -> Options:
        """When the node accepts, or rejects, a value of this kind."""
        key = (node.id, kind, positive, covering)
        found = self._options.get(key)
        if found is None:
            found = self._accepts(node, kind, covering) if positive else self._rejects(node, kind)
            self._options[key] = found
        return found

    def _accepts(self, node: Node, kind: int, covering: bool) -> Options:
        if not node.kinds & kind:
            return FALSE
        extra = {OBJECT: node.unevaluated_properties, ARRAY: node.unevaluated_items}.get(kind)
        inner = covering or extra is not None
        atoms = node.atoms.get(kind, [])
        cover = frozenset(a for a in atoms if inner and a.tag in ("group", "items", "contains"))
        parts: list[Options] = [(Conj(frozenset((a, True) for a in atoms), cover),)]
        if kind in node.structured:
            parts.append(_either(self.options(n, kind, positive=True) for n in node.structured[kind]))
        parts += [self._op(op, kind, inner) for op in node.ops]
        found = conjoin(parts)
        if extra is not None:
            found = tuple(self._uneval(node, extra, kind, conj) for conj in found)
            if not covering:  # what was evaluated inside matters to nobody outside
                found = tuple(dict.fromkeys(Conj(conj.atoms) for conj in found))
        return found

    def _op(self, op: Op, kind: int, covering: bool) -> Options:
        def yes(node: Node | None) -> Options:
            return TRUE if node is None else self.options(node, kind, positive=True, covering=covering)

        def no(node: Node | None) -> Options:
            return FALSE if node is None else self.options(node, kind, positive=False)

        nodes = op.nodes
        if op.op == "all":
            return conjoin([yes(n) for n in nodes])
        if op.op == "any":
            if not covering:
                return _either(yes(n) for n in nodes)
            if len(nodes) <= _SPLIT:
                return _either(
                    conjoin([yes(n) if bits >> i & 1 else no(n) for i, n in enumerate(nodes)])
                    for bits in range(1, 1 << len(nodes))
                )
            everything = frozenset(a for n in nodes for conj in yes(n) for a in conj.cover)
            return tuple(Conj(conj.atoms, everything, True) for n in nodes for conj in yes(n))
        if op.op == "one":
            accepted = [yes(n) for n in nodes]
            most = max(MAX_ALTERNATIVES // len(nodes), _SPLIT)
            return _either(
                conjoin(
                    [ours, *(no(n) for j, n in enumerate(nodes) if j != i and not apart(ours, accepted[j], kind))], most
                )
                for i, ours in enumerate(accepted)
                if ours
            )
        if op.op == "not":
            return no(nodes[0])
        if op.op == "if":
            test, then, otherwise = nodes
            if then is None and otherwise is None and not covering:
                return TRUE
            return _either([conjoin([yes(test), yes(then)]), conjoin([no(test), yes(otherwise)])])
        if kind != OBJECT:  # dependent
            return TRUE
        has = Atom("required", (op.name,), op.keyword, op.pointer)
        return _either(
            [(Conj(frozenset({(has, False)})),), conjoin([(Conj(frozenset({(has, True)})),), yes(nodes[0])])]
        )

    def _rejects(self, node: Node, kind: int) -> Options:
        if not node.kinds & kind:
            return TRUE
        parts: list[Options] = [_opposite(atom) for atom in node.atoms.get(kind, [])]
        if kind in node.structured:
            parts.append(conjoin([self.options(n, kind, positive=False) for n in node.structured[kind]]))
        parts += [self._no_op(op, kind) for op in node.ops]
        if {OBJECT: node.unevaluated_properties, ARRAY: node.unevaluated_items}.get(kind) is not None:
            parts.append((Conj(frozenset({(self._judge(node), False)})),))
        return _either(parts)

    def _no_op(self, op: Op, kind: int) -> Options:
        def yes(node: Node | None) -> Options:
            return TRUE if node is None else self.options(node, kind, positive=True)

        def no(node: Node | None) -> Options:
            return FALSE if node is None else self.options(node, kind, positive=False)

        nodes = op.nodes
        if op.op == "all":
            return _either(no(n) for n in nodes)
        if op.op == "any":
            return conjoin([no(n) for n in nodes])
        if op.op == "one":
            accepted = [yes(n) for n in nodes]
            pairs = (
                conjoin([a, b]) for i, a in enumerate(accepted) for b in accepted[i + 1 :] if not apart(a, b, kind)
            )
            return _either([conjoin([no(n) for n in nodes]), *pairs])
        if op.op == "not":
            return yes(nodes[0])
        if op.op == "if":
            test, then, otherwise = nodes
            return _either([conjoin([yes(test), no(then)]), conjoin([no(test), no(otherwise)])])
        if kind != OBJECT:
            return FALSE
        has = Atom("required", (op.name,), op.keyword, op.pointer)
        return conjoin([(Conj(frozenset({(has, True)})),), no(nodes[0])])

    # -- unevaluated ---------------------------------------------------------------------------------------------------

    def _judge(self, node: Node) -> Atom:
        key = ("judge", node.id)
        if key not in self._uneven:
            keyword = "unevaluatedProperties" if node.unevaluated_properties is not None else "unevaluatedItems"
            self._uneven[key] = Atom("judge", node, keyword, f"{node.pointer}/{keyword}")
        return self._uneven[key]

    def _uneval(self, node: Node, extra: Node, kind: int, conj: Conj) -> Conj:
        """The conjunction with `unevaluated*` as what it comes to under it: a group, or items."""
        key = (node.id, kind, conj.cover)
        atom = self._uneven.get(key)
        if atom is None:
            keyword = "unevaluatedProperties" if kind == OBJECT else "unevaluatedItems"
            arg: Any
            tag = "group" if kind == OBJECT else "items"
            arg = self._rest_group(extra, conj.cover) if kind == OBJECT else self._rest_items(extra, conj.cover)
            atom = self._uneven[key] = Atom(tag, arg, keyword, f"{node.pointer}/{keyword}")
        atoms = conj.atoms | {(atom, True)}
        if conj.rough:
            atoms |= {(self._judge(node), True)}
        return Conj(atoms, conj.cover | {atom}, conj.rough)

    def _rest_group(self, extra: Node, cover: frozenset[Atom]) -> Group:
        anything = self.graph.anything
        properties: dict[str, Node] = {}
        patterns = []
        additional: Node | None = extra
        for atom in cover:
            group = atom.arg
            properties.update(dict.fromkeys(group.properties, anything))
            patterns += [(pattern, anything) for pattern, _ in group.patterns]
            if group.additional is not None:
                additional = None
        return Group(properties, patterns, additional)

    def _rest_items(self, extra: Node, cover: frozenset[Atom]) -> tuple[list[Node], Node | None]:
        first = 0
        tests = []
        for atom in cover:
            if atom.tag == "contains":
                tests.append(atom.arg[0])  # in 2019-09 too, since the final judge has it so
                continue
            prefix, rest = atom.arg
            first = max(first, len(prefix))
            if rest is not None:
                return [], None
        if tests:
            made = self.graph.made_any([*tests, extra], extra)
            return [self.graph.anything] * first, made
        return [self.graph.anything] * first, extra


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


def _either(parts: Iterable[Options]) -> Options:
    found = dict.fromkeys(conj for part in parts for conj in part)
    plain = Conj(frozenset())
    return TRUE if plain in found and len(found) == 1 else tuple(found)


def _opposite(atom: Atom) -> Options:
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


_COMPARED: Final = 8
"""Alternatives of a branch that are compared."""


def apart(one: Options, other: Options, kind: int) -> bool:
    """Whether no value of that kind satisfies both."""
    if len(one) > _COMPARED or len(other) > _COMPARED:
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
