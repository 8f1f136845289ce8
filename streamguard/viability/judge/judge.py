"""The final judge of a finished value: `jsonschema`, with patterns by `regex` under a time limit, and nothing remote.

In charge of: acceptance, and a word on the first thing wrong. It knows nothing of prefixes; the prefixes ask it where
they cannot tell themselves (`unevaluated*` in knots).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from attrs import fields as attrs_fields
from jsonschema import FormatChecker, ValidationError
from jsonschema.exceptions import FormatError, relevance
from jsonschema.validators import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    extend,
)

from streamguard.files.json_pointer import pointer
from streamguard.viability.judge.judge_keywords import (
    ADDITIONAL_ITEMS,
    OWN,
    PLAIN_TYPES,
    RUN,
    UNEVALUATED,
    Run,
    TooMuch,
)
from streamguard.viability.patterns.formats import named
from streamguard.viability.patterns.regexes import PatternTimeout, compile_pattern
from streamguard.viability.schema import keywords as kw
from streamguard.viability.schema.graph import Graph
from streamguard.viability.schema.nodes import Node
from streamguard.viability.syntax.protocol import Dead
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.values_equal import Listed

Passes = Callable[[Any, Any, Any], bool]
"""Given a keyword's value, an instance and the whole schema: whether the keyword surely holds."""


def _quick_type(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001  # all have the same parameters
    kind = PLAIN_TYPES.get(instance.__class__)
    return kind == wanted or (wanted.__class__ is list and kind in wanted)


def _quick_enum(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    return instance.__class__ is str and wanted.__class__ is Listed and instance in wanted.known


def _quick_pattern(wanted: Any, instance: Any, schema: Any) -> bool:  # noqa: ARG001
    if instance.__class__ is not str:
        return instance.__class__ in PLAIN_TYPES
    try:
        return compile_pattern(wanted).matches(instance)
    except PatternTimeout:
        return False


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
    "pattern": _quick_pattern,
    "additionalProperties": _quick_additional_properties,
}
PASSES: Final[dict[Any, Passes]] = {
    **{Draft202012Validator.VALIDATORS[keyword]: passes for keyword, passes in _THEIRS.items()},
    **{OWN[keyword]: passes for keyword, passes in _OURS.items()},
}
"""By the function that checks the keyword: the drafts have different ones where they mean different things."""


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
    made.descend = _descend
    made._validate_reference = _referred  # noqa: SLF001
    return made


class _Context(FormatChecker):
    """What the validators of one judge share, handed on as their format checker: whether formats are checked, by the
    same grammars that prefixes are held to, and the validators of subschemas, each made once."""

    def __init__(self, assert_formats: bool) -> None:
        super().__init__()
        self._assert = assert_formats
        self.below: dict[tuple[int, int, Any], tuple[Any, Any, list[Any]]] = {}
        self.resolvers: dict[Any, Any] = {}
        self.referred: dict[tuple[int, str], tuple[Any, Any, Any]] = {}

    def conforms(self, instance: object, format: str) -> bool:  # noqa: A002  # jsonschema's name
        return not self._assert or not isinstance(instance, str) or named(format).check(instance)

    def check(self, instance: object, format: str) -> None:  # noqa: A002  # jsonschema's name
        if not self.conforms(instance, format):
            raise FormatError(f"{quote(instance)} is not of the format {format}")

    def one_resolver(self, resolver: Any) -> Any:
        """The same resolver for the same place, so that what is made for it is found again."""
        key = (resolver._base_uri, tuple(uri for uri, _ in resolver.dynamic_scope()))  # noqa: SLF001
        return self.resolvers.setdefault(key, resolver)


_MOST_ERRORS: Final = 1_000
"""Mistakes that are looked at to find the most telling one."""
_MOST_MADE: Final = 20_000
"""Validators of subschemas that are kept."""


_NONE: Final[tuple[Any, Any, list[Any]]] = (None, None, [])


def _descend(
    self: Any, instance: Any, schema: Any, path: Any = None, schema_path: Any = None, resolver: Any = None
) -> Iterator[ValidationError]:
    """As jsonschema's own, but for making the validator of a subschema once."""
    if schema is True:
        return
    context: _Context = self.format_checker
    RUN.get().step()
    if resolver is not None:
        resolver = context.one_resolver(resolver)
    place = self._resolver if resolver is None else resolver
    key = (id(place), id(schema), self.__class__)
    kept, below, checks = context.below.get(key, _NONE)
    if kept is None:
        if resolver is None and schema is not False:
            resource = kw.SPECIFICATIONS[_DRAFTS[self.__class__]].create_resource(schema)
            inner = place.in_subresource(resource)
            resolver = place if inner is place else context.one_resolver(inner)
        below = self.evolve(schema=schema, _resolver=resolver or place)
        if len(context.below) >= _MOST_MADE:
            context.below.clear()
            context.resolvers.clear()
        checks = [(PASSES.get(check), check, keyword, wanted) for check, keyword, wanted in below._validators]  # noqa: SLF001
        context.below[key] = (place, below, checks)  # the place too: what is kept cannot give its id to another
    if schema is False:
        yield from _placed(below.iter_errors(instance), path, schema_path)
        return
    for passes, check, keyword, wanted in checks:  # what its iter_errors does, without its detours
        if passes is not None and passes(wanted, instance, schema):
            continue
        for error in _placed(check(below, wanted, instance, schema) or (), path, schema_path):
            error._set(  # type: ignore[attr-defined]  # noqa: SLF001
                validator=keyword,
                validator_value=wanted,
                instance=instance,
                schema=schema,
                type_checker=below.TYPE_CHECKER,
            )
            if keyword not in ("if", "$ref"):
                error.schema_path.insert(0 if schema_path is None else 1, keyword)
            yield error


def _referred(self: Any, ref: str, instance: Any) -> Iterator[ValidationError]:
    """As jsonschema's own, but for looking a reference up once."""
    context: _Context = self.format_checker
    key = (id(self._resolver), ref)
    found = context.referred.get(key)
    if found is None:
        resolved = self._resolver.lookup(ref)
        if len(context.referred) >= _MOST_MADE:
            context.referred.clear()
        # The place too, as above.
        found = context.referred[key] = (self._resolver, resolved.contents, context.one_resolver(resolved.resolver))
    return _descend(self, instance, found[1], resolver=found[2])


def _placed(errors: Iterable[ValidationError], path: Any, schema_path: Any) -> Iterator[ValidationError]:
    for error in errors:
        if path is not None:
            error.path.appendleft(path)
        if schema_path is not None:
            error.schema_path.appendleft(schema_path)
        yield error


def _asserts_nothing(*_: Any) -> None:
    """A keyword without a say."""


_MORE: Final[dict[int, dict[str, Any]]] = {
    kw.D4: {"items": Draft6Validator.VALIDATORS["items"]} | ADDITIONAL_ITEMS,  # draft-04's stumbles over true, too
    kw.D6: ADDITIONAL_ITEMS,
    kw.D7: ADDITIONAL_ITEMS,
    kw.D2019: UNEVALUATED | ADDITIONAL_ITEMS,
    kw.D2020: UNEVALUATED,
}
_CLASSES: Final = {draft: _make_class(draft, OWN | _MORE.get(draft, {})) for draft in _BASES}
_UNASSERTING: Final = _make_class(
    kw.D2020, OWN | UNEVALUATED | dict.fromkeys((*kw.ASSERTIONS, "format"), _asserts_nothing)
)
"""For a meta-schema that leaves the validation vocabulary out."""
_DRAFTS: Final = {cls: draft for draft, cls in _CLASSES.items()} | {_UNASSERTING: kw.D2020}


def _weight(error: ValidationError) -> tuple[Any, ...]:
    found: Any = relevance(error)
    return tuple(map(repr, found))


class Judge:
    """Validates finished values against a schema, or one node of it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._context = _Context(graph.assert_formats)
        self._validator = self._make(graph.schema, graph.draft, graph.resolver)
        self._nodes: dict[int, Any] = {}

    def _make(self, schema: Any, draft: int, resolver: Any) -> Any:
        cls = _CLASSES[draft] if self._graph.asserts(schema, resolver) else _UNASSERTING
        return cls(schema, _resolver=resolver, format_checker=self._context)

    def accepts(self, node: Node, value: Any) -> bool | None:
        """Whether one node accepts a finished value; `None` where that takes too long to say."""
        validator = self._nodes.get(node.id)
        if validator is None:
            validator = self._nodes[node.id] = self._make(node.schema, node.draft, node.resolver)
        RUN.set(Run(value))
        try:
            found: bool = validator.is_valid(value)
        except TooMuch:
            return None  # the whole will be refused for the same reason
        return found

    def validate(self, value: Any) -> Dead | None:
        """What is wrong with a whole finished value: the most telling mistake, or `None`."""
        RUN.set(Run(value))
        try:
            errors = list(islice(self._validator.iter_errors(value), _MOST_ERRORS))
        except TooMuch:
            return _dead("", "$ref", None, "checking the value by this schema takes too long: it multiplies itself")
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
