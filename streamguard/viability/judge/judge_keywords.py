"""Keywords of the final judge that are not jsonschema's own.

What applies subschemas does so in steps, so that no depth of a value or a schema stands on the caller's stack.
`pattern` and its kin by `regex` under a time limit; `unevaluated*` without jsonschema's slips; `enum`, `const` and
`uniqueItems` in linear time, where jsonschema compares every value with every other; `anyOf` and `oneOf` without
listing the mistakes of alternatives that nobody wants to know of; `multipleOf` in decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from jsonschema import ValidationError
from referencing.jsonschema import lookup_recursive_ref

from streamguard.viability.judge.applying import MOST_ERRORS, RUN, Errors, apply, passing
from streamguard.viability.judge.unevaluated import matching, unevaluated_items, unevaluated_properties
from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.state.number_text import is_multiple
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.trampoline import Steps
from streamguard.viability.syntax.values_equal import Listed, canonical

Found = Iterator[ValidationError]
Applied = Steps[Errors] | Errors
"""What is wrong with a value: found in steps, or known at once."""


# -- references and what is applied in place ---------------------------------------------------------------------------


def _ref(validator: Any, ref: str, instance: Any, schema: Any) -> Applied:  # noqa: ARG001  # all have the same parameters
    contents, resolver = validator.format_checker.referred(validator, ref)
    steps = apply(validator, instance, contents, resolver=resolver)
    return [] if steps is None else steps


def _recursive_ref(validator: Any, ref: str, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    resolved = lookup_recursive_ref(validator._resolver)  # noqa: SLF001  # as jsonschema's own keywords do
    resolver = validator.format_checker.one_resolver(resolved.resolver)
    steps = apply(validator, instance, resolved.contents, resolver=resolver)
    return [] if steps is None else steps


def _all_of(validator: Any, schemas: Any, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    return _each(validator, ((instance, one, None, i) for i, one in enumerate(schemas)))


def _each(validator: Any, asked: Iterator[tuple[Any, Any, Any, Any]]) -> Applied:
    """What is wrong with several values: each with its schema, its path and its schema path."""
    for instance, schema, path, schema_path in asked:
        steps = apply(validator, instance, schema, path, schema_path)
        if steps is not None:
            return _each_from(validator, steps, asked)
    return []


def _each_from(validator: Any, first: Steps[Errors], asked: Iterator[tuple[Any, Any, Any, Any]]) -> Steps[Errors]:
    quick = RUN.get().quick
    errors: Errors = []
    errors += yield first
    if errors and quick:
        return errors
    for instance, schema, path, schema_path in asked:
        steps = apply(validator, instance, schema, path, schema_path)
        if steps is not None:
            errors += yield steps
            if errors and (quick or len(errors) >= MOST_ERRORS):
                break
    return errors


def _any_of(validator: Any, schemas: Any, instance: Any, schema: Any) -> Steps[Errors]:  # noqa: ARG001
    if RUN.get().known is None:  # the likely case
        for one in schemas:
            steps = apply(validator, instance, one)
            if steps is None or not (yield steps):
                return []
        return [_none(instance, [])]
    found = yield _accepting(validator, schemas, instance, 1)
    # jsonschema's own would have listed every mistake of the others.
    return [] if found else (yield _none_of(validator, schemas, instance))


def _one_of(validator: Any, schemas: Any, instance: Any, schema: Any) -> Steps[Errors]:  # noqa: ARG001
    found = yield _accepting(validator, schemas, instance, 2)
    if len(found) > 1:
        first, second = found
        return [ValidationError(f"{quote(instance)} is valid under two of the schemas, {first} and {second}")]
    return [] if found else (yield _none_of(validator, schemas, instance))


def _accepting(validator: Any, schemas: Any, instance: Any, most: int) -> Steps[list[int]]:
    """Which schemas accept a value, as far as the first so many."""
    found: list[int] = []
    for i, one in enumerate(schemas):
        if (yield passing(validator, instance, one)):
            found.append(i)
            if len(found) == most:
                break
    return found


def _none_of(validator: Any, schemas: Any, instance: Any) -> Steps[Errors]:
    if RUN.get().enough:
        return [_none(instance, [])]
    context: Any = _each(validator, ((instance, one, None, i) for i, one in enumerate(schemas)))
    if context.__class__ is not list:
        context = yield context
    return [_none(instance, context)]


def _none(instance: Any, context: Errors) -> ValidationError:
    shown = quote(instance) if context else "the value"  # what nobody reads need not be shown
    return ValidationError(f"{shown} is not valid under any of the given schemas", context=context)


def _not(validator: Any, forbidden: Any, instance: Any, schema: Any) -> Steps[Errors]:  # noqa: ARG001
    if (yield passing(validator, instance, forbidden)):
        return [ValidationError(f"{quote(instance)} should not be valid under {quote(forbidden)}")]
    return []


def _if(validator: Any, test: Any, instance: Any, schema: Any) -> Steps[Errors]:
    branch = "then" if (yield passing(validator, instance, test)) else "else"
    steps = apply(validator, instance, schema[branch], schema_path=branch) if branch in schema else None
    return [] if steps is None else (yield steps)


def _dependent(validator: Any, dependencies: Any, instance: Any, schema: Any) -> Steps[Errors]:  # noqa: ARG001
    """`dependentSchemas`, and `dependencies` of both kinds."""
    if not validator.is_type(instance, "object"):
        return []
    errors: Errors = []
    schemas = []
    for name, wanted in dependencies.items():
        if name not in instance:
            continue
        if isinstance(wanted, list):
            errors += [ValidationError(f"{n!r} is a dependency of {name!r}") for n in wanted if n not in instance]
        else:
            schemas.append((instance, wanted, None, name))
    found: Any = _each(validator, iter(schemas))
    if found.__class__ is not list:
        found = yield found
    return [*errors, *found]


# -- members and items -------------------------------------------------------------------------------------------------


def _properties(validator: Any, properties: Any, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    if not isinstance(instance, dict):
        return []
    found = None
    for name, one in properties.items():
        if name in instance:
            steps = apply(validator, instance[name], one, name, name)
            if steps is not None:
                if found is None:
                    found = [steps]
                else:
                    found.append(steps)
    if found is None:
        return []
    return found[0] if len(found) == 1 else _all(found)


def _all(todo: list[Steps[Errors]]) -> Steps[Errors]:
    quick = RUN.get().quick
    errors: Errors = []
    for steps in todo:
        errors += yield steps
        if errors and (quick or len(errors) >= MOST_ERRORS):
            break
    return errors


def _every_item(validator: Any, items: Any, instance: list[Any], first: int) -> Applied:
    """What is wrong with the items from one on, which have one schema."""
    for i in range(first, len(instance)):
        steps = apply(validator, instance[i], items, i)
        if steps is not None:
            return _every_item_from(validator, items, instance, i, steps)
    return []


def _every_item_from(
    validator: Any, items: Any, instance: list[Any], at: int, steps: Steps[Errors] | None
) -> Steps[Errors]:
    quick = RUN.get().quick
    errors: Errors = []
    while True:
        if steps is not None:
            errors += yield steps
            if errors and (quick or len(errors) >= MOST_ERRORS):
                return errors
        at += 1
        if at == len(instance):
            return errors
        steps = apply(validator, instance[at], items, at)


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    if not validator.is_type(instance, "object"):
        return []
    asked = (
        (value, patterns[source], name, source)
        for name, value in instance.items()
        for source in matching(validator, name, patterns)
    )
    return _each(validator, asked)


def _additional_properties(validator: Any, extra: Any, instance: Any, schema: Any) -> Applied:
    if not validator.is_type(instance, "object"):
        return []
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    names = [name for name in instance if name not in known and next(matching(validator, name, patterns), None) is None]
    if extra is False:
        return [ValidationError(f"the name {quote(name)} is not allowed", path=[name]) for name in names]
    return _each(validator, ((instance[name], extra, name, None) for name in names))


def _property_names(validator: Any, wanted: Any, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    if not validator.is_type(instance, "object"):
        return []
    return _each(validator, ((name, wanted, None, None) for name in instance))


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Applied:
    """As 2020-12 has it."""
    if not validator.is_type(instance, "array"):
        return []
    first = len(schema.get("prefixItems", []))
    if items is False and len(instance) > first:
        return [ValidationError(f"there are {len(instance)} items, and at most {first} are allowed")]
    return _every_item(validator, items, instance, first)


def _prefix_items(validator: Any, schemas: Any, instance: Any, schema: Any) -> Applied:  # noqa: ARG001
    if not validator.is_type(instance, "array"):
        return []
    pairs = enumerate(zip(instance, schemas, strict=False))
    return _each(validator, ((item, one, i, i) for i, (item, one) in pairs))


def _items_or_list(validator: Any, items: Any, instance: Any, schema: Any) -> Applied:
    """Up to 2019-09: one schema for all items, or a list of them."""
    if isinstance(items, list):
        return _prefix_items(validator, items, instance, schema)
    if not validator.is_type(instance, "array"):
        return []
    return _every_item(validator, items, instance, 0)


def _additional_items(validator: Any, extra: Any, instance: Any, schema: Any) -> Applied:
    first = schema.get("items")
    if not isinstance(first, list) or not validator.is_type(instance, "array"):
        return []  # with one schema for all, none is additional
    return _every_item(validator, extra, instance, len(first))


def _contains(validator: Any, wanted: Any, instance: Any, schema: Any) -> Steps[Errors]:
    """From 2019-09 on, with `minContains` and `maxContains`."""
    if not validator.is_type(instance, "array"):
        return []
    least, most = schema.get("minContains", 1), schema.get("maxContains", len(instance))
    found = 0
    for item in instance:
        if (yield passing(validator, item, wanted)):
            found += 1
            if found > most:
                message = f"more than {most} items match the given schema"
                return [ValidationError(message, validator="maxContains", validator_value=most)]
    if found >= least:
        return []
    if not found:
        return [ValidationError(f"{quote(instance)} does not contain items matching the given schema")]
    message = f"{found} items match the given schema, and {least} must"
    return [ValidationError(message, validator="minContains", validator_value=least)]


def _contains_one(validator: Any, wanted: Any, instance: Any, schema: Any) -> Steps[Errors]:  # noqa: ARG001
    """Before 2019-09."""
    if not validator.is_type(instance, "array"):
        return []
    for item in instance:
        if (yield passing(validator, item, wanted)):
            return []
    return [ValidationError(f"{quote(instance)} does not contain items matching the given schema")]


# -- what concerns one value -------------------------------------------------------------------------------------------


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if not validator.is_type(instance, "string"):
        return
    try:
        if not compile_pattern(pattern, validator.format_checker.dialect).matches(instance):
            yield ValidationError(f"{quote(instance)} does not match {quote(pattern)}")
    except PatternTimeout:
        yield ValidationError(f"{quote(instance)} took too long to match {quote(pattern)}")


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


def _const(validator: Any, value: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if canonical(instance) != canonical(value):
        yield ValidationError(f"{quote(value)} was expected")


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if wanted and validator.is_type(instance, "array") and len(set(map(canonical, instance))) < len(instance):
        yield ValidationError("two items are equal")


def _multiple_of(validator: Any, divisor: Any, instance: Any, schema: Any) -> Found:  # noqa: ARG001
    if validator.is_type(instance, "number") and not is_multiple(instance, divisor):
        yield ValidationError(f"{quote(instance)} is not a multiple of {quote(divisor)}")


OWN: Final[dict[str, Callable[..., Any]]] = {
    "$ref": _ref,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "type": _type,
    "enum": _enum,
    "uniqueItems": _unique,
    "pattern": _pattern,
    "multipleOf": _multiple_of,
}
"""In all drafts."""

_BEFORE_2019: Final = {"dependencies": _dependent, "items": _items_or_list, "additionalItems": _additional_items}
_SINCE_6: Final = {"const": _const, "propertyNames": _property_names}
_SINCE_7: Final = _SINCE_6 | {"if": _if}
_SINCE_2019: Final = _SINCE_7 | {
    "contains": _contains,
    "dependentSchemas": _dependent,
    "unevaluatedProperties": unevaluated_properties,
    "unevaluatedItems": unevaluated_items,
}
DRAFT_4: Final = OWN | _BEFORE_2019
DRAFT_6: Final = OWN | _BEFORE_2019 | _SINCE_6 | {"contains": _contains_one}
DRAFT_7: Final = DRAFT_6 | _SINCE_7
DRAFT_2019: Final = (
    OWN | _SINCE_2019 | {"items": _items_or_list, "additionalItems": _additional_items, "$recursiveRef": _recursive_ref}
)
DRAFT_2020: Final = OWN | _SINCE_2019 | {"items": _items, "prefixItems": _prefix_items, "$dynamicRef": _ref}

IN_STEPS: Final = frozenset(
    [
        _ref,
        _recursive_ref,
        _all_of,
        _any_of,
        _one_of,
        _not,
        _if,
        _dependent,
        _properties,
        _pattern_properties,
        _additional_properties,
        _property_names,
        _items,
        _prefix_items,
        _items_or_list,
        _additional_items,
        _contains,
        _contains_one,
        unevaluated_properties,
        unevaluated_items,
    ]
)
"""Those that apply subschemas."""
