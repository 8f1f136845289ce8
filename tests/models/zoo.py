"""Types of every kind that Pydantic validates, each with documents that it accepts, and documents made to trouble it."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from dataclasses import field as dataclass_field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from re import Pattern
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    NonPositiveFloat,
    PastDate,
    PlainValidator,
    PositiveInt,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    StringConstraints,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.experimental.pipeline import validate_as
from typing_extensions import TypeAliasType, TypedDict


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Lenient(Enum):
    YES = "yes"
    NO = "no"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls.NO


class Mixed(Enum):
    ONE = 1
    TWO = "two"


class Point(NamedTuple):
    x: int
    y: int


class Entry(TypedDict, total=False):
    name: str
    number: int


@dataclass
class Plain:
    a: int
    b: str = "x"


@pydantic_dataclass
class Checked:
    a: Annotated[int, Field(gt=0)]
    b: list[str] = Field(default_factory=list)

    def __post_init__(self) -> None:
        if self.a == 13:
            raise ValueError("unlucky")


class Scalars(BaseModel):
    i: int = Field(ge=0, le=100)
    f: float = Field(gt=-1.5, lt=1e6)
    b: bool
    s: str = Field(min_length=1, max_length=5)
    n: int | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    i: int
    f: float
    b: bool
    d: date
    u: UUID | None = None


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, str_max_length=4)
    s: str
    t: Annotated[str, StringConstraints(to_upper=True, pattern=r"^[A-Za-z]+$")] = "A"
    u: Annotated[str, Field(pattern=r"^a+$")] = "a"


class Numbers(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)
    s: str
    d: Decimal = Field(ge=Decimal("0.1"), max_digits=5, decimal_places=2)
    m: int = Field(multiple_of=3)
    big: int = Field(default=0, le=2**60)
    bigger: float = Field(default=0.0, le=float(2**60))


class Times(BaseModel):
    d: date
    t: datetime
    c: time | None = None
    x: timedelta | None = None


class Words(BaseModel):
    u: UUID
    url: AnyUrl
    raw: bytes = Field(max_length=4)
    secret: SecretStr = SecretStr("")
    address: IPv4Address | None = None
    inner: Json[list[int]] | None = None


class Choices(BaseModel):
    colour: Colour
    size: Size
    lenient: Lenient = Lenient.NO
    mixed: Mixed = Mixed.ONE
    word: Literal["a", "b"] = "a"
    one: Literal[1, "x"] = 1
    flag: Literal[True] = True


class Containers(BaseModel):
    items: list[int] = Field(min_length=1, max_length=4)
    unique: set[int] = Field(default_factory=set, min_length=0, max_length=2)
    frozen: frozenset[str] = frozenset()
    pair: tuple[int, str] = (1, "a")
    many: tuple[int, ...] = ()
    table: dict[str, int] = Field(default_factory=dict, max_length=2)
    keys: dict[int, str] = Field(default_factory=dict, max_length=1)
    short: dict[Annotated[str, Field(max_length=3)], float] = Field(default_factory=dict)


class Other(BaseModel):
    point: Point
    entry: Entry
    plain: Plain | None = None
    checked: Checked | None = None


class Before(BaseModel):
    i: Annotated[int, BeforeValidator(lambda value: 1 if value == "one" else value)]
    w: Annotated[int, WrapValidator(lambda value, inner: 0 if value is None else inner(value))] = 0
    p: Annotated[Any, PlainValidator(lambda value: value)] = None
    documented: Annotated[int, WithJsonSchema({"type": "integer", "maximum": 3})] = 0
    extra: int = Field(default=0, json_schema_extra={"maximum": 3})


class WholeBefore(BaseModel):
    a: int
    b: int

    @model_validator(mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return {"a": value[0], "b": value[1]} if isinstance(value, list) and len(value) == 2 else value


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True)
    a: int = Field(validation_alias="A")
    b: int = Field(default=0, validation_alias=AliasChoices("bee", AliasPath("nested", 0)))
    c: str = Field(default="", validation_alias=AliasPath("deep", "er"))


class Named(BaseModel):
    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True, extra="forbid")
    a: int = Field(validation_alias="A")


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]
    a: str


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Pets(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")
    guess: (
        Annotated[
            Annotated[Cat, Tag("c")] | Annotated[Dog, Tag("d")],
            Discriminator(lambda value: "c" if "lives" in (value if isinstance(value, dict) else {}) else "d"),
        ]
        | None
    ) = None
    either: int | str | list[int] = 0


class Tree(BaseModel):
    name: str
    children: list[Tree] = []

    @field_validator("name")
    @classmethod
    def named(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("a bad name")
        return value


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    content: T
    label: str | None = None


class Range(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Line(BaseModel):
    qty: int
    price: float
    total: Decimal

    @model_validator(mode="after")
    def multiplies(self) -> Line:
        if self.qty * self.price != self.total:
            raise ValueError("the total is wrong")
        return self


class Informed(BaseModel):
    start: int
    end: int
    ranges: list[Range] = []

    @field_validator("end")
    @classmethod
    def later(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data["start"]:
            raise ValueError("the end is before the start")
        return value


class Initialised(BaseModel):
    a: int

    def __init__(self, **data: Any) -> None:
        super().__init__(a=data.get("a", data.get("z", 0)))


class Forgiving(BaseModel):
    items: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    after: Annotated[int, AfterValidator(lambda value: value + 1)] = 0
    even: Annotated[int, AfterValidator(lambda value: value if value % 2 == 0 else {}[value])] = 0


class Sequences(BaseModel):
    queue: deque[int] = Field(default_factory=deque, max_length=3)
    sequence: Sequence[int] = ()
    iterable: Iterable[int] = ()
    mapping: Mapping[str, int] = Field(default_factory=dict)
    ordered: OrderedDict[str, int] = Field(default_factory=OrderedDict)
    default: defaultdict[str, list[int]] = Field(default_factory=lambda: defaultdict(list))
    counter: Counter[str] = Field(default_factory=Counter)


class Systems(BaseModel):
    path: Path
    pattern: Pattern[str] = re.compile("")
    size: ByteSize = ByteSize(0)
    fraction: Fraction = Fraction(0)
    number: complex = 0j
    secret: SecretBytes = SecretBytes(b"")
    network: IPv4Network | None = None


class Bounded(BaseModel):
    positive: PositiveInt
    negative: NonPositiveFloat = 0.0
    past: PastDate | None = None
    money: Annotated[Decimal, Field(gt=0, lt=Decimal("1e20"))] = Decimal(1)
    hours: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(0)
    half: Annotated[float, Field(multiple_of=0.5)] = 0.5
    huge: Annotated[int, Field(ge=-(2**70), le=2**70)] = 0
    finite: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class PostInit(BaseModel):
    a: int
    _private: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any, /) -> None:
        if self.a == 3:
            raise ValueError("three is taken")


class Data(BaseModel):
    a: int = 1
    b: int = Field(default_factory=lambda data: data["a"] + 1)
    c: Annotated[int, Field(validate_default=True)] = 5


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)
    first_name: str
    last_name: str = Field(default="x", serialization_alias="surname")

    @computed_field
    def full_name(self) -> str:
        return f"{self.first_name} {self.last_name}"


class Values(BaseModel):
    model_config = ConfigDict(use_enum_values=True, str_to_lower=True, str_min_length=1)
    colour: Colour
    word: str = "a"
    keys: dict[Colour, int] = Field(default_factory=dict)
    keyed: dict[Literal["a", "b"], bool] = Field(default_factory=dict)


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Strict
    lax: Annotated[int, Field(strict=False)] = 0
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(default_factory=list, max_length=3)


@pydantic_dataclass(kw_only=True, slots=True, config=ConfigDict(extra="forbid"))
class Slotted:
    a: int
    b: InitVar[int] = 0
    c: int = dataclass_field(init=False, default=3)


class Required(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", str_strip_whitespace=True)  # type: ignore[misc]
    name: Annotated[str, Field(max_length=3)]
    number: NotRequired[int]


class Folder(BaseModel):
    files: dict[str, File] = Field(default_factory=dict)


class File(BaseModel):
    size: int = Field(ge=0)
    folder: Folder | None = None


class Flags(IntFlag):
    READ = 1
    WRITE = 2


class Flagged(BaseModel):
    flags: Flags
    letters: list[Annotated[str, StringConstraints(pattern=r"^\p{L}+$", max_length=4)]] = []


class Chained(BaseModel):
    piped: Annotated[str, AfterValidator(str.strip), Field(max_length=3)] = ""
    shouted: Annotated[str, AfterValidator(str.upper), AfterValidator(lambda value: value)] = ""
    nested: Annotated[list[int] | None, AfterValidator(lambda value: value)] = None
    pipeline: Annotated[int, validate_as(int).gt(2) | validate_as(str).transform(len)] = 3


class Failing(BaseModel):
    a: Annotated[int, Field(ge=0)]
    b: Annotated[int | None, WrapValidator(lambda value, inner: inner(value) if value != "skip" else None)] = None

    @field_validator("a", mode="after")
    @classmethod
    def odd(cls, value: int) -> int:
        assert value % 2 == 1, "must be odd"
        return value


class Messages(BaseModel):
    kind: Literal["a", "b", 3, True]
    either: Annotated[int | bool, Field(union_mode="left_to_right")] = 0
    smart: float | int | str | None = None
    both: list[int] | dict[str, int] = []


Money = NewType("Money", Decimal)
Tree2 = TypeAliasType("Tree2", "dict[str, Tree2] | int")


class Strings(RootModel[list[str]]):
    pass


ZOO: dict[str, tuple[Any, list[Any]]] = {
    "scalars": (
        Scalars,
        [{"i": 1, "f": 0.5, "b": True, "s": "abc", "n": None}, {"i": "12", "f": "2", "b": "on", "s": "é"}],
    ),
    "strict": (Strict, [{"i": 1, "f": 1.5, "b": False, "d": "2026-01-02", "u": None}]),
    "stripped": (Stripped, [{"s": " abcd  ", "t": "ab", "u": " aa "}]),
    "numbers": (Numbers, [{"s": 12, "d": 1.25, "m": 9, "big": 5, "bigger": 9007199254740993}]),
    "times": (
        Times,
        [{"d": "2026-01-02", "t": "2026-01-02T03:04:05Z", "c": "03:04", "x": "P1D"}, {"d": 86400, "t": 1700000000}],
    ),
    "words": (
        Words,
        [
            {
                "u": "urn:uuid:12345678-1234-5678-1234-567812345678",
                "url": "https://example.org/a b",
                "raw": "ab",
                "secret": "x",
                "address": "127.0.0.1",
                "inner": "[1, 2]",
            }
        ],
    ),
    "choices": (
        Choices,
        [{"colour": "red", "size": "1", "lenient": 5, "mixed": "two", "word": "b", "one": True, "flag": True}],
    ),
    "containers": (
        Containers,
        [
            {
                "items": [1, "2"],
                "unique": [1, 1, 1, 2],
                "frozen": ["a", "a"],
                "pair": [1, "x"],
                "many": [1, 2, 3],
                "table": {"a": 1},
                "keys": {"1": "a", "01": "b"},
                "short": {"abc": 1.5},
            }
        ],
    ),
    "other": (Other, [{"point": [1, 2], "entry": {"name": "x"}, "plain": {"a": 1}, "checked": {"a": 5, "b": ["x"]}}]),
    "before": (Before, [{"i": "one", "w": None, "p": [1], "documented": 99, "extra": 99}]),
    "whole-before": (WholeBefore, [[1, 2], {"a": 1, "b": "2"}]),
    "aliased": (
        Aliased,
        [{"A": 1, "bee": 2, "deep": {"er": "x"}}, {"a": 1, "b": 2, "c": "y"}, {"A": 1, "nested": [5]}],
    ),
    "named": (Named, [{"a": 1}]),
    "extra": (Extra, [{"a": "x", "b": 1, "c": "2"}]),
    "pets": (Pets, [{"pet": {"kind": "cat", "lives": 9}, "guess": {"kind": "dog", "name": "x"}, "either": [1]}]),
    "tree": (Tree, [{"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]}]),
    "box": (Box[list[Range]], [{"content": [{"low": 1, "high": 2}, {"low": 0, "high": 0}], "label": "x"}]),
    "range": (Range, [{"low": 1, "high": 2}]),
    "informed": (Informed, [{"start": 1, "end": 3, "ranges": [{"low": 1, "high": 2}]}]),
    "initialised": (Initialised, [{"z": 3}, {"a": 1}]),
    "forgiving": (Forgiving, [{"items": [1, 2], "after": 1, "even": 2}]),
    "strings": (Strings, [["a", "b"]]),
    "list": (list[Range], [[{"low": 1, "high": 2}]]),
    "entry": (Entry, [{"name": "x", "number": 3}]),
    "plain": (Plain, [{"a": 1, "b": "x"}]),
    "checked": (Checked, [{"a": 1, "b": ["x"]}]),
    "union": (Cat | Dog | int, [{"kind": "cat", "lives": 3}, 5, {"kind": "dog", "name": "x"}]),
    "map": (dict[str, Range], [{"a": {"low": 1, "high": 2}}]),
    "optional": (Range | None, [None, {"low": 1, "high": 2}]),
    "point": (Point, [[1, 2], {"x": 1, "y": 2}]),
    "number": (Annotated[int, Field(ge=3)], [5, "7"]),
    "any": (Any, [1, {"a": [1]}]),
    "sequences": (
        Sequences,
        [
            {
                "queue": [1, 2],
                "sequence": ["1"],
                "iterable": [1, "x"],
                "mapping": {"a": 1},
                "ordered": {"b": 2},
                "default": {"c": [1]},
                "counter": {"d": 3},
            }
        ],
    ),
    "systems": (
        Systems,
        [{"path": "/tmp/x", "pattern": "a+", "size": "1KB", "fraction": "1/3", "number": "1+2j", "secret": "s"}],
    ),
    "bounded": (
        Bounded,
        [
            {
                "positive": 1,
                "negative": -1,
                "past": "2020-01-01",
                "money": "1.5",
                "hours": "PT1H",
                "half": 1.5,
                "huge": 2**69,
            }
        ],
    ),
    "post-init": (PostInit, [{"a": 1}]),
    "data": (Data, [{"a": 1, "b": 2}, {}]),
    "computed": (Computed, [{"firstName": "a", "lastName": "b"}]),
    "values": (Values, [{"colour": "red", "word": "A", "keys": {"blue": 1}, "keyed": {"a": "yes"}}]),
    "nested": (
        Nested,
        [
            {
                "inner": {"i": 1, "f": 1.0, "b": True, "d": "2026-01-02"},
                "lax": "3",
                "pets": [{"kind": "cat", "lives": 1}],
            }
        ],
    ),
    "slotted": (Slotted, [{"a": 1, "b": 2}]),
    "required": (Required, [{"name": " abc ", "number": 1}]),
    "folder": (Folder, [{"files": {"a": {"size": 1, "folder": {"files": {"b": {"size": 2}}}}}}]),
    "flagged": (Flagged, [{"flags": 3, "letters": ["äb"]}]),
    "chained": (Chained, [{"piped": " ab ", "shouted": "x", "nested": [1], "pipeline": "ab"}]),
    "failing": (Failing, [{"a": 3, "b": "skip"}]),
    "messages": (Messages, [{"kind": 3, "either": True, "smart": "1.5", "both": {"a": 1}}]),
    "money": (Money, [1.5, "2"]),
    "alias": (Tree2, [{"a": {"b": 1}}, 3]),
    "sets": (set[frozenset[int]], [[[1, 1], [2]]]),
    "fixed": (tuple[int, Range, str | None], [[1, {"low": 1, "high": 2}, None]]),
    "tables": (list[dict[str, list[Line]]], [[{"a": [{"qty": 1, "price": 2, "total": 2}]}]]),
}
"""Name → a type, and documents that it accepts."""
