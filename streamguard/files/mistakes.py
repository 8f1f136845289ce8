"""Pydantic's errors → sentences for people, each with the path of the value it is about.

In charge of words: what was expected, what stands there instead, and what was probably meant. It does not know files,
positions or policies; it works for any model, and reads the names a model knows from its JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streamguard.files.suggest import closest, did_you_mean

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong with one value."""

    path: Path
    """Of the value; of the mapping, if a key is missing."""
    problem: str
    at_key: bool = False
    """Whether it is about the key, not about its value."""
    offset: int | None = None
    """The character of the value, from 0, if it is a text and one of them is to blame."""


LOCATED = "located"
"""The type of an error that lists its mistakes itself: in `ctx`, `mistakes` of key, character and problem."""


def mistakes(errors: Iterable[Mapping[str, Any]], data: Any, schema: Mapping[str, Any]) -> list[Mistake]:
    """Each mistake once, for people.

    :param errors: `ValidationError.errors()`.
    :param data: what was validated.
    :param schema: the model's JSON Schema: it knows every name.
    """
    found = [_Error(error["type"], _steps(error["loc"], data), error) for error in errors]
    found = _without_echoes(_without_branches(found))
    listed: list[Mistake] = []
    for error in found:
        if error.type == LOCATED:
            each = error.raw["ctx"]["mistakes"]
            listed += [Mistake((*error.path, key), problem, offset=at) for key, at, problem in each]
            continue
        at_key = error.type == "extra_forbidden"
        listed.append(Mistake(path=error.path, problem=_sentence(error, schema), at_key=at_key))
    return listed


def shown(value: Any) -> str:
    """A value as a message shows it: its kind and its beginning."""
    match value:
        case None:
            return "nothing (null)"
        case bool() | int() | float():
            text = json.dumps(value)
            return text if len(text) <= 40 else f"{text[:39]}…"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return f"the text {text if len(text) <= 62 else text[:60] + '…' + text[-1]}"
        case dict() if value:
            return "a mapping"
        case list() if value:
            return f"a list of {len(value)}"
        case dict():
            return "an empty mapping"
        case list():
            return "an empty list"
        case _:
            return repr(value)[:60]


class _Tag(str):
    """A part of pydantic's `loc` that is no key: the name of a union's member or of a function."""

    __slots__ = ()


class _Error(NamedTuple):
    type: str
    steps: tuple[str | int | _Tag, ...]
    raw: Mapping[str, Any]
    also: tuple[_Error, ...] = ()
    """The same value's errors by a union's other members, none of which fits."""

    @property
    def path(self) -> Path:
        return tuple(step for step in self.steps if not isinstance(step, _Tag))


def _steps(loc: Sequence[str | int], data: Any) -> tuple[str | int | _Tag, ...]:
    """`loc` with everything that is no key of the data marked as a tag (but for a missing key, which comes last)."""
    steps: list[str | int | _Tag] = []
    node = data
    for part in loc:
        inside = node if isinstance(node, dict) else dict(enumerate(node)) if isinstance(node, list) else {}
        if part in inside:
            node = inside[part]
            steps.append(part)
        else:
            steps.append(_Tag(part))
    return tuple(steps)


_KINDS = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "decimal_type": "an amount in quotes",
    "date_type": "a date in quotes",
    "none_required": "null",
}
"""Errors that say which kind of value was expected, and the kind's name."""

_MISMATCH = frozenset({*_KINDS, "literal_error", "enum", "is_instance_of"})
"""Errors that say: this value is of another kind. In a union they mean that another member was meant."""


def _without_branches(errors: list[_Error]) -> list[_Error]:
    """Of a union's members, keep the errors of the one that was meant: the one whose kind the value has."""
    done: list[_Error] = []
    while errors:
        first = errors[0]
        at = next((i for i, step in enumerate(first.steps) if isinstance(step, _Tag)), None)
        if at is None or (first.type == "missing" and at == len(first.steps) - 1):
            done.append(errors.pop(0))
            continue
        union = first.steps[:at]
        group = [error for error in errors if error.steps[:at] == union and _tag_at(error, at)]
        errors = [*_meant(group, at), *(error for error in errors if error not in group)]
    return done


def _tag_at(error: _Error, at: int) -> bool:
    is_tag = len(error.steps) > at and isinstance(error.steps[at], _Tag)
    return is_tag and not (error.type == "missing" and at == len(error.steps) - 1)


def _meant(group: list[_Error], at: int) -> list[_Error]:
    """The errors, without their tag, of the member that has the value's kind; if none has, one error for all."""
    members: dict[str, list[_Error]] = {}
    for error in group:
        shorter = error._replace(steps=(*error.steps[:at], *error.steps[at + 1 :]))
        members.setdefault(str(error.steps[at]), []).append(shorter)

    def mismatch(error: _Error) -> bool:
        return error.type in _MISMATCH and len(error.path) == at

    fitting = [errors for errors in members.values() if not any(map(mismatch, errors))]
    if fitting:
        return min(fitting, key=len)
    heads = [error for errors in members.values() for error in errors if mismatch(error)]
    path = heads[0].steps[:at]
    return [heads[0]._replace(steps=path, also=tuple(one for head in heads[1:] for one in (head, *head.also)))]


def _without_echoes(errors: list[_Error]) -> list[_Error]:
    """Leave out what only follows from another error."""

    def echo(error: _Error) -> bool:
        if error.type == "too_short":  # items that failed are not counted
            return any(other.path and other.path[:-1] == error.path for other in errors)
        if error.type == "missing":  # it is there, under another name
            strangers = [
                other.path[-1] for other in errors if other.type == "extra_forbidden" and other.path[:-1] == error.path
            ]
            return any(_OTHER_WORDS.get(str(stranger)) == error.steps[-1] for stranger in strangers)
        return False

    return [error for error in errors if not echo(error)]


def _sentence(error: _Error, schema: Mapping[str, Any]) -> str:
    if error.type == "missing":
        return f'the key "{error.steps[-1]}" is missing'
    if error.type == "extra_forbidden":
        return _unknown_key(str(error.path[-1]), known_keys(schema, error.path[:-1]))
    value = error.raw.get("input")
    if error.type in _MISMATCH:
        return _mismatch([error, *error.also], value)
    context = error.raw.get("ctx", {})
    if error.type == "union_tag_not_found":
        return f"the key {_unquoted(context['discriminator'])} is missing"
    if error.type == "union_tag_invalid":
        name, tags = _unquoted(context["discriminator"]), _unquoted(context["expected_tags"])
        return f"{name} must be one of {tags}, got {shown(context['tag'])}"
    if error.type in _BOUNDS:
        return f"{_BOUNDS[error.type](context)}, got {shown(value)}"
    if "error" not in context:
        return re.sub(r"^Input should be (a valid )?", "must be ", str(error.raw["msg"])) + f", got {shown(value)}"
    # A validator's own sentence. It may begin with the field's name, which the pointer says already.
    field = re.escape(str(error.path[-1])) if error.path else ""
    said = re.sub(rf"^{field}:? (?=must |unknown )", "", str(context["error"]))
    said = said.replace("Invalid isoformat string:", 'must be a date in quotes, such as "2026-11-30", not')
    kinds = [kind for kind in ("a whole number", "a number", "true or false") if kind in said]
    kinds += ["a number"] if "seconds" in said else []
    return said + (_advice(kinds, (), value) if isinstance(value, str) else "")


_OTHER_WORDS = {
    "on": "when",
    "if": "when",
    "reasons": "when",
    "idle": "progress",
    "stall": "progress",
    "ttft": "first_token",
    "first_event": "first_token",
    "liveness": "alive",
    "deadline": "total",
    "timeout": "timeouts",
    "max_attempts": "attempts",
    "max_retries": "attempts",
    "backoff": "wait",
    "delay": "wait",
    "limits": "caps",
    "max_tokens": "output_tokens",
    "cost": "cost_usd",
    "usd": "cost_usd",
    "max_cost": "cost_usd",
    "honor_retry_after": "respect_retry_after",
    "honour_retry_after": "respect_retry_after",
    "dead_after": "max_row_failures",
    "times": "max_uses",
    "max_times": "max_uses",
    "most": "max",
    "bucket": "quota",
    "schema_path": "schema_file",
    "policy": "extends",
    "include": "extends",
    "base": "extends",
}
"""What other tools call a thing → our word for it, where spelling alone does not suggest it."""


def _unknown_key(name: str, known: Sequence[str]) -> str:
    lowered = name.lower().replace("-", "_")
    other = _OTHER_WORDS.get(lowered)
    if other in known:
        return f'unknown key; use "{other}"' if lowered in ("on", "if") else f'unknown key; did you mean "{other}"?'
    candidates = [*known, *(word for word, ours in _OTHER_WORDS.items() if ours in known)]
    close = closest(lowered, candidates)
    if close is not None:
        return f'unknown key; did you mean "{close if close in known else _OTHER_WORDS[close]}"?'
    return "unknown key" + (f"; known here: {', '.join(known)}" if known else "")


def known_keys(schema: Mapping[str, Any], path: Path) -> list[str]:
    """The keys that a schema knows for the mapping at `path`, in its order."""
    nodes = [schema]
    for part in path:
        nodes = [below for node in _members(nodes, schema) for below in _below(node, part)]
    return list(dict.fromkeys(key for node in _members(nodes, schema) for key in node.get("properties", {})))


def _below(node: Mapping[str, Any], part: str | int) -> Sequence[Mapping[str, Any]]:
    if isinstance(part, int):
        return [node["items"]] if "items" in node else []
    if part in node.get("properties", {}):
        return [node["properties"][part]]
    others = node.get("additionalProperties")
    return [others] if isinstance(others, dict) else []


def _members(nodes: Iterable[Mapping[str, Any]], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes with references followed and unions taken apart."""
    members: list[Mapping[str, Any]] = []
    queue = list(nodes)
    while queue:
        node = queue.pop(0)
        if "$ref" in node:
            node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
        members.append(node)
        for word in ("anyOf", "oneOf", "allOf"):
            queue.extend(node.get(word, ()))
    return members


def _mismatch(errors: Sequence[_Error], value: Any) -> str:
    literals = [str(error.raw["ctx"]["expected"]) for error in errors if error.type in ("literal_error", "enum")]
    words = [word for text in literals for word in re.findall(r"'([^']*)'", text)]
    kinds = [_KINDS[error.type] for error in errors if error.type in _KINDS]
    # Literals that are no text (`version: 1`) stand in pydantic's list as they are.
    quoted = [f'"{word}"' for word in words] or literals
    wanted = list(dict.fromkeys([*quoted, *kinds])) or ["something else"]
    listed = ", ".join(wanted[:-1]) + " or " + wanted[-1] if len(wanted) > 1 else wanted[0]
    return f"must be {listed}, got {shown(value)}{_advice(wanted, words, value)}"


_UNITS = {
    **dict.fromkeys(("ms", "msec", "millis"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
}
_DURATION = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)\s*", re.IGNORECASE)
_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _advice(wanted: Sequence[str], words: Sequence[str], value: Any) -> str:
    """What to write instead, where that can be known."""
    number = any("number" in kind for kind in wanted)
    if value is None:
        return "; write a value or leave the line out"
    if isinstance(value, str):
        lowered = value.strip().lower()
        if "true or false" in wanted and lowered in _YAML_1_1:
            return f"; YAML 1.2 has only true and false: write {_YAML_1_1[lowered]}"
        if "true or false" in wanted and lowered in ("true", "false"):
            return f"; leave the quotes out: write {lowered}"
        duration = _DURATION.fullmatch(value)
        if number and duration is not None and duration["unit"].lower() in _UNITS:
            seconds = float(duration["number"]) * _UNITS[duration["unit"].lower()]
            return f"; times are in seconds, without a unit: write {seconds:.10g}"
        plain = lowered.replace("_", "").replace(",", "")
        if number and re.fullmatch(r"[-+]?\d+(\.\d+)?", plain):
            return f"; write {plain}" if plain != lowered else f"; leave the quotes out: write {plain}"
        if "a list" in wanted:
            return (
                f"; write [{value}]" if len(value) <= 40 and re.fullmatch(r"[\w.*-]+", value) else "; write it in [ ]"
            )
        return did_you_mean(value, words)
    if isinstance(value, bool | int | float):
        text = json.dumps(value)
        if any(text == word for word in words) or "text" in wanted:
            return f'; write "{text}" in quotes'
        if "a list" in wanted:
            return f"; write [{text}]"
        if isinstance(value, float) and value.is_integer() and "a whole number" in wanted and abs(value) < 1e15:
            return f"; write {int(value)}"
    return ""


def _unquoted(text: str) -> str:
    return text.replace("'", '"')


def _count(context: Mapping[str, Any], word: str, number: int) -> str:
    nouns = {"List": "item", "Tuple": "item", "Set": "item", "Frozenset": "item", "Dictionary": "key"}
    noun = nouns.get(context.get("field_type", ""), "character")
    return f"must have {word} {number} {noun}{'' if number == 1 else 's'}"


def _number(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


_BOUNDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda context: f"must be more than {_number(context['gt'])}",
    "greater_than_equal": lambda context: f"must be at least {_number(context['ge'])}",
    "less_than": lambda context: f"must be less than {_number(context['lt'])}",
    "less_than_equal": lambda context: f"must be at most {_number(context['le'])}",
    "multiple_of": lambda context: f"must be a multiple of {_number(context['multiple_of'])}",
    "finite_number": lambda _: "must be finite",
    "too_short": lambda context: _count(context, "at least", context["min_length"]),
    "too_long": lambda context: _count(context, "at most", context["max_length"]),
    "string_too_short": lambda context: _count(context, "at least", context["min_length"]),
    "string_too_long": lambda context: _count(context, "at most", context["max_length"]),
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
}
