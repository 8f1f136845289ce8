"""The section `checks:` of a policy: conditions on finished values, each an expression.

In charge of one check as it is written, and of compiling it: by the syntax alone when it is made, and against a schema
when the document's schema is known.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from streamguard.errors import PolicyError, Problem
from streamguard.files.json_pointer import parse_pointer
from streamguard.files.mistakes import LOCATED
from streamguard.files.suggest import did_you_mean
from streamguard.guards.base import AttemptContext, Mode, Spec
from streamguard.guards.checks.compiler import Compiler
from streamguard.guards.checks.evaluation import Run
from streamguard.guards.checks.parser import parse
from streamguard.guards.checks.program import Program, Reads, Sentence, Wanted
from streamguard.guards.checks.tokens import Mistake
from streamguard.guards.checks.types import ANYTHING, NUMBER, STRING, SchemaTypes, Type, union
from streamguard.guards.checks.watch import CheckWatch
from streamguard.guards.document.finished import ANY_KEY

MAX_SAY: Final = 1_000
"""Longest sentence of `say`, in characters."""

REASON: Final = r"^check\.[a-z0-9_]+(\.[a-z0-9_]+)*$"


class Located(NamedTuple):
    """A mistake in one of a check's texts."""

    key: Literal["that", "at", "say"]
    at: int
    """The character in that text, from 0."""
    problem: str


class Check(Spec):
    """A condition that finished values of the document must meet.

    Evaluated once, as soon as the last value that it reads is complete. A value that is absent or null is no mistake of
    this check: then it is not evaluated (`missing: skip`).

    ```python
    Check(reason="check.total", that="doc.total == sum(l.amount for l in doc.lines)")
    ```
    """

    reason: Annotated[str, Field(pattern=REASON)]
    """The trip's reason: a name of your own under `check.`."""
    that: str
    """What must be true, such as `doc.total == sum(line.amount for line in doc.lines)`. `doc` is the document; with
    `at`, `it` is the item and `index` its number or name."""
    at: str | None = None
    """A JSON Pointer in which `*` stands for any name or index: the check is one of each item there, such as
    `/lines/*`."""
    say: Annotated[str, Field(max_length=MAX_SAY)] | None = None
    """The trip's sentence. Expressions stand in braces: `line {index}: {it.qty} times {it.price}`."""
    missing: Literal["skip", "reject"] = "skip"
    """What to do where a value that is read is absent or null."""
    mode: Mode | None = None

    @model_validator(mode="after")
    def _can_be_read(self) -> Check:
        mistakes = self.mistakes(True)
        if mistakes:
            raise PydanticCustomError(LOCATED, "an expression that cannot be read", {"mistakes": mistakes})
        return self

    @property
    def name(self) -> str:
        return "checks"

    def mistakes(self, schema: Any) -> tuple[Located, ...]:
        """Return what is wrong with the check for documents of a JSON Schema.

        :param schema: the JSON Schema of the documents; `None` if none is known.
        """
        return compiled(self.that, self.at, self.say, schema)[1]

    def program(self, schema: Any = None) -> Program:
        """Return the check, compiled.

        :param schema: a compiled schema of the document; `None` for none.
        :raises PolicyError: the schema has no such values.
        """
        return _program(self, schema)

    def watch(self, ctx: AttemptContext, now: float) -> CheckWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt.
        :param now: seconds on the running loop's clock.
        """
        return CheckWatch(self.reason, self.missing, self.program)


@lru_cache(maxsize=512)
def _program(check: Check, schema: Any) -> Program:
    program, mistakes = compiled(check.that, check.at, check.say, True if schema is None else schema.schema)
    if program is None:
        problems = [Problem(pointer="/checks", problem=f"{check.reason}: {one.problem}") for one in mistakes]
        raise PolicyError(problems)
    return program


def compiled(
    that: str, at: str | None, say_text: str | None, schema: Any
) -> tuple[Program | None, tuple[Located, ...]]:
    """Compile the texts of a check against a JSON Schema (`True` for none).

    :returns: the program, or every mistake.
    """
    mistakes: list[Located] = []
    types = SchemaTypes(schema)
    path, item, key = None, None, None
    if at is not None:
        try:
            path = parse_pointer(at)
        except ValueError as error:
            mistakes.append(Located("at", 0, str(error)))
        else:
            item, key, wrong = items_at(types, path)
            mistakes += wrong
        item, key = item or ANYTHING, key or ANYTHING
    reads = Reads()
    compiler = Compiler(types, item=item, key=key, reads=reads)
    run = _compile(compiler, "that", that, frozenset(("boolean",)), mistakes)
    needs, folds, shown = frozenset(compiler.needs), frozenset(compiler.folds), tuple(compiler.shown)
    split = _split(compiler, that, reads)
    if not mistakes and not (needs or folds or compiler.reads_item):
        mistakes.append(Located("that", 0, "the expression reads nothing of the document"))
    say = None if say_text is None else _sentence(compiler, say_text, mistakes)
    if mistakes or run is None:
        return None, tuple(mistakes)
    program = Program(
        text=" ".join(that.split()),
        run=run,
        wanted=Wanted(tuple(reads.places), path, tuple(reads.folds), needs, folds, split if path is None else None),
        slots=compiler.slots,
        shown=shown,
        say=say,
    )
    return program, ()


def _compile(
    compiler: Compiler,
    key: Literal["that", "say"],
    text: str,
    kinds: frozenset[str] | None,
    mistakes: list[Located],
    shift: int = 0,
) -> Run | None:
    tree = parse(text)
    if isinstance(tree, Mistake):
        mistakes.append(Located(key, shift + tree.at, tree.problem))
        return None
    compiler.mistakes = []
    run = compiler.compile(tree, text, kinds)
    mistakes += [Located(key, shift + one.at, one.problem) for one in compiler.mistakes]
    return run


def _split(compiler: Compiler, text: str, reads: Reads) -> int | None:
    """The fold that is all of the expression, if it is an `all`."""
    if len(compiler.folds) != 1 or compiler.needs:
        return None
    number = next(iter(compiler.folds))
    fold = reads.folds[number]
    return number if fold.name == "all" and fold.text == " ".join(text.split()) else None


def items_at(types: SchemaTypes, path: tuple[str, ...]) -> tuple[Type | None, Type | None, list[Located]]:
    """What the items at a place are, and what tells them apart."""
    found, key, at = types.document(), ANYTHING, 0
    so_far = ""
    for part in path:
        if part == ANY_KEY:
            able = found.kinds & {"array", "object"}
            if not able:
                return (
                    None,
                    None,
                    [Located("at", at + 1, f"{so_far or 'the document'} is {found.words()}: it has no items")],
                )
            key = union([one for kind, one in (("array", NUMBER), ("object", STRING)) if kind in able])
            inside = [types.item(found)] if "array" in able else []
            found = union([*inside, *([types.values(found)] if "object" in able else [])])
        elif found.kinds == {"array"} and part.isdigit():
            found, key = types.item(found, int(part)), NUMBER
        else:
            member = types.member(found, part) if "object" in found.kinds else []
            if isinstance(member, list):
                what = f"{so_far or 'the document'} has no member {part}{did_you_mean(part, member)}"
                return None, None, [Located("at", at + 1, what)]
            found, key = member, STRING
        so_far += f"/{part}"
        at += 1 + len(part)
    return found, key, []


_BRACES = re.compile(r"\{\{|\}\}|[{}]")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|[{}]")


def _sentence(compiler: Compiler, text: str, mistakes: list[Located]) -> Sentence | None:
    """The sentence of `say`, its braces compiled."""
    parts: list[str | Run] = []
    begin = 0
    while (found := _BRACES.search(text, begin)) is not None:
        parts.append(text[begin : found.start()])
        begin = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
            continue
        end = _closing(text, begin) if found[0] == "{" else None
        if end is None:
            what = (
                "{ is never closed; a brace itself is {{"
                if found[0] == "{"
                else "} closes nothing; a brace itself is }}"
            )
            mistakes.append(Located("say", found.start(), what))
            return None
        run = _compile(compiler, "say", text[begin:end], None, mistakes, shift=begin)
        if run is not None:
            parts.append(run)
        begin = end + 1
    parts.append(text[begin:])
    return Sentence(tuple(part for part in parts if part != ""))


def _closing(text: str, begin: int) -> int | None:
    """The brace that closes an expression; `None` if there is none."""
    for found in _QUOTED.finditer(text, begin):
        if found[0] == "}":
            return found.start()
        if found[0] == "{":
            return None
    return None
