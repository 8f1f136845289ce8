"""JSON mappings that can stand in a frozen, hashable policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class FrozenJson(Mapping[str, Any]):
    """A JSON object that does not change: equal to any mapping with the same content, hashable by that content.

    The values must be JSON, or frozen with a telling `repr`; nested lists and objects are not to be changed.
    """

    __slots__ = ("_data", "_hash")

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = dict(data)
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._data == dict(other)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(msgspec.json.encode(self._data, order="sorted", enc_hook=repr))
        return self._hash

    def __repr__(self) -> str:
        return repr(self._data)

    def thaw(self) -> dict[str, Any]:
        """A plain dict with the same content."""
        return dict(self._data)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic takes any JSON object for this type and writes a plain dict."""
        from_mapping = core_schema.no_info_after_validator_function(
            cls, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        )
        return core_schema.json_or_python_schema(
            json_schema=from_mapping,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_mapping]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.thaw),
        )


if TYPE_CHECKING:
    JsonObject = Mapping[str, Any]
else:
    JsonObject = FrozenJson
"""The type of a field that any mapping can be given for, and that keeps it frozen."""
