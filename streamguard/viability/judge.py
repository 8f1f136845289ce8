"""The final judge of a finished value: `jsonschema`, with patterns by `regex` under a time limit, and nothing remote.

In charge of: acceptance, and a word on the first thing wrong. It knows nothing of prefixes; the prefixes ask it where
they cannot tell themselves (`unevaluated*` in knots).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from jsonschema import FormatChecker, ValidationError
from jsonschema.exceptions import relevance
from jsonschema.protocols import Validator
from jsonschema.validators import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    extend,
)

from streamguard.viability import keywords as kw
from streamguard.viability.dead import Dead
from streamguard.viability.formats import named
from streamguard.viability.nodes import Graph, Node
from streamguard.viability.pointer import pointer, quote
from streamguard.viability.regexes import PatternTimeout, compile_pattern

Found = Iterator[ValidationError]


def _pattern(validator: Validator, pattern: str, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if not validator.is_type(instance, "string"):
        return
    try:
        if not compile_pattern(pattern).matches(instance):
            yield ValidationError(f"{quote(instance)} does not match {quote(pattern)}")
    except PatternTimeout:
        yield ValidationError(f"{quote(instance)} took too long to match {quote(pattern)}")


def _matching(name: str, sources: Any) -> Iterator[Any]:
    for source in sources:
        try:
            if compile_pattern(source).matches(name):
                yield source
        except PatternTimeout:
            continue


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if validator.is_type(instance, "object"):
        for name, value in instance.items():
            for source in _matching(name, patterns):
                yield from validator.descend(value, patterns[source], path=name, schema_path=source)


def _additional_properties(validator: Any, extra: Any, instance: Any, schema: Any) -> Found:
    if not validator.is_type(instance, "object"):
        return
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or next(_matching(name, patterns), None) is not None:
            continue
        if validator.is_type(extra, "object"):
            yield from validator.descend(value, extra, path=name)
        elif extra is False:
            yield ValidationError(f"the name {quote(name)} is not allowed", path=[name])


_OWN: Final[dict[str, Callable[..., Any]]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
_BASES: Final[dict[int, Any]] = {
    kw.D4: Draft4Validator,
    kw.D6: Draft6Validator,
    kw.D7: Draft7Validator,
    kw.D2019: Draft201909Validator,
    kw.D2020: Draft202012Validator,
}
_CLASSES: Final[dict[int, Any]] = {
    draft: extend(base, _OWN)  # type: ignore[no-untyped-call]
    for draft, base in _BASES.items()
}


def _weight(error: ValidationError) -> tuple[Any, ...]:
    found: Any = relevance(error)
    return tuple(map(repr, found))


class _Formats(FormatChecker):
    """The same checks that prefixes are held to."""

    def conforms(self, instance: object, format: str) -> bool:  # noqa: A002  # jsonschema's name
        return not isinstance(instance, str) or named(format).check(instance)

    def check(self, instance: object, format: str) -> None:  # noqa: A002  # jsonschema's name
        if not self.conforms(instance, format):
            from jsonschema.exceptions import FormatError

            raise FormatError(f"{quote(instance)} is not of the format {format}")


class Judge:
    """Validates finished values against a schema, or one node of it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._formats = _Formats() if graph.assert_formats else None
        self._validator = self._make(graph.schema, graph.draft, graph.resolver)
        self._nodes: dict[int, Any] = {}

    def _make(self, schema: Any, draft: int, resolver: Any) -> Any:
        return _CLASSES[draft](schema, _resolver=resolver, format_checker=self._formats)

    def accepts(self, node: Node, value: Any) -> bool:
        """Whether one node accepts a finished value."""
        validator = self._nodes.get(node.id)
        if validator is None:
            validator = self._nodes[node.id] = self._make(node.schema, node.draft, node.resolver)
        found: bool = validator.is_valid(value)
        return found

    def validate(self, value: Any) -> Dead | None:
        """What is wrong with a whole finished value: the most telling mistake, or `None`."""
        try:
            errors = list(self._validator.iter_errors(value))
        except RecursionError:
            return _dead("", "depth", None, "the value is nested too deeply to be checked")
        except OverflowError:
            return _dead("", "number", None, "a number is too large to be checked")
        if not errors:
            return None
        best = min(errors, key=lambda error: (len(error.absolute_path), _weight(error)))
        while best.context:
            deeper = [e for e in best.context if len(e.absolute_path) > len(best.absolute_path)]
            if not deeper:
                break
            best = max(deeper, key=lambda error: len(error.absolute_path))
        return _dead(
            pointer(best.absolute_path),
            str(best.validator),
            pointer(part for part in best.absolute_schema_path if part is not None),
            _short(best.message),
        )


def _short(message: str) -> str:
    return message if len(message) <= 200 else message[:199] + "…"


def _dead(at: str, keyword: str, schema_pointer: str | None, message: str) -> Dead:
    return Dead(offset="eof", char="eof", pointer=at, keyword=keyword, schema_pointer=schema_pointer, message=message)
