"""How the final judge applies a subschema to a value: its validator made once, its keywords in steps, its work counted.

Takes the place of jsonschema's own `descend`, which stands on the caller's stack. Knows no keyword by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from itertools import islice
from typing import Any, Final

from jsonschema import FormatChecker, ValidationError
from jsonschema.exceptions import FormatError

from streamguard.viability.patterns.ecma import Dialect
from streamguard.viability.patterns.formats import named
from streamguard.viability.schema.resources import Resource
from streamguard.viability.syntax.quote import quote
from streamguard.viability.syntax.trampoline import Steps, need_room

STEPS: Final = 100_000
STEPS_A_VALUE: Final = 256
"""Applications of subschemas that one judgement may take: so many, and so many more for each value within the value.
References that double at each of twenty levels would take hours (and a schema may be a stranger's)."""
TELLING: Final = 5_000
"""Steps after which alternatives are no longer asked what is wrong: where they nest, there is more of it each level."""
MOST_ERRORS: Final = 1_000
"""Mistakes that are looked at to find the most telling one."""
_MOST_MADE: Final = 20_000
"""Validators of subschemas that are kept."""

Errors = list[ValidationError]
Passes = Callable[[Any, Any, Any], bool]
"""Given a keyword's value, an instance and the whole schema: whether the keyword surely holds."""
Check = tuple[Passes | None, Any, bool, str, Any]
"""A keyword of a subschema: its `Passes`, its function, whether that runs in steps, its name, its value."""


class TooMuch(Exception):
    """A schema that takes too many steps to apply."""


class Run:
    """One judgement."""

    __slots__ = ("known", "most", "quick", "steps", "value")

    def __init__(self, value: Any, *, quick: bool = False) -> None:
        self.value = value
        self.steps = 0
        self.most: float = STEPS
        self.quick = quick
        """Whether it is only asked if something is wrong, and not what."""
        self.known: dict[tuple[int, int, int], bool] | None = None if quick else {}
        """Where it is asked what is wrong: which alternatives accept which containers. Each level asks it anew."""

    @property
    def enough(self) -> bool:
        """Whether so much has been looked at that alternatives below need not say what is wrong with them."""
        return self.quick or self.steps > TELLING

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


class Context(FormatChecker):
    """What the validators of one judge share, handed on as their format checker: whether formats are checked, by the
    same grammars that prefixes are held to, and the validators of subschemas, each made once."""

    def __init__(
        self,
        assert_formats: bool,
        dialect: Dialect,
        drafts: dict[Any, int],
        passes: dict[Any, Passes],
        in_steps: frozenset[Any],
    ) -> None:
        super().__init__()
        self.dialect: Dialect = dialect
        self._assert = assert_formats
        self._drafts = drafts
        self._passes = passes
        self._in_steps = in_steps
        self.below: dict[tuple[int, int, Any], tuple[Any, Any, list[Check]]] = {}
        self._resolvers: dict[Any, Any] = {}
        self._referred: dict[tuple[int, str], tuple[Any, Any, Any]] = {}

    def conforms(self, instance: object, format: str) -> bool:  # noqa: A002  # jsonschema's name
        return not self._assert or not isinstance(instance, str) or named(format).check(instance)

    def check(self, instance: object, format: str) -> None:  # noqa: A002  # jsonschema's name
        if not self.conforms(instance, format):
            raise FormatError(f"{quote(instance)} is not of the format {format}")

    def one_resolver(self, resolver: Any) -> Any:
        """The same resolver for the same place, so that what is made for it is found again."""
        key = (resolver._base_uri, tuple(uri for uri, _ in resolver.dynamic_scope()))  # noqa: SLF001
        return self._resolvers.setdefault(key, resolver)

    def keywords(self, validator: Any) -> list[Check]:
        """The keywords of a validator's schema."""
        return [
            (self._passes.get(check), check, check in self._in_steps, keyword, wanted)
            for check, keyword, wanted in validator._validators  # noqa: SLF001
        ]

    def make_below(self, validator: Any, schema: Any, place: Any, referred: bool) -> tuple[Any, Any, list[Check]]:
        """The validator of a subschema, its place and its keywords, to be kept."""
        need_room()
        resolver = place
        if not referred and schema is not False:
            inner = place.in_subresource(Resource(schema, self._drafts[validator.__class__]))
            resolver = place if inner is place else self.one_resolver(inner)
        made = validator.evolve(schema=schema, _resolver=resolver)
        if len(self.below) >= _MOST_MADE:
            self.below.clear()
            self._resolvers.clear()
        # The place too: what is kept cannot give its id to another.
        kept = place, made, [] if schema is False else self.keywords(made)
        self.below[id(place), id(schema), validator.__class__] = kept
        return kept

    def referred(self, validator: Any, ref: str) -> tuple[Any, Any]:
        """The schema that a reference leads to, looked up once, and the resolver there."""
        place = validator._resolver  # noqa: SLF001
        key = (id(place), ref)
        found = self._referred.get(key)
        if found is None:
            need_room()
            resolved = place.lookup(ref)
            if len(self._referred) >= _MOST_MADE:
                self._referred.clear()
            # The place too, as above.
            found = self._referred[key] = (place, resolved.contents, self.one_resolver(resolved.resolver))
        return found[1], found[2]


def apply(
    validator: Any, instance: Any, schema: Any, path: Any = None, schema_path: Any = None, resolver: Any = None
) -> Steps[Errors] | None:
    """Apply a subschema to a value: `None` if it surely accepts the value, else the steps that find what is wrong.

    :param path: the part of the value's path below the validator's own instance; of `schema_path` likewise.
    :param resolver: where the schema was found, as `Context.one_resolver` has it, if not below the validator's.
    """
    if schema is True:
        return None
    RUN.get().step()
    context: Context = validator.format_checker
    place = validator._resolver if resolver is None else resolver  # noqa: SLF001
    kept = context.below.get((id(place), id(schema), validator.__class__))
    if kept is None:
        kept = context.make_below(validator, schema, place, resolver is not None)
    _, below, checks = kept
    if schema is False:
        return _refused(instance, path, schema_path)
    for i, check in enumerate(checks):
        passes = check[0]
        if passes is None or not passes(check[4], instance, schema):
            return applied(below, checks[i:] if i else checks, instance, path, schema_path)
    return None


def _refused(instance: Any, path: Any, schema_path: Any) -> Steps[Errors]:
    error = ValidationError(
        f"False schema does not allow {quote(instance)}",
        validator=None,  # type: ignore[arg-type]  # as jsonschema has it
        validator_value=None,
        instance=instance,
        schema=False,
    )
    _place([error], path, schema_path)
    yield from ()  # a generator, as all steps are
    return [error]


def applied(
    validator: Any, checks: list[Check], instance: Any, path: Any = None, schema_path: Any = None
) -> Steps[Errors]:
    """What is wrong with a value by these keywords; of a quick run the first thing found."""
    run, schema = RUN.get(), validator.schema
    errors: Errors = []
    for passes, check, in_steps, keyword, wanted in checks:
        if passes is not None and passes(wanted, instance, schema):
            continue
        found: Any = (
            check(validator, wanted, instance, schema)
            if in_steps
            else _plainly(check, validator, wanted, instance, schema)
        )
        if found.__class__ is not list:
            found = yield found
        if not found:
            continue
        if run.quick:
            return found  # type: ignore[no-any-return]  # of either kind of check
        for error in found:
            error._set(  # noqa: SLF001
                validator=keyword,
                validator_value=wanted,
                instance=instance,
                schema=schema,
                type_checker=validator.TYPE_CHECKER,
            )
            if keyword not in ("if", "$ref"):
                error.schema_path.appendleft(keyword)
        errors += found
        if len(errors) >= MOST_ERRORS:
            break
    _place(errors, path, schema_path)
    return errors


def _plainly(check: Any, validator: Any, wanted: Any, instance: Any, schema: Any) -> Errors:
    try:
        return list(islice(check(validator, wanted, instance, schema) or (), MOST_ERRORS))
    except RecursionError:  # the message was to show a value that is nested too deeply to be shown
        return [ValidationError("the value is not what the schema asks for; it is nested too deeply to be shown")]


def _place(errors: Errors, path: Any, schema_path: Any) -> None:
    for error in errors:
        if path is not None:
            error.path.appendleft(path)
        if schema_path is not None:
            error.schema_path.appendleft(schema_path)


def passing(validator: Any, instance: Any, schema: Any) -> Steps[Any]:
    """Whether a subschema accepts a value."""
    run = RUN.get()
    key = None
    if run.known is not None and instance.__class__ in (dict, list):
        key = (id(validator._resolver), id(schema), id(instance))  # noqa: SLF001
        if key in run.known:
            return run.known[key]
    steps = apply(validator, instance, schema)
    if steps is None:
        return True
    before, run.quick = run.quick, True
    found = yield steps
    run.quick = before
    if key is not None and run.known is not None:
        run.known[key] = not found
    return not found
