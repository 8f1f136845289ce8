"""Where a model's own validators can speak before the answer ends: the places of a core schema.

In charge of: which values of a document are **places**, and what judges each. A place is a value whose failure is the
whole's failure. It is reached through models, typed dicts, dataclasses, lists, tuples, sets, the values of dicts,
optional values, defaults and `after` validators. Below a union, a `before`, `wrap` or `plain` validator, an
`AliasPath` or a model with its own `__init__` there are none: the value is judged as one when it closes.

Each place has its own `SchemaValidator`, which reads the value's own text, so that JSON's own rules apply. It is not
run where the accepts schema has said the same already (`sure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import SchemaValidator

from streamguard.models.accepts import text_schema
from streamguard.models.core import (
    FIELDS,
    NOTHING,
    Config,
    Core,
    Definitions,
    extras,
    fields,
    is_strict,
    needs_data,
    own_config,
)
from streamguard.viability.syntax.grammar import ANY, FALSE, NULL, NUMBER, STRING, TRUE

_CONSTRAINTS: Final = (
    "ge",
    "gt",
    "le",
    "lt",
    "multiple_of",
    "max_digits",
    "decimal_places",
    "min_length",
    "max_length",
    "pattern",
)


class Place:
    """One node of the model: what judges a value there, and what lies below."""

    __slots__ = (
        "_config",
        "_core",
        "_definitions",
        "_validator",
        "active",
        "items",
        "judged",
        "members",
        "postponed",
        "rest",
        "runs",
        "sure",
        "wanted",
    )

    def __init__(self, core: Core, config: Config, definitions: Definitions) -> None:
        self._core = core
        self._config = config
        self._definitions = definitions
        self._validator: SchemaValidator | None = None
        self.runs = False
        """Whether the value itself is judged when it closes."""
        self.postponed = False
        """Whether it cannot be judged by itself: a validator wants the object around it."""
        self.sure = NULL
        """Kinds of values (bits) of which the accepts schema's yes is Pydantic's yes."""
        self.members: Mapping[str, Place | None] = {}
        """An object's members by name."""
        self.rest: Place | None = None
        """An object's other members, or an array's other items."""
        self.items: tuple[Place, ...] = ()
        """An array's first items."""
        self.active = False
        """Whether anything is judged here or below."""
        self.judged = 0
        """Kinds of values that are judged when they close."""
        self.wanted = STRING
        """Kinds of values whose text is kept: those, and strings, which may hold half a character."""

    def below(self, key: str | int) -> Place | None:
        """Return the place of a member or an item."""
        if isinstance(key, int):
            return self.items[key] if key < len(self.items) else self.rest
        return self.members.get(key, self.rest)

    def judge(self, text: str) -> Any:
        """Validate a value by its own JSON text.

        :raises pydantic.ValidationError: the value does not pass.
        :raises Exception: whatever a validator raises that cannot be run by itself.
        """
        if self._validator is None:
            needed = self._definitions.reachable(self._core)
            core: Any = self._core
            if needed:
                core = {"type": "definitions", "schema": core, "definitions": needed}
            self._validator = SchemaValidator(core, dict(self._config))  # type: ignore[arg-type]  # as read
        return self._validator.validate_json(text)


class PlacesOf:
    """Finds the places of one core schema."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._known: dict[tuple[int, int], Place | None] = {}

    def root(self, core: Core) -> Place | None:
        """Return the place of the whole, or `None` if nothing is judged early."""
        root = self._place(core, NOTHING)
        places = [place for place in self._known.values() if place is not None]
        changed = True
        while changed:
            changed = False
            for place in places:
                below = (*place.members.values(), place.rest, *place.items)
                if not place.active and (place.runs or any(one is not None and one.active for one in below)):
                    place.active = changed = True
        if root is None or not root.active:
            return None
        for place in places:
            place.members = {name: one if one and one.active else None for name, one in place.members.items()}
        return root

    def _place(self, core: Core, config: Config) -> Place | None:
        """The place of a schema; `None` if a failure there proves nothing."""
        key = id(core), id(config)
        if key in self._known:
            return self._known[key]
        place = self._known[key] = Place(core, config, self._definitions)
        place.postponed = needs_data(core, self._definitions)
        if self._fill(place, core, config):
            return place
        self._known[key] = None
        return None

    def _fill(self, place: Place, core: Core, config: Config) -> bool:
        """Walk inwards through what only narrows, to what the value is."""
        own = False
        null = 0
        while True:
            core = self._definitions.unwrapped(core)
            kind = core["type"]
            if kind == "default":
                if core.get("on_error", "raise") != "raise":
                    return False
                core = core["schema"]
            elif kind == "nullable":
                null = 0 if own else NULL
                core = core["schema"]
            elif kind == "function-after":
                own = True
                core = core["schema"]
            elif kind == "json-or-python":
                core = core["json_schema"]
            elif kind in ("model", "dataclass") and not core.get("custom_init"):
                own = own or core.get("post_init") not in (None, False)
                config = own_config(core, config)
                core = core["schema"]
            else:
                break
        if kind in FIELDS:
            own = self._fields(place, core, own_config(core, config)) or own
            place.sure = 0 if own else ANY
        elif kind in ("list", "set", "frozenset"):
            if core.get("items_schema") is not None:
                place.rest = self._place(core["items_schema"], config)
            place.sure = 0 if own else ANY
        elif kind == "tuple":
            own = self._tuple(place, core, config) or own
            place.sure = 0 if own else ANY
        elif kind == "dict":
            own = self._dict(place, core, config) or own
            place.sure = 0 if own else ANY
        else:
            place.sure = (0 if own else _sure(core, config)) | null
        place.runs = place.sure != ANY and not place.postponed
        place.judged = ANY & ~place.sure if place.runs else 0
        place.wanted = place.judged | STRING
        return True

    def _fields(self, place: Place, core: Core, config: Config) -> bool:
        """The members. Whether the object must also be judged as one."""
        members: dict[str, Place | None] = {}
        heads: dict[str, int] = {}
        own = False
        listed = list(fields(core, config))
        for names, _ in listed:
            for head in names.heads:
                heads[head] = heads.get(head, 0) + 1
        for names, field in listed:
            if names.plain is None or len(names.heads) > 1 or heads[names.heads[0]] > 1:
                own = True
            place_below = self._place(field["schema"], config)
            if needs_data(field["schema"], self._definitions):
                own = True
            if names.plain is not None and heads[names.plain] == 1:
                members[names.plain] = place_below
        for head in heads:
            members.setdefault(head, None)
        place.members = members
        _, extra = extras(core, config)
        if extra is not None:
            place.rest = self._place(extra, config)
        return own or core.get("extras_keys_schema") is not None

    def _tuple(self, place: Place, core: Core, config: Config) -> bool:
        items = core["items_schema"]
        variadic = core.get("variadic_item_index")
        first = items if variadic is None else items[:variadic]
        below = [self._place(item, config) for item in first]
        known = [one for one in below if one is not None]
        if len(known) == len(below):
            place.items = tuple(known)
        if variadic is not None and variadic == len(items) - 1 and len(known) == len(below):
            place.rest = self._place(items[variadic], config)
        return len(known) != len(below) or (variadic is not None and variadic != len(items) - 1)

    def _dict(self, place: Place, core: Core, config: Config) -> bool:
        if core.get("values_schema") is not None:
            place.rest = self._place(core["values_schema"], config)
        keys = core.get("keys_schema")
        if keys is None:
            return False
        keys = self._definitions.unwrapped(keys)
        if keys["type"] == "any":
            return False
        return not (keys["type"] == "str" and text_schema(keys, config)[1])


def _sure(core: Core, config: Config) -> int:
    """Kinds of scalars of which the accepts schema says all that Pydantic would."""
    kind = core["type"]
    constrained = any(core.get(key) is not None for key in _CONSTRAINTS)
    if kind == "str":
        return STRING if text_schema(core, config)[1] else 0
    if kind in ("int", "float"):
        simple = all(type(core.get(key)) in (int, type(None)) for key in ("ge", "gt", "le", "lt"))
        many = core.get("multiple_of") is not None and (kind == "float" or type(core["multiple_of"]) is not int)
        limited = config.get("allow_inf_nan", True) is False or core.get("allow_inf_nan", True) is False
        return NUMBER if simple and not many and not limited else 0
    if kind == "decimal":
        return 0 if constrained else NUMBER
    if kind == "bool":
        return TRUE | FALSE
    if kind == "any":
        return ANY
    if kind == "none":
        return NULL
    if kind == "literal":
        return STRING if all(type(value) is str for value in core["expected"]) else 0
    if kind in ("date", "time", "datetime", "timedelta") and is_strict(core, config):
        return 0
    return 0
