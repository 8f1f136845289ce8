"""What watching a document costs, by schema and by length. A part of `bench.prefix_report`.

Microseconds of CPU per piece of four characters, the best of some runs, since the machine may be shared. Quote ratios.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from streamguard.viability import Prefix, SyntaxPrefix, compile_schema

Row = tuple[str, str]


def fours(text: str) -> list[str]:
    return [text[i : i + 4] for i in range(0, len(text), 4)]


def per_piece(make: Callable[[], Prefix], parts: list[str], repeat: int = 5) -> float:
    best = float("inf")
    loops = max(1, 10_000 // len(parts))
    for _ in range(repeat):
        began = time.process_time()
        for _ in range(loops):
            feed = make().feed
            for part in parts:
                feed(part)
        best = min(best, time.process_time() - began)
    return best / loops / len(parts) * 1e6


def milliseconds(what: Callable[[], Any], repeat: int = 5) -> float:
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        what()
        best = min(best, time.process_time() - began)
    return best * 1e3


def on_top(schema: Any, text: str) -> str:
    """Of a schema, over the syntax alone."""
    parts = fours(text)
    alone = per_piece(SyntaxPrefix, parts, 3)
    return f"{per_piece(compile_schema(schema).prefix, parts, 3) - alone:.2f}"


def strings() -> Iterator[Row]:
    """One long string: the cost may not grow with it."""
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    for what, schema in (
        ("syntax alone", None),
        ("maxLength", {"type": "string", "maxLength": 10**7}),
        ("pattern ^[a-z ]+$", {"type": "string", "pattern": "^[a-z ]+$"}),
        ("pattern ^([a-z]+ ?)+$", {"type": "string", "pattern": "^([a-z]+ ?)+$"}),
        ("pattern ^(?!x)[a-z ]+$, no automaton", {"type": "string", "pattern": "^(?!x)[a-z ]+$"}),
    ):
        make = SyntaxPrefix if schema is None else compile_schema(schema).prefix
        costs = [per_piece(make, fours('"' + "lorem ip" * (size // 8)), 3) for size in sizes]
        yield f"a string of 1 KB, 10 KB, 100 KB, 1 MB: {what}", ", ".join(f"{c:.2f}" for c in costs)


def documents() -> Iterator[Row]:
    """Long documents of many small values."""
    for count in (10, 100, 1000, 5000):
        text = json.dumps([{"name": "word " * 6, "n": i, "ok": True, "tags": ["a", "bc"]} for i in range(count)])
        item = {"type": "object", "required": ["name"], "properties": {"name": {"maxLength": 99}, "n": {"minimum": 0}}}
        yield f"an array of {count} objects, {len(text) // 1000} KB, on top", on_top({"items": item}, text)


def shapes() -> Iterator[Row]:
    """Kinds of schemas, on top of the syntax."""
    rng = random.Random(1)
    whole = json.dumps([rng.randint(0, 999_999) for _ in range(500)])
    yield "integers", on_top({"items": {"type": "integer"}}, whole)
    yield "integers from 0 to a million", on_top({"items": {"type": "integer", "minimum": 0, "maximum": 10**6}}, whole)
    for count in (10, 1000):
        listed = json.dumps([rng.randrange(count) for _ in range(500)])
        yield f"one of {count} integers", on_top({"items": {"enum": list(range(count))}}, listed)
        names = [f"value {i}" for i in range(count)]
        yield f"one of {count} strings", on_top({"items": {"enum": names}}, json.dumps(rng.choices(names, k=300)))
    shared = {f"p{i}": {"type": "string"} for i in range(10)}
    plain = [{f"p{i}": f"some text number {i}" for i in range(10)} for _ in range(20)]
    for count in (4, 40):
        open_ = [{"properties": shared | {f"q{i}": {"type": "string"}}} for i in range(count)]
        yield f"anyOf {count} open objects", on_top({"items": {"anyOf": open_}}, json.dumps(plain))
        needing = [{"properties": shared, "required": [f"q{i}"]} for i in range(count)]
        text = json.dumps([one | {"q2": "x"} for one in plain])
        yield f"oneOf {count} objects told apart by a required name", on_top({"items": {"oneOf": needing}}, text)
        kinds = [{"properties": shared | {"kind": {"const": f"k{i}"}}, "required": ["kind"]} for i in range(count)]
        text = json.dumps([{"kind": "k2"} | one for one in plain])
        yield f"oneOf {count} objects told apart by a kind", on_top({"items": {"oneOf": kinds}}, text)


def ends() -> Iterator[Row]:
    """What is done once: compiling, and the final judgement of the whole document."""
    yield "compile an enum of 100,000 integers (ms)", f"{milliseconds(lambda: _enum(int), 1):.0f}"
    yield "compile an enum of 100,000 strings (ms)", f"{milliseconds(lambda: _enum(str), 1):.0f}"
    item = {"type": "object", "required": ["name"], "properties": {"name": {"maxLength": 99}, "n": {"minimum": 0}}}
    schema = compile_schema({"type": "array", "items": item})
    for count in (1_000, 10_000):
        value = [{"name": "word " * 6, "n": i, "ok": True, "tags": ["a", "bc"]} for i in range(count)]
        text = json.dumps(value)
        parsing = milliseconds(lambda text=text: json.loads(text), 3)
        judging = milliseconds(lambda value=value: schema.validate(value), 3)
        yield f"the end of {len(text) // 1000} KB: parse, final judgement (ms)", f"{parsing:.1f}, {judging:.0f}"
    unique = compile_schema({"uniqueItems": True})
    many = [{"n": i} for i in range(10_000)]
    yield "the same, of 10,000 objects that must differ (ms)", f"{milliseconds(lambda: unique.validate(many), 3):.0f}"


def _enum(make: Callable[[int], Any]) -> None:
    compile_schema({"enum": [make(i) for i in range(100_000)]}).prefix().feed('"1' if make is str else "1")


def advisory_rows(schema: dict[str, Any], text: str) -> Iterator[Row]:
    """The schema that the recorded streams were asked for."""
    yield "compile the advisory schema (ms)", f"{milliseconds(lambda: compile_schema(schema)):.2f}"
    parts = fours(text)
    alone, both = per_piece(SyntaxPrefix, parts), per_piece(compile_schema(schema).prefix, parts)
    yield "the advisory schema: syntax alone, schema on top", f"{alone:.2f}, {both - alone:.2f}"


PARTS: tuple[Callable[[], Iterator[Row]], ...] = (strings, documents, shapes, ends)
