"""What a schema is made of: `Node`, one subschema; `Atom`, one keyword of it; `Op`, a schema it applies in place.

Keywords are sorted into three: what concerns the kind of a value (`Node.kinds`), what concerns one value and its
children (`Atom`, per kind), and what applies another schema to the same value (`Op`). Plain data; `graph` makes it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, Final

from streamguard.viability.patterns.regexes import Pattern
from streamguard.viability.syntax.grammar import ANY

INF: Final = math.inf


class Atom:
    """One keyword of one node, or what follows from one. `tag` says what `arg` is."""

    __slots__ = ("arg", "keyword", "opposites", "pointer", "tag")

    def __init__(self, tag: str, arg: Any, keyword: str, pointer: str) -> None:
        self.tag = tag
        self.arg = arg
        self.keyword = keyword
        self.pointer = pointer
        self.opposites: Any = None  # filled in by formula.py

    def like(self, tag: str, arg: Any) -> Atom:
        """Another atom from the same keyword."""
        return Atom(tag, arg, self.keyword, self.pointer)


def denied(atom: Atom) -> Atom:
    """The source where the keyword must fail."""
    return Atom("denied", atom, atom.keyword, atom.pointer)


UNKNOWN: Final = Atom("schema", None, "schema", "")
"""The source of what cannot be put down to one keyword."""


class Sources(dict[str, Atom]):
    """Which atom set what, for the message."""

    def __missing__(self, key: str) -> Atom:
        return UNKNOWN


class Group:
    """`properties`, `patternProperties` and `additionalProperties` of one schema, which only make sense together."""

    __slots__ = ("additional", "patterns", "properties")

    def __init__(
        self, properties: dict[str, Node], patterns: list[tuple[Pattern, Node]], additional: Node | None
    ) -> None:
        self.properties = properties
        self.patterns = patterns
        self.additional = additional

    def applying(self, name: str) -> list[Node]:
        """The schemas that apply to a member of that name."""
        found = []
        if name in self.properties:
            found.append(self.properties[name])
        if self.patterns:
            found += [node for pattern, node in self.patterns if pattern.matches(name)]
        if not found and self.additional is not None:
            found.append(self.additional)
        return found


class Op:
    """A schema applied in place. `op`: `all any one not if dependent`; of `if`, the nodes are if, then, else."""

    __slots__ = ("keyword", "name", "nodes", "op", "pointer")

    def __init__(self, op: str, nodes: list[Node | None], keyword: str, pointer: str, name: str = "") -> None:
        self.op = op
        self.nodes = nodes
        self.keyword = keyword
        self.pointer = pointer
        self.name = name


class Node:
    """One subschema."""

    __slots__ = (
        "atoms",
        "draft",
        "id",
        "kind_atom",
        "kinds",
        "lists",
        "ops",
        "pointer",
        "resolver",
        "schema",
        "structured",
        "unevaluated_items",
        "unevaluated_properties",
    )

    def __init__(self, number: int, schema: Any, pointer: str, draft: int, resolver: Any) -> None:
        self.id = number
        self.schema = schema
        self.pointer = pointer
        self.draft = draft
        self.resolver = resolver
        self.kinds = ANY
        self.kind_atom: Atom | None = None  # what limits the kinds
        self.lists = False  # whether `enum` or `const` counts (a draft may not know it)
        self.atoms: dict[int, list[Atom]] = defaultdict(list)  # per kind
        self.ops: list[Op] = []
        self.structured: dict[int, list[Node]] = {}  # per kind: objects or arrays that `enum` or `const` name
        self.unevaluated_properties: Node | None = None
        self.unevaluated_items: Node | None = None

    @property
    def always(self) -> bool:
        """Whether it accepts everything."""
        return (
            self.kinds == ANY
            and not self.ops
            and not any(self.atoms.values())
            and self.unevaluated_items is None
            and self.unevaluated_properties is None
        )
