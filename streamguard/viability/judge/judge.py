"""The final judge of a finished value: `jsonschema`, with patterns by `regex` under a time limit, and nothing remote.

In charge of: acceptance, and a word on the first thing wrong. It knows nothing of prefixes; the prefixes ask it where
they cannot tell themselves (`unevaluated*` in knots).
"""

from __future__ import annotations

from typing import Any, Final

from attrs import fields as attrs_fields
from jsonschema import ValidationError
from jsonschema.exceptions import relevance
from jsonschema.validators import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    extend,
)

from streamguard.files.json_pointer import pointer
from streamguard.viability.judge.applying import RUN, Check, Context, Passes, Run, TooMuch, applied
from streamguard.viability.judge.judge_keywords import (
    DRAFT_4,
    DRAFT_6,
    DRAFT_7,
    DRAFT_2019,
    DRAFT_2020,
    IN_STEPS,
    OWN,
    PLAIN_TYPES,
)
from streamguard.viability.patterns.ecma import Dialect
from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.schema import keywords as kw
from streamguard.viability.schema.graph import Graph
from streamguard.viability.schema.nodes import Node
from streamguard.viability.syntax.protocol import Dead
from streamguard.viability.syntax.trampoline import run
from streamguard.viability.syntax.values_equal import Listed


def _quick_type(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001  # all have the same parameters
    kind = PLAIN_TYPES.get(instance.__class__)
    return kind == wanted or (wanted.__class__ is list and kind in wanted)


def _quick_enum(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    return instance.__class__ is str and wanted.__class__ is Listed and instance in wanted.known


def _quick_pattern(dialect: Dialect) -> Passes:
    def passes(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
        if instance.__class__ is not str:
            return instance.__class__ in PLAIN_TYPES
        try:
            return compile_pattern(wanted, dialect).matches(instance)
        except PatternTimeout:
            return False

    return passes


def _quick_additional_properties(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    return instance.__class__ is dict and instance.keys() <= schema.get("properties", {}).keys()


def _quick_required(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    if instance.__class__ is not dict:
        return instance.__class__ in PLAIN_TYPES
    return all(name in instance for name in wanted)


def _least(kind: type[Any]) -> Passes:
    return lambda wanted, instance, schema: (  # noqa: ARG005
        len(instance) >= wanted if instance.__class__ is kind else instance.__class__ in PLAIN_TYPES
    )


def _most(kind: type[Any]) -> Passes:
    return lambda wanted, instance, schema: (  # noqa: ARG005
        len(instance) <= wanted if instance.__class__ is kind else instance.__class__ in PLAIN_TYPES
    )


_THEIRS: Final[dict[str, Passes]] = {
    "required": _quick_required,
    "minLength": _least(str),
    "maxLength": _most(str),
    "minItems": _least(list),
    "maxItems": _most(list),
}
_OURS: Final[dict[str, Passes]] = {
    "type": _quick_type,
    "enum": _quick_enum,
    "additionalProperties": _quick_additional_properties,
}
_PLAIN: Final[dict[Any, Passes]] = {
    **{Draft202012Validator.VALIDATORS[keyword]: passes for keyword, passes in _THEIRS.items()},
    **{OWN[keyword]: passes for keyword, passes in _OURS.items()},
}
"""By the function that checks the keyword: the drafts have different ones where they mean different things."""
PASSES: Final[dict[Dialect, dict[Any, Passes]]] = {
    "python": _PLAIN | {OWN["pattern"]: _quick_pattern("python")},
    "ecma": _PLAIN | {OWN["pattern"]: _quick_pattern("ecma")},
}


_BASES: Final[dict[int, Any]] = {
    kw.D4: Draft4Validator,
    kw.D6: Draft6Validator,
    kw.D7: Draft7Validator,
    kw.D2019: Draft201909Validator,
    kw.D2020: Draft202012Validator,
}


def _make_class(draft: int, own: dict[str, Any]) -> Any:
    """jsonschema's validator of a draft, with our keywords, that stays ours on the way down: its own `evolve` falls
    back to the plain class wherever a subschema has a `$schema`."""
    made: Any = extend(_BASES[draft], own)  # type: ignore[no-untyped-call]
    fields = [(field.name, field.alias) for field in attrs_fields(made) if field.init]

    def evolve(self: Any, **changes: Any) -> Any:
        schema = changes.setdefault("schema", self.schema)
        uri = schema.get("$schema") if isinstance(schema, dict) else None
        other = kw.draft_of(uri) if isinstance(uri, str) else None
        cls = self.__class__ if other is None or other == draft else _CLASSES[other]
        for name, alias in fields:
            if alias not in changes:
                changes[alias] = getattr(self, name)
        return cls(**changes)

    made.evolve = evolve
    return made


def _asserts_nothing(*_: Any) -> None:
    """A keyword without a say."""


_KEYWORDS: Final = {kw.D4: DRAFT_4, kw.D6: DRAFT_6, kw.D7: DRAFT_7, kw.D2019: DRAFT_2019, kw.D2020: DRAFT_2020}
_CLASSES: Final = {draft: _make_class(draft, own) for draft, own in _KEYWORDS.items()}
_UNASSERTING: Final = _make_class(kw.D2020, DRAFT_2020 | dict.fromkeys((*kw.ASSERTIONS, "format"), _asserts_nothing))
"""For a meta-schema that leaves the validation vocabulary out."""
_DRAFTS: Final = {cls: draft for draft, cls in _CLASSES.items()} | {_UNASSERTING: kw.D2020}


def _weight(error: ValidationError) -> tuple[Any, ...]:
    found: Any = relevance(error)
    return tuple(map(repr, found))


class Judge:
    """Validates finished values against a schema, or one node of it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._context = Context(graph.assert_formats, graph.dialect, _DRAFTS, PASSES[graph.dialect], IN_STEPS)
        self._validator = self._make(graph.schema, graph.draft, graph.resolver)
        self._checks = self._context.keywords(self._validator)
        self._nodes: dict[int, tuple[Any, list[Check]]] = {}

    def _make(self, schema: Any, draft: int, resolver: Any) -> Any:
        cls = _CLASSES[draft] if self._graph.asserts(schema, resolver) else _UNASSERTING
        return cls(schema, _resolver=resolver, format_checker=self._context)

    def accepts(self, node: Node, value: Any) -> bool | None:
        """Whether one node accepts a finished value; `None` where that takes too long to say."""
        if isinstance(node.schema, bool):
            return node.schema
        kept = self._nodes.get(node.id)
        if kept is None:
            validator = self._make(node.schema, node.draft, node.resolver)
            kept = self._nodes[node.id] = validator, self._context.keywords(validator)
        RUN.set(Run(value, quick=True))
        try:
            return not run(applied(*kept, value))
        except (TooMuch, RecursionError):
            return None  # the whole will be refused for the same reason

    def validate(self, value: Any) -> Dead | None:
        """What is wrong with a whole finished value: the most telling mistake, or `None`."""
        if isinstance(self._graph.schema, bool):
            return None if self._graph.schema else _dead("", "false schema", "", "nothing is allowed here")
        try:
            RUN.set(Run(value, quick=True))
            if not run(applied(self._validator, self._checks, value)):
                return None
        except TooMuch:
            return _dead("", "$ref", None, "checking the value by this schema takes too long: it multiplies itself")
        except OverflowError:
            return _dead("", "number", None, "a number is too large to be checked")
        except RecursionError:
            return _dead("", "depth", None, "Python's stack is full: call from fewer levels down")
        try:
            RUN.set(Run(value))
            errors = run(applied(self._validator, self._checks, value))
        except (TooMuch, OverflowError, RecursionError):
            return _dead("", "schema", "", "the value is not valid; where and why takes too long to find")
        best = min(errors, key=lambda error: (len(error.path), _weight(error)))
        path, schema_path = list(best.path), list(best.schema_path)
        while best.context:
            deeper = [error for error in best.context if error.path]
            if not deeper:
                break
            best = max(deeper, key=lambda error: len(error.path))
            path += best.path
            schema_path += best.schema_path
        return _dead(
            pointer(path),
            str(best.validator),
            pointer(part for part in schema_path if part is not None),
            _short(best.message),
        )


def _short(message: str) -> str:
    return message if len(message) <= 200 else message[:199] + "…"


def _dead(at: str, keyword: str, schema_pointer: str | None, message: str) -> Dead:
    return Dead(offset="eof", char="eof", pointer=at, keyword=keyword, schema_pointer=schema_pointer, message=message)
