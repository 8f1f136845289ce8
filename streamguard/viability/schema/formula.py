"""From schemas to alternatives: what must hold of one value of one kind, as an "or" of "and"s of atoms.

In charge of: `allOf`, `anyOf`, `oneOf`, `not`, `if`, references and dependent schemas, turned into disjunctive normal
form as long as it stays small (`MAX_ALTERNATIVES`). What would grow too large stays an `AnyOf` that is followed on its
own, and forgets how it hangs together with its siblings: still sound, less sharp. Also which keywords have evaluated
what, for `unevaluated*`. Does not know values or text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from streamguard.viability.schema.accepts import Acceptance
from streamguard.viability.schema.disjoint import overlapping
from streamguard.viability.schema.graph import Graph
from streamguard.viability.schema.nodes import UNKNOWN, Atom, Group, Node, Op
from streamguard.viability.schema.normal_form import (
    FALSE,
    MAX_ALTERNATIVES,
    TRUE,
    Conj,
    Options,
    conjoin,
    either,
    merged,
    opposite,
)
from streamguard.viability.schema.protocols import Alternative
from streamguard.viability.syntax.grammar import ARRAY, CONSTANTS, NUMBER, OBJECT, STRING
from streamguard.viability.syntax.trampoline import Steps, run
from streamguard.viability.syntax.values_equal import canonical

_KEPT: Final = 20_000
"""Constraints that are remembered, so that no document can fill the memory."""
T = TypeVar("T")

_SPLIT: Final = 4
"""Branches of an `anyOf` below `unevaluated*` of which every combination is followed."""
_EXCLUDED: Final = 64
"""Branches of a `oneOf` that are kept out of another one, where nothing tells them apart."""
_PAIRS: Final = 2_000
"""Pairs of such branches that are looked at where a `oneOf` must fail."""


class Satisfiable(Protocol):
    """One search for a value that meets a constraint. Answers at once where that is known, else in steps."""

    def __call__(self, query: Constraint, /) -> bool | Steps[bool]:
        """Whether some value meets the constraint."""

    def choice(self, choice: AnyOf, /) -> bool | Steps[bool]:
        """Whether some value meets the choice."""

    def any(self, constraint: Constraint, kind: int, /) -> bool | Steps[bool]:
        """Whether some value of that kind meets the constraint."""


class Satisfier(Protocol):
    """The solver: answers for one schema."""

    def __call__(self, query: Constraint, /) -> bool:
        """Whether some value meets the constraint."""

    def any(self, constraint: Constraint, kind: int, /) -> bool:
        """Whether some value of that kind meets the constraint."""

    def answer(self, question: Callable[[Satisfiable], bool | Steps[T]], /) -> T:
        """Answer what is asked in steps."""

    def raw(self, constraint: Constraint, kind: int, /) -> Sequence[Alternative]:
        """The alternatives that are not absurd in themselves."""

    def forget(self) -> None:
        """Drop what is remembered."""

    def build(self, constraint: Constraint, kind: int, /) -> tuple[Alternative, ...]:
        """Build the alternatives that some value meets."""


class Constraint:
    """What is asked of one value. `alternatives(kind)`: those for a value of that kind, as the logic builds them."""

    __slots__ = ("_alternatives", "finite", "fits", "key", "kind", "logic")

    def __init__(self, logic: Logic, key: Any, kind: int = 0) -> None:
        self.logic = logic
        self._alternatives: dict[int, tuple[Alternative, ...]] = {}
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

    def alternatives(self, kind: int) -> tuple[Alternative, ...]:
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

    def __init__(self, graph: Graph, sat: Satisfier, longest: int) -> None:
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
            alternatives: Sequence[Any] = self.sat.raw(constraint, kind)
            for alt in alternatives:
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

    def options(self, node: Node, kind: int, *, positive: bool) -> Options:
        """When the node accepts, or rejects, a value of this kind."""
        found = self._options.get((node.id, kind, positive, False))
        return run(self._known_or_made(node, kind, positive)) if found is None else found

    def _known_or_made(self, node: Node, kind: int, positive: bool, covering: bool = False) -> Steps[Options]:
        key = (node.id, kind, positive, covering)
        found = self._options.get(key)
        if found is None:
            found = yield self._accepts(node, kind, covering) if positive else self._rejects(node, kind)
            self._options[key] = found
        return found

    def _each(self, nodes: Iterable[Node | None], kind: int, positive: bool, covering: bool = False) -> Steps[Any]:
        """What several nodes come to; one that is not there accepts everything."""
        found = []
        for node in nodes:
            options = TRUE if positive else FALSE
            if node is not None:
                known = self._options.get((node.id, kind, positive, covering))
                options = (yield self._known_or_made(node, kind, positive, covering)) if known is None else known
            found.append(options)
        return found

    def _accepts(self, node: Node, kind: int, covering: bool) -> Steps[Options]:
        if not node.kinds & kind:
            return FALSE
        extra = {OBJECT: node.unevaluated_properties, ARRAY: node.unevaluated_items}.get(kind)
        inner = covering or extra is not None
        atoms = node.atoms.get(kind, [])
        cover = frozenset(a for a in atoms if inner and a.tag in ("group", "items", "contains"))
        parts: list[Options] = [(Conj(frozenset((a, True) for a in atoms), cover),)]
        if kind in node.structured:
            parts.append(either((yield self._each(node.structured[kind], kind, True))))
        parts += yield self._all_ops(node.ops, kind, inner)
        found = conjoin(parts)
        if extra is not None:
            found = tuple(self._uneval(node, extra, kind, conj) for conj in found)
            if not covering:  # what was evaluated inside matters to nobody outside
                found = tuple(dict.fromkeys(Conj(conj.atoms) for conj in found))
        return found

    def _all_ops(self, ops: list[Op], kind: int, covering: bool) -> Steps[Any]:
        found = []
        for op in ops:
            options = yield self._op(op, kind, covering)
            found.append(options)
        return found

    def _no_ops(self, ops: list[Op], kind: int) -> Steps[Any]:
        found = []
        for op in ops:
            options = yield self._no_op(op, kind)
            found.append(options)
        return found

    def _op(self, op: Op, kind: int, covering: bool) -> Steps[Any]:
        nodes = op.nodes
        if op.op == "all":
            return conjoin((yield self._each(nodes, kind, True, covering)))
        if op.op == "any":
            yes = yield self._each(nodes, kind, True, covering)
            if not covering:
                return merged(either(yes), Atom("any", None, op.keyword, op.pointer))
            if len(nodes) <= _SPLIT:
                no = yield self._each(nodes, kind, False)
                return either(
                    conjoin([yes[i] if bits >> i & 1 else no[i] for i in range(len(nodes))])
                    for bits in range(1, 1 << len(nodes))
                )
            everything = frozenset(a for options in yes for conj in options for a in conj.cover)
            return tuple(Conj(conj.atoms, everything, True) for options in yes for conj in options)
        if op.op == "one":
            return merged((yield self._one(nodes, kind, covering)), Atom("one", None, op.keyword, op.pointer))
        if op.op == "not":
            return (yield self._each(nodes, kind, False))[0]
        if op.op == "if":
            test, then, otherwise = nodes
            if then is None and otherwise is None and not covering:
                return TRUE
            holds = yield self._each([test, then], kind, True, covering)
            fails = yield self._each([test], kind, False)
            fails += yield self._each([otherwise], kind, True, covering)
            return either([conjoin(holds), conjoin(fails)])
        if kind != OBJECT:  # dependent
            return TRUE
        has = Atom("required", (op.name,), op.keyword, op.pointer)
        yes = yield self._each(nodes, kind, True, covering)
        return either([(Conj(frozenset({(has, False)})),), conjoin([(Conj(frozenset({(has, True)})),), yes[0]])])

    def _one(self, nodes: list[Node | None], kind: int, covering: bool) -> Steps[Any]:
        """One of them, and none of the others, as far as those are not told apart from it anyway."""
        accepted = yield self._each(nodes, kind, True, covering)
        most = max(MAX_ALTERNATIVES // max(len(nodes), 1), _SPLIT)
        found: list[Options] = []
        for i, others in enumerate(overlapping(nodes, accepted, kind)):
            if len(others) > _EXCLUDED:  # at worst more is taken to be possible than is
                found.append(accepted[i])
            elif accepted[i]:
                no = yield self._each([nodes[j] for j in others], kind, False)
                found.append(conjoin([accepted[i], *no], most))
        return either(found)

    def _rejects(self, node: Node, kind: int) -> Steps[Options]:
        if not node.kinds & kind:
            return TRUE
        parts: list[Options] = [opposite(atom) for atom in node.atoms.get(kind, [])]
        if kind in node.structured:
            parts.append(conjoin((yield self._each(node.structured[kind], kind, False))))
        parts += yield self._no_ops(node.ops, kind)
        if {OBJECT: node.unevaluated_properties, ARRAY: node.unevaluated_items}.get(kind) is not None:
            parts.append((Conj(frozenset({(self._judge(node), False)})),))
        return either(parts)

    def _no_op(self, op: Op, kind: int) -> Steps[Any]:
        nodes = op.nodes
        if op.op == "all":
            return either((yield self._each(nodes, kind, False)))
        if op.op == "any":
            return conjoin((yield self._each(nodes, kind, False)))
        if op.op == "one":
            accepted = yield self._each(nodes, kind, True)
            none = conjoin((yield self._each(nodes, kind, False)))
            both = [(i, j) for i, others in enumerate(overlapping(nodes, accepted, kind)) for j in others if j > i]
            if len(both) > _PAIRS:
                return TRUE
            return either([none, *(conjoin([accepted[i], accepted[j]]) for i, j in both)])
        if op.op == "not":
            return (yield self._each(nodes, kind, True))[0]
        if op.op == "if":
            test, then, otherwise = nodes
            holds = yield self._each([test], kind, True)
            holds += yield self._each([then], kind, False)
            fails = yield self._each([test, otherwise], kind, False)
            return either([conjoin(holds), conjoin(fails)])
        if kind != OBJECT:
            return FALSE
        has = Atom("required", (op.name,), op.keyword, op.pointer)
        return conjoin([(Conj(frozenset({(has, True)})),), *(yield self._each(nodes, kind, False))])

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
