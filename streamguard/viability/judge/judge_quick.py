"""When a keyword of the final judge plainly holds, so that it need not be asked.

Per keyword function one that says yes at once where that is beyond doubt: for a value as `json.loads` makes it, by what
the keyword means. Anything else is left to the keyword itself, and so is every mistake. A third of judging a valid
document is spent on asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jsonschema import Draft202012Validator

from streamguard.viability.judge.judge_keywords import OWN, PLAIN_TYPES
from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.syntax.values_equal import Listed

Passes = Callable[[Any, Any, Any], bool]
"""Given a keyword's value, an instance and the whole schema: whether the keyword surely holds."""


def _type(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001  # all have the same parameters
    kind = PLAIN_TYPES.get(instance.__class__)
    return kind == wanted or (wanted.__class__ is list and kind in wanted)


def _enum(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    return instance.__class__ is str and wanted.__class__ is Listed and instance in wanted.known


def _pattern(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    if instance.__class__ is not str:
        return instance.__class__ in PLAIN_TYPES
    try:
        return compile_pattern(wanted).matches(instance)
    except PatternTimeout:
        return False


def _additional_properties(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    return instance.__class__ is dict and instance.keys() <= schema.get("properties", {}).keys()


def _required(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
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
    "required": _required,
    "minLength": _least(str),
    "maxLength": _most(str),
    "minItems": _least(list),
    "maxItems": _most(list),
}
_OURS: Final[dict[str, Passes]] = {
    "type": _type,
    "enum": _enum,
    "pattern": _pattern,
    "additionalProperties": _additional_properties,
}
PASSES: Final[dict[Any, Passes]] = {
    **{Draft202012Validator.VALIDATORS[keyword]: passes for keyword, passes in _THEIRS.items()},
    **{OWN[keyword]: passes for keyword, passes in _OURS.items()},
}
"""By the function that checks the keyword: the drafts have different ones where they mean different things."""
