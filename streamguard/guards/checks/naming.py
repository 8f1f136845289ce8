"""Names in a check's expression: what of the document they read, and what a schema says of it.

In charge of `doc`, `it`, `index` and the names of `for`, of members and items, and of every mistake in them. What is
done with the values is the compiler's business.

What begins at `doc` and goes on by names and whole numbers is a place of the document, known before there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from streamguard.files.suggest import closest, did_you_mean
from streamguard.guards.checks import nodes
from streamguard.guards.checks.evaluation import (
    Run,
    below,
    constant,
    item_at,
    member,
    named,
    of_document,
    the_index,
    the_item,
)
from streamguard.guards.checks.functions import NAMES
from streamguard.guards.checks.program import Reads
from streamguard.guards.checks.tokens import Mistake
from streamguard.guards.checks.types import (
    ANYTHING,
    BOOLEAN,
    LEGIBLE,
    NUMBER,
    STRING,
    SchemaTypes,
    Type,
    array_of,
    union,
)

Compiled = tuple[Run, Type]
"""A function of the scope, and what it gives."""


class Reader:
    """What the expressions of one check read.

    :param types: what the schema says.
    :param item: what `it` is; `None` where the check has no `at`.
    :param key: what `index` is, likewise.
    :param reads: what all expressions of the check read; added to.
    """

    _VISITS: ClassVar[Mapping[type, Callable[[Any, Any], Compiled]]] = {}
    """How each kind of node is compiled."""

    def __init__(self, types: SchemaTypes, *, item: Type | None, key: Type | None, reads: Reads) -> None:
        self._types = types
        self._item = item
        self._key = key
        self._reads = reads
        self._source = ""
        self._names: dict[str, tuple[int, Type]] = {}
        self._weight = 0
        self.mistakes: list[Mistake] = []
        self.needs: dict[int, None] = {}
        """The places that the latest expression waits for."""
        self.folds: dict[int, None] = {}
        """The folds that it waits for."""
        self.shown: list[tuple[str, Run]] = []
        """What it reads, each with its text, for a message."""
        self.reads_item = False
        """Whether it reads `it` or `index`."""
        self.slots = 0
        """How many items of `for` are held at once."""

    def _wrong(self, at: int, problem: str) -> None:
        self.mistakes.append(Mistake(at, problem))

    def _text(self, node: nodes.Node) -> str:
        return " ".join(self._source[node.at : node.end].split())

    def _visit(self, node: nodes.Node) -> Compiled:
        self._weight += 1
        return self._VISITS[type(node)](self, node)

    def _needs(self, node: nodes.Node, kinds: frozenset[str], what: str) -> Run:
        run, found = self._visit(node)
        if not found.kinds & kinds:
            self._wrong(node.at, f"{self._text(node)} is {found.words()}: {what}")
        return run

    # -- constants and names -------------------------------------------------------------------------------------------

    def number(self, node: nodes.Number) -> Compiled:
        return constant(node.value), NUMBER

    def text(self, node: nodes.Text) -> Compiled:
        return constant(node.value), STRING

    def boolean(self, node: nodes.Boolean) -> Compiled:
        return constant(node.value), BOOLEAN

    def listed(self, node: nodes.Listed) -> Compiled:
        compiled = [self._visit(item) for item in node.items]
        runs = [run for run, _ in compiled]
        return (lambda scope: tuple(run(scope) for run in runs)), array_of(union([found for _, found in compiled]))

    def name(self, node: nodes.Name) -> Compiled:
        return self._place(node, (), node)

    def reached(self, node: nodes.Member | nodes.Item) -> Compiled:
        parts: list[tuple[str | int, int]] = []
        root: nodes.Node = node
        while (step := constant_step(root)) is not None:
            parts.append(step)
            root = root.of  # type: ignore[attr-defined]  # a step is a member or an item
        if isinstance(root, nodes.Name):
            return self._place(root, tuple(reversed(parts)), node)
        if isinstance(node, nodes.Member):
            of, found = self._visit(node.of)
            return member(of, node.name), self._member_type(found, node.name, node.name_at, self._text(node.of))
        of, found = self._visit(node.of)
        where, key = self._visit(node.index)
        if not found.kinds & {"array", "object"}:
            self._wrong(node.of.at, f"{self._text(node.of)} is {found.words()}: it has no items")
        if not key.kinds & {"number", "string"}:
            self._wrong(node.index.at, f"{self._text(node.index)} is {key.words()}: an index is a number or a string")
        inside = self._types.item(found) if found.kinds == {"array"} else ANYTHING
        return (lambda scope: item_at(of(scope), where(scope))), inside

    def _place(self, root: nodes.Name, parts: tuple[tuple[str | int, int], ...], node: nodes.Node) -> Compiled:
        """What begins at a name and goes on by constants."""
        name = root.name
        if name == "doc":
            found = self._descend(self._types.document(), parts, "doc")
            place = self._reads.place(tuple(part for part, _ in parts))
            self.needs[place] = None
            run = of_document(place)
        elif name == "it" and self._item is not None:
            self.reads_item = True
            found = self._descend(self._item, parts, "it")
            run = below(the_item, tuple(part for part, _ in parts))
        elif name == "index" and self._key is not None:
            self.reads_item = True
            found = self._descend(self._key, parts, "index")
            run = below(the_index, tuple(part for part, _ in parts))
        elif name in self._names:
            slot, inside = self._names[name]
            found = self._descend(inside, parts, name)
            return below(named(slot), tuple(part for part, _ in parts)), found
        else:
            self._unknown(root)
            return constant(True), ANYTHING
        if not self._names:
            self.shown.append((self._text(node), run))
        return run, found

    def _unknown(self, root: nodes.Name) -> None:
        name = root.name
        if name in ("it", "index"):
            self._wrong(root.at, f"{name} is the item of a check with at, and this one has none")
            return
        known = ["doc", *(("it", "index") if self._item is not None else ()), *self._names]
        for where, found in (("it", self._item), ("doc", self._types.document())):
            members = [] if found is None else self._types.member(found, "\0")
            close = closest(name, members) if isinstance(members, list) else None
            if close is not None:
                self._wrong(root.at, f"{name} is no name here; did you mean {where}.{close}?")
                return
        if name in NAMES:
            self._wrong(root.at, f"{name} is a function: call it with brackets, {name}(…)")
            return
        self._wrong(root.at, f"{name} is no name here; there are {', '.join(known)}{did_you_mean(name, known)}")

    def _descend(self, found: Type, parts: Sequence[tuple[str | int, int]], text: str) -> Type:
        for part, at in parts:
            if isinstance(part, str):
                found = self._member_type(found, part, at, text)
                text += f".{part}" if LEGIBLE(part) else f'["{part}"]'
            else:
                if "array" not in found.kinds:
                    self._wrong(at, f"{text} is {found.words()}: it has no item {part}")
                    return ANYTHING
                found = self._types.item(found, part)
                text += f"[{part}]"
        return found

    def _member_type(self, of: Type, name: str, at: int, text: str) -> Type:
        if "object" not in of.kinds:
            self._wrong(at, f"{text} is {of.words()}: it has no member {name}")
            return ANYTHING
        found = self._types.member(of, name)
        if isinstance(found, list):
            there = did_you_mean(name, found) or f"; there are {', '.join(sorted(found)[:8])}"
            self._wrong(at, f"{text} has no member {name}{there}")
            return ANYTHING
        return found

    @contextmanager
    def _named(self, each: nodes.Each, slot: int, found: Type) -> Iterator[None]:
        name = each.name
        if name in ("doc", "it", "index") or name in NAMES or name in self._names:
            self._wrong(each.name_at, f"{name} already means something here: take another name")
        elif name.startswith("__"):
            self._wrong(each.name_at, "a name cannot begin with two underscores")
        before = self._names
        self._names = {**before, name: (slot, found)}
        try:
            yield
        finally:
            self._names = before


def constant_step(node: nodes.Node) -> tuple[str | int, int] | None:
    """The constant by which a member or an item is reached, and where it stands; `None` if it is none."""
    if isinstance(node, nodes.Member):
        return node.name, node.name_at
    if isinstance(node, nodes.Item):
        index = node.index
        if isinstance(index, nodes.Text):
            return index.value, index.at
        if isinstance(index, nodes.Number) and index.value == index.value.to_integral_value() <= 1_000_000:
            return int(index.value), index.at
    return None
