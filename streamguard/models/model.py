"""A Python type as what an answer must be: `OutputType`, and everything that is read off it once, `ModelPlan`.

In charge of: which types can be used, what the model is told (the **wire** schema), what kills while an answer streams
(the **accepts** schema), what is judged as its values close (the places), and the judgement of the whole text. Pure: it
knows neither streams nor policies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from pydantic import (
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from streamguard.errors import Problem, SchemaError
from streamguard.models.accepts import AcceptsSchema
from streamguard.models.core import Definitions
from streamguard.models.following import Failure, Following, failure_of, first_failure
from streamguard.models.places import Place, PlacesOf

MAX_DEPTH: Final = 200
"""Open objects and arrays that Pydantic's JSON parser reads."""

_NO_TYPES: Final = (str, bytes, int, float, bool, Mapping, list, tuple, set, type(None))
"""Values that are no type, whatever else they are."""


def is_type(value: Any) -> bool:
    """Whether a value may be a type that Pydantic validates, and not a wrapped one."""
    return not isinstance(value, (*_NO_TYPES, OutputType))


class OutputType:
    """A type that `pydantic.TypeAdapter` takes: a model class, a dataclass, a `TypedDict`, `list[Invoice]`, a union.

    Equal and hashable by the type.
    """

    __slots__ = ("type",)

    def __init__(self, kind: Any) -> None:
        self.type = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputType) and (self.type is other.type or self._same(other.type))

    def _same(self, other: Any) -> bool:
        return bool(self.type == other) and type(self.type) is type(other)

    def __hash__(self) -> int:
        try:
            return hash(self.type)
        except TypeError:  # metadata that has no hash
            return hash(repr(self.type))

    def __repr__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The type for a person: `module:Name` of a class, else as Python writes it."""
        if isinstance(self.type, type) and not hasattr(self.type, "__origin__"):
            return f"{self.type.__module__}:{self.type.__qualname__}"
        return str(self.type)

    def plan(self) -> ModelPlan:
        """Return what is known of the type, read off it once.

        :raises SchemaError: Pydantic cannot use the type.
        """
        return _plan(self)

    @classmethod
    def of(cls, kind: Any) -> OutputType:
        """Wrap a type.

        :raises ValueError: it is a value, and no type.
        """
        if isinstance(kind, OutputType):
            return kind
        if not is_type(kind):
            raise ValueError(f"must be a type that Pydantic validates, such as a model class, not {kind!r}")
        return cls(kind)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A field of this type takes a wrapped type, and writes its name."""
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(lambda output: output.name)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """In a file a type is named."""
        return {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"}


class ModelPlan:
    """What is read off a type, once.

    :ivar wire: the JSON Schema that tells a model what to write; `None` where Pydantic can write none.
    :ivar accepts: the JSON Schema that every accepted text satisfies.
    :ivar open: what the accepts schema leaves open, each with the reason.
    """

    def __init__(self, output: OutputType) -> None:
        self.output = output
        self.adapter: TypeAdapter[Any] = _adapter(output)
        core: Any = self.adapter.core_schema
        definitions = Definitions()
        writer = AcceptsSchema(definitions)
        self.accepts: Mapping[str, Any] = writer.write(core)
        self.open: tuple[str, ...] = tuple(dict.fromkeys(writer.open))
        self._root: Place | None = PlacesOf(definitions).root(core)

    @property
    def wire(self) -> dict[str, Any] | None:
        """The JSON Schema that a model is told."""
        found = _wire(self.output)
        return None if found is None else copy.deepcopy(found)

    def following(self) -> Following | None:
        """Return the state that judges one document's places; `None` if there are none."""
        return None if self._root is None else Following(self._root)

    def validate(self, text: str) -> Validated | Failure | Raised:
        """Judge the whole text, once."""
        try:
            return Validated(self.adapter.validate_json(text))
        except ValidationError as error:
            return failure_of(error, text)
        except Exception as error:  # whatever a validator of the caller's raises
            return self._placed(text) or Raised(error)

    def _placed(self, text: str) -> Failure | None:
        """What the places alone say: a validator may raise because of a field that has failed."""
        found = None if self._root is None else first_failure(self._root, text)
        return None if found is None else msgspec.structs.replace(found, char=None)


class Validated(msgspec.Struct, frozen=True):
    """The text was accepted."""

    value: Any
    """The instance."""


class Raised(msgspec.Struct, frozen=True):
    """A validator raised something else than a `ValidationError`."""

    error: Exception


@lru_cache(maxsize=256)
def _plan(output: OutputType) -> ModelPlan:
    return ModelPlan(output)


@lru_cache(maxsize=256)
def _wire(output: OutputType) -> dict[str, Any] | None:
    try:
        return output.plan().adapter.json_schema(mode="validation", by_alias=True)
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return None


def _adapter(output: OutputType) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output.type)
        adapter.rebuild(raise_errors=True)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, TypeError) as error:
        first = str(error).partition("\n")[0]
        raise SchemaError(
            Problem(pointer="/json/schema", problem=f"Pydantic cannot validate {output.name}: {first}")
        ) from error
    return adapter
