"""`unevaluatedProperties` and `unevaluatedItems`, in steps, and which members and items the rest of a schema evaluates.

As jsonschema finds it, but for how patterns are searched and for slips with boolean schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import ValidationError
from referencing.jsonschema import lookup_recursive_ref

from streamguard.viability.judge.applying import Errors, passing
from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.trampoline import Steps

Names = Steps[Any]
"""What a schema has evaluated."""


def matching(validator: Any, name: str, sources: Any) -> Iterator[Any]:
    """The patterns that a name matches."""
    dialect = validator.format_checker.dialect
    for source in sources:
        try:
            if compile_pattern(source, dialect).matches(name):
                yield source
        except PatternTimeout:
            continue


def _evaluated(validator: Any, instance: Any, schema: Any, own: Callable[..., Names]) -> Names:
    """What a schema has evaluated of an object or array: `own` tells it for one schema, this collects it from those
    applied in place. As jsonschema finds it, but for how patterns are searched and for slips with boolean schemas."""
    if not isinstance(schema, dict):
        return set()
    found: set[Any] = yield own(validator, instance, schema)
    context = validator.format_checker
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if keyword in schema and keyword in validator.VALIDATORS:
            if keyword == "$recursiveRef":
                resolved = lookup_recursive_ref(validator._resolver)  # noqa: SLF001
                contents, place = resolved.contents, context.one_resolver(resolved.resolver)
            else:
                contents, place = context.referred(validator, schema[keyword])
            target = validator.evolve(schema=contents, _resolver=place)
            found |= yield _evaluated(target, instance, contents, own)
    inner = []
    for keyword in ("allOf", "oneOf", "anyOf"):
        for one in schema.get(keyword, ()):
            passes = yield passing(validator, instance, one)
            if passes:
                inner.append(one)
    if isinstance(instance, dict):
        inner += [one for name, one in schema.get("dependentSchemas", {}).items() if name in instance]
    if "if" in schema:
        passes = yield passing(validator, instance, schema["if"])
        inner += [schema["if"], schema.get("then")] if passes else [schema.get("else")]
    for applied in inner:
        found |= yield _evaluated(validator, instance, applied, own)
    return found


def _own_names(validator: Any, instance: dict[str, Any], schema: dict[str, Any]) -> Names:
    found: set[Any] = schema.get("properties", {}).keys() & instance.keys()
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            for name, value in instance.items():
                if name not in found and (yield passing(validator, value, schema[keyword])):
                    found.add(name)
    if patterns := schema.get("patternProperties"):
        found |= {name for name in instance if next(matching(validator, name, patterns), None) is not None}
    return found


def _own_items(validator: Any, instance: list[Any], schema: dict[str, Any]) -> Names:
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
            for i in everything:
                if i not in found and (yield passing(validator, instance[i], schema[keyword])):
                    found.add(i)
    return found


def unevaluated_properties(validator: Any, extra: Any, instance: Any, schema: Any) -> Steps[Errors]:
    if not validator.is_type(instance, "object"):
        return []
    evaluated: Any = yield _evaluated(validator, instance, schema, _own_names)
    wrong: Any = [name for name in instance if name not in evaluated]
    wrong = yield _failing(validator, instance, wrong, extra)
    return [
        ValidationError(f"the name {quote(name)} is not allowed, or not with this value", path=[name]) for name in wrong
    ]


def unevaluated_items(validator: Any, extra: Any, instance: Any, schema: Any) -> Steps[Errors]:
    if not validator.is_type(instance, "array"):
        return []
    evaluated: Any = yield _evaluated(validator, instance, schema, _own_items)
    wrong: Any = [i for i in range(len(instance)) if i not in evaluated]
    wrong = yield _failing(validator, instance, wrong, extra)
    return [ValidationError(f"item {i} is not allowed, or not with this value", path=[i]) for i in wrong]


def _failing(validator: Any, instance: Any, places: list[Any], schema: Any) -> Steps[Any]:
    """At which of these places the value is not what the schema accepts."""
    found = []
    for at in places:
        passes = yield passing(validator, instance[at], schema)
        if not passes:
            found.append(at)
    return found
