"""A check's tree, checked against a schema and made into one function of values.

In charge of signs and calls, of what is wrong with their operands before there is a document, and of **folds**: an
aggregate over the items of a place of the document, which reads nothing but its own item. It is computed item by item,
as each is complete, and the array itself is never kept. Everything is looked up in tables that stand in this folder: no
name leads to a function, an attribute or a type of Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final

from streamguard.files.suggest import did_you_mean
from streamguard.guards.checks import nodes
from streamguard.guards.checks.evaluation import (
    ARITHMETIC,
    COMPARISONS,
    Compare,
    Run,
    Scope,
    called,
    charge,
    constant,
    folded,
    items_of,
    truth,
)
from streamguard.guards.checks.functions import AGGREGATES, FUNCTIONS, HAS, NAMES, VALUES, Aggregate, Function
from streamguard.guards.checks.naming import Compiled, Reader, constant_step
from streamguard.guards.checks.program import Fold, Reads
from streamguard.guards.checks.types import ANYTHING, BOOLEAN, NUMBER, Type, array_of, kinds_in_words, union
from streamguard.guards.checks.values import Absent, Unusable, shown

_ORDERED: Final = frozenset(("number", "string", "date"))
_SCALARS: Final = _ORDERED | {"boolean"}
_NUMBER: Final = frozenset(("number",))
_BOOLEAN: Final = frozenset(("boolean",))


class Compiler(Reader):
    """Makes functions of the expressions of one check."""

    def compile(self, tree: nodes.Node, source: str, kinds: frozenset[str] | None) -> Run:
        """Compile one expression.

        :param kinds: what its value must be one of; `None` for anything that can be written in a sentence.
        """
        self._source = source
        self.needs, self.folds, self.shown, self.reads_item = {}, {}, [], False
        run, found = self._visit(tree)
        if kinds is not None and not found.kinds & kinds:
            self._wrong(tree.at, f"the expression is {found.words()}, and must be true or false, such as a == b")
        return run

    # -- signs ---------------------------------------------------------------------------------------------------------

    def _unary(self, node: nodes.Unary) -> Compiled:
        if node.sign == "not":
            of = self._needs(node.of, _BOOLEAN, "not needs a condition")
            return (lambda scope: not truth(of(scope))), BOOLEAN
        of = self._needs(node.of, _NUMBER, f"{node.sign} needs a number")
        compute = ARITHMETIC["-" if node.sign == "-" else "+"]
        nought = Decimal(0)
        return (lambda scope: compute(nought, of(scope))), NUMBER

    def _binary(self, node: nodes.Binary) -> Compiled:
        left = self._needs(node.left, _NUMBER, f"{node.sign} needs numbers")
        right = self._needs(node.right, _NUMBER, f"{node.sign} needs numbers")
        compute = ARITHMETIC[node.sign]
        return (lambda scope: compute(left(scope), right(scope))), NUMBER

    def _comparison(self, node: nodes.Comparison) -> Compiled:
        left, found = self._visit(node.first)
        before: nodes.Node = node.first
        pairs: list[tuple[Compare, Run]] = []
        for sign, _, each in node.rest:
            right, other = self._visit(each)
            self._check_pair(sign, before, found, each, other)
            pairs.append((COMPARISONS[sign], right))
            before, found = each, other
        if len(pairs) == 1:
            compare, only = pairs[0]
            return (lambda scope: compare(scope, left(scope), only(scope))), BOOLEAN

        def run(scope: Scope) -> bool:
            value = left(scope)
            for compare, other in pairs:
                following = other(scope)
                if not compare(scope, value, following):
                    return False
                value = following
            return True

        return run, BOOLEAN

    def _check_pair(self, sign: str, left: nodes.Node, one: Type, right: nodes.Node, other: Type) -> None:
        if sign in ("in", "not in"):
            if not other.kinds & {"array", "string"}:
                self._wrong(right.at, f"{self._text(right)} is {other.words()}: in looks into an array or a string")
            elif other.kinds == {"string"} and "string" not in one.kinds:
                self._wrong(left.at, f"{self._text(left)} is {one.words()}: a string has only strings in it")
            elif not one.kinds & _SCALARS:
                self._wrong(left.at, f"{self._text(left)} is {one.words()}, which in does not look for")
            elif other.item is not None and not one.kinds & other.item.kinds:
                self._wrong(left.at, f"{self._text(left)} is {one.words()}, and the list has {other.item.words()}")
            return
        able = _ORDERED if sign in ("<", "<=", ">", ">=") else _SCALARS
        for node, found in ((left, one), (right, other)):
            if not found.kinds & able:
                self._wrong(node.at, f"{self._text(node)} is {found.words()}, which {sign} does not compare")
                return
        if not one.kinds & other.kinds & able:
            what = f"{self._text(left)} is {one.words()} and {self._text(right)} is {other.words()}"
            self._wrong(left.at, f"{what}: {sign} compares values of one kind")

    def _logic(self, node: nodes.Logic) -> Compiled:
        runs = [self._needs(part, _BOOLEAN, f"{node.word} needs conditions") for part in node.parts]
        decided = node.word == "or"

        def run(scope: Scope) -> bool:
            return any(truth(one(scope)) is decided for one in runs) is decided

        return run, BOOLEAN

    def _choice(self, node: nodes.Choice) -> Compiled:
        condition = self._needs(node.condition, _BOOLEAN, "if needs a condition")
        (yes, one), (no, other) = self._visit(node.yes), self._visit(node.no)
        return (lambda scope: yes(scope) if truth(condition(scope)) else no(scope)), union([one, other])

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _call(self, node: nodes.Call) -> Compiled:
        name = node.function
        if name in AGGREGATES:
            return self._aggregate(node, AGGREGATES[name])
        if name in FUNCTIONS:
            return self._function(node, FUNCTIONS[name])
        if name == HAS:
            return self._has(node)
        if name == VALUES:
            return self._values(node)
        self._wrong(
            node.at, f"there is no function {name}{did_you_mean(name, NAMES) or '; there are ' + ', '.join(NAMES)}"
        )
        return constant(True), ANYTHING

    def _function(self, node: nodes.Call, function: Function) -> Compiled:
        most = len(function.takes)
        least = most - function.optional
        if not self._arity(node, least, most):
            return constant(True), function.gives
        kinds = zip(node.arguments, function.takes, strict=False)
        runs = [self._needs(one, able, f"{node.function} needs {kinds_in_words(able)}") for one, able in kinds]
        return called(node.function, function, runs), function.gives

    def _arity(self, node: nodes.Call, least: int, most: int) -> bool:
        count = len(node.arguments)
        if least <= count <= most and not any(isinstance(one, nodes.Each) for one in node.arguments):
            return True
        wanted = f"{least}" if least == most else f"{least} or {most}"
        if any(isinstance(one, nodes.Each) for one in node.arguments):
            self._wrong(node.at, f"{node.function} takes no for … in …")
        else:
            self._wrong(node.at, f"{node.function} takes {wanted} argument{'s' * (most > 1)}, not {count}")
        return False

    def _has(self, node: nodes.Call) -> Compiled:
        if not self._arity(node, 1, 1):
            return constant(True), BOOLEAN
        argument = node.arguments[0]
        if not isinstance(argument, nodes.Member | nodes.Item):
            self._wrong(argument.at, f"has asks for a member or an item, not for {self._text(argument)}")
            return constant(True), BOOLEAN
        run, _ = self._visit(argument)

        def there(scope: Scope) -> bool:
            try:
                run(scope)
            except Absent:
                return False
            return True

        self.shown = [one for one in self.shown if one[0] != self._text(argument)]
        return there, BOOLEAN

    def _values(self, node: nodes.Call) -> Compiled:
        if not self._arity(node, 1, 1):
            return constant(()), ANYTHING
        run, found = self._visit(node.arguments[0])
        if "object" not in found.kinds:
            self._wrong(
                node.arguments[0].at, f"{self._text(node.arguments[0])} is {found.words()}: values needs an object"
            )

        def listed(scope: Scope) -> list[Any]:
            value = run(scope)
            if type(value) is not dict:
                raise Unusable(f"values needs an object, not {shown(value)}")
            charge(scope, len(value))
            return list(value.values())

        return listed, array_of(self._types.values(found))

    # -- aggregates ----------------------------------------------------------------------------------------------------

    def _aggregate(self, node: nodes.Call, aggregate: Aggregate) -> Compiled:
        name, arguments = node.function, node.arguments
        if aggregate.several and len(arguments) > 1 and not any(isinstance(one, nodes.Each) for one in arguments):
            return self._several(node, aggregate)
        if len(arguments) != 1:
            what = "one array, or x for x in …" + (", or several values" if aggregate.several else "")
            self._wrong(node.at, f"{name} takes {what}")
            return constant(True), aggregate.gives or ANYTHING
        only = arguments[0]
        if isinstance(only, nodes.Each):
            return self._each(node, aggregate, only)
        run, found = self._visit(only)
        if "array" not in found.kinds:
            self._wrong(only.at, f"{self._text(only)} is {found.words()}: {name} needs an array, or x for x in …")
        inside = self._types.item(found)
        self._check_element(only, inside, name, aggregate)
        start, step, stop, result = aggregate.start, aggregate.step, aggregate.stop, aggregate.result

        def total(scope: Scope) -> Any:
            so_far = start()
            listed = items_of(run(scope), name)
            charge(scope, len(listed))
            for value in listed:
                if value is None:
                    raise Absent
                so_far = step(so_far, value)
                if so_far is stop:
                    break
            return result(so_far)

        return total, aggregate.gives or inside

    def _several(self, node: nodes.Call, aggregate: Aggregate) -> Compiled:
        compiled = [self._visit(one) for one in node.arguments]
        for one, (_, found) in zip(node.arguments, compiled, strict=True):
            self._check_element(one, found, node.function, aggregate)
        runs = [run for run, _ in compiled]

        def total(scope: Scope) -> Any:
            so_far = aggregate.start()
            for run in runs:
                so_far = aggregate.step(so_far, run(scope))
            return aggregate.result(so_far)

        return total, union([found for _, found in compiled])

    def _check_element(self, node: nodes.Node, found: Type, name: str, aggregate: Aggregate) -> None:
        if not found.kinds & aggregate.takes:
            self._wrong(
                node.at, f"{self._text(node)} is {found.words()}: {name} needs {kinds_in_words(aggregate.takes)} each"
            )

    def _each(self, node: nodes.Call, aggregate: Aggregate, each: nodes.Each) -> Compiled:
        fold = self._fold(node, aggregate, each)
        if fold is not None:
            return fold
        source, found = self._visit(each.source)
        self._check_source(each, found)
        slot = self.slots
        self.slots += 1
        weight = self._weight
        with self._named(each, slot, self._types.item(found)):
            conditions = [self._needs(one, _BOOLEAN, "if needs a condition") for one in each.conditions]
            element, inside = self._visit(each.element)
        self._check_element(each.element, inside, node.function, aggregate)
        steps = self._weight - weight
        name = node.function
        start, step, stop, result = aggregate.start, aggregate.step, aggregate.stop, aggregate.result

        def total(scope: Scope) -> Any:
            listed = items_of(source(scope), name)
            so_far, names = start(), scope.names
            for value in listed:
                scope.steps -= steps
                if scope.steps < 0:
                    charge(scope, 0)
                names[slot] = value
                if not conditions or all(truth(condition(scope)) for condition in conditions):
                    so_far = step(so_far, element(scope))
                    if so_far is stop:
                        break
            return result(so_far)

        return total, aggregate.gives or inside

    def _check_source(self, each: nodes.Each, found: Type) -> None:
        if "array" not in found.kinds:
            advice = ", or values(…) of an object" if "object" in found.kinds else ""
            self._wrong(each.source.at, f"{self._text(each.source)} is {found.words()}: for needs an array{advice}")

    def _fold(self, node: nodes.Call, aggregate: Aggregate, each: nodes.Each) -> Compiled | None:
        """An aggregate over a place of the document, if it reads nothing but its items."""
        parts = _doc_parts(each.source)
        if parts is None or any(isinstance(part, int) for part, _ in parts):
            return None
        inner = Compiler(self._types, item=None, key=None, reads=Reads())
        inner._source, inner._names = self._source, {}
        found = inner._descend(self._types.document(), parts, "doc")
        inner._check_source(each, found)
        with inner._named(each, 0, self._types.item(found)):
            inner.slots = 1
            conditions = [inner._needs(one, _BOOLEAN, "if needs a condition") for one in each.conditions]
            element, inside = inner._visit(each.element)
        inner._check_element(each.element, inside, node.function, aggregate)
        if inner._reads.places or inner._reads.folds or _free(each) - {"doc"}:
            return None
        self.mistakes += inner.mistakes
        self.slots = max(self.slots, 1)
        fold = Fold(
            path=tuple(str(part) for part, _ in parts),
            text=self._text(node),
            name=node.function,
            aggregate=aggregate,
            conditions=tuple(conditions),
            element=element,
            slots=inner.slots,
        )
        number = self._reads.fold(fold)
        self.folds[number] = None
        run = folded(number)
        if not self._names:
            self.shown.append((fold.text, run))
        return run, aggregate.gives or inside

    _VISITS: ClassVar[Mapping[type, Callable[[Any, Any], Compiled]]] = {
        nodes.Number: Reader.number,
        nodes.Text: Reader.text,
        nodes.Boolean: Reader.boolean,
        nodes.Listed: Reader.listed,
        nodes.Name: Reader.name,
        nodes.Member: Reader.reached,
        nodes.Item: Reader.reached,
        nodes.Unary: _unary,
        nodes.Binary: _binary,
        nodes.Comparison: _comparison,
        nodes.Logic: _logic,
        nodes.Choice: _choice,
        nodes.Call: _call,
    }


def _doc_parts(node: nodes.Node) -> list[tuple[str | int, int]] | None:
    """The constants by which a place of the document is reached; `None` if it is none."""
    parts: list[tuple[str | int, int]] = []
    while (step := constant_step(node)) is not None:
        parts.append(step)
        node = node.of  # type: ignore[attr-defined]  # a step is a member or an item
    return parts[::-1] if isinstance(node, nodes.Name) and node.name == "doc" else None


def _free(node: nodes.Node) -> frozenset[str]:
    """The names that an expression reads."""
    if isinstance(node, nodes.Name):
        return frozenset((node.name,))
    found: set[str] = set()
    for field in node.__struct_fields__:
        value = getattr(node, field)
        for one in value if isinstance(value, tuple) else (value,):
            for part in one if isinstance(one, tuple) else (one,):
                if isinstance(part, nodes.Node):
                    found |= _free(part)
    if isinstance(node, nodes.Each):
        found.discard(node.name)
    return frozenset(found)
