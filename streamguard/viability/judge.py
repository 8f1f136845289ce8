"""The final judge of a finished value: `jsonschema`, with patterns by `regex` under a time limit, and nothing remote.

In charge of: acceptance, and a word on the first thing wrong. It knows nothing of prefixes; the prefixes ask it where
they cannot tell themselves (`unevaluated*` in knots).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import fields as attrs_fields
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
from referencing.jsonschema import lookup_recursive_ref

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


def _evaluated(validator: Any, instance: Any, schema: Any, own: Callable[..., set[Any]]) -> set[Any]:
    """What a schema has evaluated of an object or array: `own` tells it for one schema, this collects it from those
    applied in place. As jsonschema finds it, but for how patterns are searched and for slips with boolean schemas."""
    if not isinstance(schema, dict):
        return set()
    found = own(validator, instance, schema)
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if keyword in schema and keyword in validator.VALIDATORS:
            resolver = validator._resolver  # noqa: SLF001  # as jsonschema's own keywords do
            resolved = (
                lookup_recursive_ref(resolver) if keyword == "$recursiveRef" else resolver.lookup(schema[keyword])
            )
            target = validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
            found |= _evaluated(target, instance, resolved.contents, own)
    inner = [s for k in ("allOf", "oneOf", "anyOf") for s in schema.get(k, ()) if _passes(validator, instance, s)]
    if isinstance(instance, dict):
        inner += [s for name, s in schema.get("dependentSchemas", {}).items() if name in instance]
    if "if" in schema:
        passes = _passes(validator, instance, schema["if"])
        inner += [schema["if"], schema.get("then")] if passes else [schema.get("else")]
    for applied in inner:
        found |= _evaluated(validator, instance, applied, own)
    return found


def _own_names(validator: Any, instance: dict[str, Any], schema: dict[str, Any]) -> set[Any]:
    found: set[Any] = schema.get("properties", {}).keys() & instance.keys()
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            found |= {name for name, value in instance.items() if _passes(validator, value, schema[keyword])}
    if patterns := schema.get("patternProperties"):
        found |= {name for name in instance if next(_matching(name, patterns), None) is not None}
    return found


def _own_items(validator: Any, instance: list[Any], schema: dict[str, Any]) -> set[Any]:
    everything = range(len(instance))
    items = schema.get("items")
    if isinstance(items, (dict, bool)) or (isinstance(items, list) and "additionalItems" in schema):
        return set(everything)
    found = set(everything[: len(items if isinstance(items, list) else schema.get("prefixItems", ()))])
    for keyword in ("contains", "unevaluatedItems"):
        if keyword in schema:
            found |= {i for i in everything if _passes(validator, instance[i], schema[keyword])}
    return found


def _passes(validator: Any, instance: Any, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _unevaluated_properties(validator: Any, extra: Any, instance: Any, schema: Any) -> Found:
    if not validator.is_type(instance, "object"):
        return
    for name in instance.keys() - _evaluated(validator, instance, schema, _own_names):
        if not _passes(validator, instance[name], extra):
            yield ValidationError(f"the name {quote(name)} is not allowed, or not with this value", path=[name])


def _unevaluated_items(validator: Any, extra: Any, instance: Any, schema: Any) -> Found:
    if not validator.is_type(instance, "array"):
        return
    for i in set(range(len(instance))) - _evaluated(validator, instance, schema, _own_items):
        if not _passes(validator, instance[i], extra):
            yield ValidationError(f"item {i} is not allowed, or not with this value", path=[i])


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


_UNEVALUATED: Final = {"unevaluatedProperties": _unevaluated_properties, "unevaluatedItems": _unevaluated_items}
_CLASSES: Final = {draft: _make_class(draft, _OWN | (_UNEVALUATED if draft >= kw.D2019 else {})) for draft in _BASES}
_UNASSERTING: Final = _make_class(kw.D2020, _OWN | _UNEVALUATED | dict.fromkeys((*kw.ASSERTIONS, "format"), None))
"""For a meta-schema that leaves the validation vocabulary out."""


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
        cls = _CLASSES[draft] if self._graph.asserts(schema, resolver) else _UNASSERTING
        return cls(schema, _resolver=resolver, format_checker=self._formats)

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
