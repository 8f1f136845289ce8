"""A schema, compiled once: `compile_schema()`, `Schema`, and one document's `Prefix`.

Ties the parts together: nodes, logic, solver, machine and judge. A `Schema` is immutable to its users (what it works
out on the way it keeps), equal only to itself, and shared by any number of documents, one thread at a time each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from referencing import Registry

from streamguard.errors import Problem, SchemaError
from streamguard.viability.judge.judge import Judge
from streamguard.viability.patterns.ecma import Dialect
from streamguard.viability.patterns.regexes import MAX_SEARCHED, PatternTimeout
from streamguard.viability.schema.formula import Logic
from streamguard.viability.schema.graph import Graph
from streamguard.viability.schema.solver import Solver
from streamguard.viability.state.machine import Machine
from streamguard.viability.syntax.protocol import Cause, Dead, Duplicates
from streamguard.viability.syntax.scanner import SyntaxPrefix
from streamguard.viability.syntax.trampoline import need_room

Numbers = Literal["exact", "plain"]
"""Whether a number may still get an exponent, or is assumed not to (and dies earlier, which is a guess)."""


_NOTHING = Cause(keyword="schema", schema_pointer="", message="no value at all satisfies the schema")


class LateKeyword(msgspec.Struct, frozen=True):
    """A keyword that cannot be judged before its value ends."""

    pointer: str
    """JSON Pointer of the keyword in the schema."""
    keyword: str
    why: str


class Schema:
    """A compiled schema; made by `compile_schema()`."""

    __slots__ = (
        "_duplicates",
        "_judge",
        "_logic",
        "_max_depth",
        "_max_digits",
        "_plain",
        "_root",
        "hints",
        "late_keywords",
        "satisfiable",
        "schema",
    )

    def __init__(
        self,
        graph: Graph,
        *,
        duplicate_names: Duplicates,
        numbers: Numbers,
        max_depth: int | None,
        max_digits: int | None,
    ) -> None:
        self.schema: Any = graph.schema
        """The schema as given."""
        self._judge = Judge(graph)
        self._duplicates: Duplicates = duplicate_names
        self._plain = numbers == "plain"
        self._max_depth = max_depth
        self._max_digits = max_digits
        self._logic = Logic(graph, Solver(), max(MAX_SEARCHED, graph.longest))
        self._root = self._logic.query([(graph.root, True)])
        self.satisfiable: bool = self._logic.sat(self._root)
        """Whether any value is valid. If not, every document is dead at its first byte."""
        self.late_keywords = tuple(
            LateKeyword(pointer, keyword, why) for (pointer, keyword), why in sorted(graph.late.items())
        )
        """Which keywords can only be judged at the end of a value."""
        self.hints: tuple[Problem, ...] = tuple(graph.hints)
        """What says nothing in the schema's dialect and was probably meant to, each with what to write."""

    def prefix(self, *, expect: Literal["object", "array", "any"] = "any") -> SyntaxPrefix:
        """Begin a new document. `expect`: the kind of the top value, on top of the schema.

        :returns: one document, to be fed pieces.
        """
        listener: Any = None
        if self._root.key:
            listener = Machine(
                self._root, judge=self._judge.accepts, plain=self._plain, repeats=self._duplicates == "allow"
            )
        return SyntaxPrefix(
            duplicate_names=self._duplicates,
            max_depth=self._max_depth,
            max_digits=self._max_digits,
            expect=expect,
            listener=listener,
            unsatisfiable=None if self.satisfiable else _NOTHING,
        )

    def validate(self, value: Any, text: str | None = None) -> Dead | None:  # noqa: ARG002  # a judge by text may come
        """Return what is wrong with a finished value, as `json.loads` reads it, or `None`: the final word.

        The compiled constraints are asked first. Their yes is sure and costs a third of what `jsonschema` does.
        Whatever they do not accept goes to `jsonschema`, which alone says no. `offset` and `char` are `eof`: the judge
        knows values, not text.

        :param value: the finished value.
        :param text: its JSON, if it is known.
        """
        if self._root.key:
            try:
                if self._root.fits[type(value)](value):
                    return None
            except (KeyError, OverflowError, PatternTimeout, RecursionError):
                pass  # no type of JSON, or too much for a quick look: the judge has words for it
        return self._judge.validate(value)


def compile_schema(
    schema: Mapping[str, Any] | bool,
    *,
    registry: Registry[Any] | Mapping[str, Any] | None = None,
    assert_formats: bool = False,
    duplicate_names: Duplicates = "reject",
    numbers: Numbers = "exact",
    patterns: Dialect = "python",
    max_depth: int | None = 64,
    max_digits: int | None = 400,
) -> Schema:
    """Compile a JSON Schema (draft-04 to 2020-12; `$schema` decides, 2020-12 without one).

    `registry` holds what a `$ref` may lead to outside the schema: schemas by URI, or a `referencing.Registry`. Nothing
    is fetched. `assert_formats`: whether `format` rejects. `patterns`: read them as Python's `re` does, or as ECMA-262
    has it. The rest: see `SyntaxPrefix` and `Numbers`.

    Raises:
        SchemaError: with every mistake found, each with its JSON Pointer: a keyword of the wrong type, a `$ref` that
            leads nowhere, a pattern that does not compile, a schema that refers to itself without end.

    :param schema: the JSON Schema, as a mapping or a boolean.
    :param duplicate_names: `reject`, or `allow`: the last one counts.
    :param numbers: `exact`, or `plain`.
    :param max_depth: the most arrays and objects inside each other.
    :param max_digits: the most digits of a number.
    :raises SchemaError: the schema cannot be compiled, or nothing satisfies it.
    """
    try:
        need_room()
        graph = Graph(schema, registry=registry, assert_formats=assert_formats, dialect=patterns)
        return Schema(
            graph, duplicate_names=duplicate_names, numbers=numbers, max_depth=max_depth, max_digits=max_digits
        )
    except RecursionError:
        raise SchemaError(
            Problem(problem="Python's stack is full: compile the schema from fewer levels down", pointer="")
        ) from None
