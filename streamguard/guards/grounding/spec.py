"""One entry of `json.grounded`: which values must stand in the source, and how they are compared.

In charge of what an entry may say. It knows neither sources nor documents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from streamguard.files.json_pointer import Path, parse_pointer
from streamguard.guards.base import Spec
from streamguard.guards.grounding.search import Edges
from streamguard.guards.knobs import Items

Ignore = Literal["case", "space", "dashes", "quotes", "markup", "sign"]

USUAL: Final[tuple[Ignore, ...]] = ("case", "space", "dashes", "quotes")
"""What does not count in texts, unless an entry says otherwise."""


def _place(place: Any) -> Any:
    """A place as it is written, or why it is none."""
    if place is None or place == "request" or (isinstance(place, str) and _ROW.fullmatch(place)):
        return place
    raise ValueError(f"must be request, or row.FIELD for a field of a job's row, such as row.text, not {place!r}")


_ROW: Final = re.compile(r"row(\.[^.\s]+)+")


class Grounded(Spec):
    """Values that must stand in the source: abort at the first character with which one occurs nowhere in it.

    For what is copied: names, identifiers, quotations, amounts. Never for what is summarised, translated, computed,
    chosen from a list or written in another form than the source has.

    ```python
    JsonDocument(grounded=[Grounded(at="/supplier"), Grounded(at="/lines/*/amount", as_="number")])
    ```
    """

    model_config = ConfigDict(validate_by_name=True)

    at: str
    """A JSON Pointer of the values. `*` as a part stands for every item or member, as in `/lines/*/sku`."""
    in_: Annotated[
        Annotated[str, Field(pattern=r"^(request|row(\.[^.\s]+)+)$")] | None, Field(alias="in"), BeforeValidator(_place)
    ] = None
    """Where the source is: `row.FIELD`, a field of a job's row, or `request`, the text of the request's user messages.
    Left out: the text that the call was given (`source_text`), in a job the row's `text`, and else the request."""
    between: Annotated[Items[str], Field(max_length=2)] = ()
    """Two marks, such as `["<doc>", "</doc>"]`: only what stands between them in the request is the source."""
    ignore: Items[Ignore] = ()
    """What does not count. Of texts: `case`, `space`, `dashes`, `quotes`, `markup`; left out, the first four. Of
    numbers: `sign`."""
    edges: Edges = "any"
    """Where a text may begin and end in the source: `any`, or `word`, where words do. For identifiers."""
    as_: Annotated[Literal["text", "number", "date"], Field(alias="as")] = "text"
    """How values are compared: as texts, or by the numbers or dates that they and the source have, however they are
    written."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """How far a number may be from one of the source."""
    mode: Literal["observe"] | None = None
    """`observe`: record the first value that does not stand in the source, and let the answer pass."""
    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            at: str,
            in_: str | None = None,
            between: Sequence[str] = (),
            ignore: Sequence[Ignore] = (),
            edges: Edges = "any",
            as_: Literal["text", "number", "date"] = "text",
            tolerance: float = 0,
            mode: Literal["observe"] | None = None,
        ) -> None: ...

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parse_pointer(self.at)
        if self.between and (len(self.between) != 2 or not all(self.between)):
            raise ValueError('between must be two marks, such as ["<doc>", "</doc>"]')
        if self.between and self.in_ != "request":
            raise ValueError("between cuts the source out of the request: it needs in: request")
        if self.as_ != "text":
            if self.edges != "any":
                raise ValueError(f"edges is about texts, and this is as: {self.as_}")
            other = [one for one in self.ignore if self.as_ != "number" or one != "sign"]
            if other:
                allowed = "of numbers only sign can be ignored" if self.as_ == "number" else "of dates nothing"
                raise ValueError(f"ignore: {other[0]} is about texts, and this is as: {self.as_}; {allowed}")
        elif "sign" in self.ignore:
            raise ValueError("ignore: sign is about numbers: it needs as: number")
        if self.tolerance and self.as_ != "number":
            raise ValueError("tolerance is about numbers: it needs as: number")
        return self

    @property
    def path(self) -> Path:
        """The parts of `at`."""
        return parse_pointer(self.at)

    @property
    def ignored(self) -> tuple[str, ...]:
        """What does not count, sorted."""
        chosen = self.ignore if "ignore" in self.model_fields_set else USUAL
        return tuple(sorted(chosen))

    @property
    def slack(self) -> Decimal:
        """The tolerance, as it is written."""
        return Decimal(repr(self.tolerance))
