"""Keywords of the final judge that are not jsonschema's own.

`pattern` and its kin by `regex` under a time limit; `unevaluated*` without jsonschema's slips; `enum` and `uniqueItems`
in linear time, where jsonschema compares every value with every other; `anyOf` and `oneOf` without listing the mistakes
of alternatives that nobody wants to know of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from referencing.jsonschema import lookup_recursive_ref

from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.values_equal import Listed, canonical

STEPS: Final = 100_000
STEPS_A_VALUE: Final = 256
"""Applications of subschemas that one judgement may take: so many, and so many more for each value within the value.
References that double at each of twenty levels would take hours (and a schema may be a stranger's)."""


class TooMuch(Exception):
    """A schema that takes too many steps to apply."""


class Run:
    """One judgement."""

    __slots__ = ("most", "quick", "steps", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.steps = 0
        self.most: float = STEPS
        self.quick = False
        """Whether it is only asked if something is wrong, and not what."""

    def step(self) -> None:
        """A subschema is about to be applied.

        :raises TooMuch: so often that the schema must be multiplying itself.
        """
        self.steps += 1
        if self.steps > self.most:
            self.most = STEPS + STEPS_A_VALUE * _size(self.value)
            if self.steps > self.most:
                raise TooMuch


RUN: ContextVar[Run] = ContextVar("RUN")
"""The judgement at hand: one schema may judge in several threads at once."""


def _size(value: Any) -> int:
    """How many values there are within a value."""
    count, todo = 0, [value]
    while todo:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            todo += one
    return count


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
            place = validator.format_checker.one_resolver(resolved.resolver)
            target = validator.evolve(schema=resolved.contents, _resolver=place)
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
    first = items if isinstance(items, list) else ()
    if "prefixItems" in validator.VALIDATORS:
        first = schema.get("prefixItems", ())
    found = set(everything[: len(first)])
    for keyword in ("contains", "unevaluatedItems"):
        if keyword in schema:
            found |= {i for i in everything if _passes(validator, instance[i], schema[keyword])}
    return found


def _passes(validator: Any, instance: Any, schema: Any) -> bool:
    run = RUN.get()
    before, run.quick = run.quick, True
    try:
        return next(validator.descend(instance, schema), None) is None
    finally:
        run.quick = before


def _any_of(validator: Any, schemas: Any, instance: Any, schema: Any) -> Found:
    if any(_passes(validator, instance, one) for one in schemas):
        return  # jsonschema's own would have listed every mistake of the others
    if RUN.get().quick:
        yield ValidationError("none of them")
    else:
        yield from Draft202012Validator.VALIDATORS["anyOf"](validator, schemas, instance, schema)


def _one_of(validator: Any, schemas: Any, instance: Any, schema: Any) -> Found:
    if len(list(islice((one for one in schemas if _passes(validator, instance, one)), 2))) == 1:
        return
    if RUN.get().quick:
        yield ValidationError("none of them, or several")
    else:
        yield from Draft202012Validator.VALIDATORS["oneOf"](validator, schemas, instance, schema)


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


PLAIN_TYPES: Final = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null", int: "integer"}
"""Of a value as `json.loads` makes it, the type that it plainly has."""


def _type(validator: Any, types: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    kind = PLAIN_TYPES.get(instance.__class__)
    names = (types,) if isinstance(types, str) else types
    if kind in names or (kind == "integer" and "number" in names):
        return  # the likely case, quickly
    if not any(validator.is_type(instance, name) for name in names):
        yield ValidationError(f"{quote(instance)} is not of the type {' or '.join(names)}")


def _enum(validator: Any, values: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    known = values.known if isinstance(values, Listed) else set(map(canonical, values))
    if canonical(instance) not in known:
        yield ValidationError(f"{quote(instance)} is not one of {quote(values)}")


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if wanted and validator.is_type(instance, "array") and len(set(map(canonical, instance))) < len(instance):
        yield ValidationError("two items are equal")


def _additional_items(validator: Any, extra: Any, instance: Any, schema: Any) -> Found:
    first = schema.get("items")
    if isinstance(first, list) and validator.is_type(instance, "array"):  # with one schema for all, none is additional
        for i, item in enumerate(instance[len(first) :], start=len(first)):
            yield from validator.descend(item, extra, path=i)


OWN: Final[dict[str, Callable[..., Any]]] = {
    "type": _type,
    "enum": _enum,
    "uniqueItems": _unique,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""In all drafts."""

UNEVALUATED: Final = {"unevaluatedProperties": _unevaluated_properties, "unevaluatedItems": _unevaluated_items}
"""From 2019-09 on."""

ADDITIONAL_ITEMS: Final = {"additionalItems": _additional_items}
"""Up to 2019-09. jsonschema's own stumbles over `items: true`."""
