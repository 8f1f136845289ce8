"""`python -m bench.prefix_report`: how exact, how safe, how early and how dear the dead-prefix detection is.

Prints one table per question. Reads the shared test data beside the project, or where STREAMGUARD_DATA says.
"""

from __future__ import annotations

import base64
import json
import lzma
import os
import random
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamguard.viability import Dead, Prefix, Schema, SyntaxPrefix, compile_schema

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STREAMGUARD_DATA") or ROOT.parent / "shared" / "data")

Split = Callable[[str], Iterable[str]]


def whole(text: str) -> Iterable[str]:
    return [text] if text else []


def each(text: str) -> Iterable[str]:
    return text


def pieces(text: str) -> Iterator[str]:
    rng = random.Random(text)
    i = 0
    while i < len(text):
        size = rng.choice((1, 2, 3, 4, 7, 20))
        yield text[i : i + size]
        i += size


SPLITS: tuple[Split, ...] = (whole, each, pieces)


def feed(prefix: Prefix, text: str, split: Split) -> Dead | None:
    for piece in split(text):
        if dead := prefix.feed(piece):
            return dead
    return prefix.close()


def at(dead: Dead | None) -> int | str | None:
    return None if dead is None else dead.offset


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    text = lzma.decompress(path.read_bytes()).decode() if path.suffix == ".xz" else path.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def line(what: str, result: object) -> None:
    print(f"  {what:<66} {result}")


def head(title: str) -> None:
    print(f"\n{title}")


def syntax() -> None:
    head("Syntax: JSONTestSuite (limits off, duplicates allowed; whole, per character, random pieces)")
    exact = total = 0
    for row in rows("json_test_suite.jsonl.xz"):
        try:
            text = base64.b64decode(row["b64"]).decode() if "b64" in row else None
        except UnicodeDecodeError:
            continue
        if text is None:
            continue
        total += 1
        got = {
            str(at(feed(SyntaxPrefix(duplicate_names="allow", max_depth=None, max_digits=None), text, split)))
            for split in SPLITS
        }
        if got == {str(row["dead_at"])}:
            exact += 1
        else:
            line(f"not exact: {row['name']}", f"wanted {row['dead_at']}, got {got}")
    line("files exact", f"{exact} of {total}")


def cases() -> None:
    head("Schema: cases worked out by hand (dead_prefix_cases.jsonl)")
    modes: dict[str, dict[str, Any]] = {
        "dead_at": {},
        "dead_at_dup": {"duplicate_names": "allow"},
        "dead_at_plain": {"numbers": "plain"},
    }
    for key, options in modes.items():
        exact = total = 0
        for row in rows("dead_prefix_cases.jsonl"):
            if key not in row:
                continue
            total += 1
            schema = compile_schema(row["schema"], assert_formats=bool(row.get("format_assertion")), **options)
            got = {str(at(feed(schema.prefix(), row["text"], split))) for split in SPLITS}
            if got == {str(row[key])}:
                exact += 1
            else:
                line(f"not exact: {row['id']}", f"wanted {row[key]}, got {got}")
        line(f"{key} exact", f"{exact} of {total} = {exact / total:.1%}")


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {name: shuffled(inner, rng) for name, inner in items}
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


def suite() -> dict[str, Schema]:
    head("Schema: JSON Schema Test Suite 2020-12, required (compact, pretty, shuffled; per character, random pieces)")
    found = rows("json_schema_test_suite_2020_12.jsonl.xz")
    remotes = {row["remote"]: row["schema"] for row in found if "remote" in row}
    schemas: dict[str, Schema] = {}
    aborted = missed = texts = valid_texts = end_only = 0
    shares: list[float] = []
    compiling: list[float] = []
    for row in found:
        if row.get("draft") != "draft2020-12" or row["file"].startswith("optional"):
            continue
        began = time.perf_counter()
        schema = compile_schema(row["schema"], registry=remotes)
        compiling.append(time.perf_counter() - began)
        schemas[f"{row['file']}|{row['group']}"] = schema
        for _, valid, value in row["tests"]:
            for text in (
                json.dumps(value, separators=(",", ":"), ensure_ascii=False),
                json.dumps(value, indent=2),
                json.dumps(shuffled(value, random.Random(0))),
            ):
                for split in (each, pieces):
                    dead = feed(schema.prefix(), text, split)
                    texts += 1
                    valid_texts += valid
                    aborted += valid and dead is not None
                    missed += not valid and dead is None
                    if not valid and dead is not None and split is each:
                        end_only += dead.char == "eof"
                        if dead.char != "eof":
                            shares.append(dead.char / len(text))
    line("schemas compiled", f"{len(schemas)}, median {statistics.median(compiling) * 1e3:.2f} ms")
    line("valid texts aborted at some prefix", f"{aborted} of {valid_texts}")
    line("invalid texts that stood to the end", f"{missed} of {texts - valid_texts}")
    line("invalid texts dead before the end", f"{len(shares) / (len(shares) + end_only):.1%}")
    line("median share of the text read by then", f"{statistics.median(shares):.2f}")
    return schemas


def oracle(schemas: dict[str, Schema]) -> None:
    head("Schema: against the independent oracle (certified: exact; the others: upper bounds)")
    counts = {"certified, equal": 0, "certified, earlier": 0, "certified, later": 0}
    counts |= {"upper bound, equal": 0, "upper bound, earlier": 0, "upper bound, later": 0}
    for row in rows("oracle_suite_2020_12.jsonl.xz"):
        schema = schemas.get(row.get("id", ""))
        if schema is None:
            continue
        got = at(feed(schema.prefix(), row["text"], each))
        here = row["len"] if got == "eof" else row["len"] + 1 if got is None else int(got)
        there = row["len"] if row["dead_at"] == "eof" else row["dead_at"]
        relation = "equal" if here == there else "earlier" if here < there else "later"
        kind = "certified" if row["certified"] else "upper bound"
        counts[f"{kind}, {relation}"] += 1
        if relation == "later" or (relation == "earlier" and row["certified"]):
            line(f"{row['id'][:50]} {row['test'][:30]}", f"{kind} {there}, got {got}")
    for what, count in counts.items():
        line(what, count)


def deltas(raw: bytes) -> Iterator[str]:
    for text in raw.decode().splitlines():
        if text.startswith("data:"):
            event = json.loads(text[5:])
            if event.get("type") == "content_block_delta":
                yield event["delta"].get("text") or ""


def advisory() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / "advisories" / "advisory.schema.json").read_text())
    return found


def streams() -> None:
    head("Recorded streams of a real model")
    schema = compile_schema(advisory())
    verdicts = equal = earlier = tokens = after = 0
    with zipfile.ZipFile(DATA / "real_sse" / "gemma270m-advisories.zip") as recorded:
        analysis = json.loads((DATA / "real_sse" / "analysis.json").read_text())
        for row in analysis:
            prefix = schema.prefix()
            dead = None
            fed = 0
            parts = list(deltas(recorded.read(f"{row['name']}.sse")))
            for delta in parts:
                fed += 1
                if dead := prefix.feed(delta):
                    break
            verdicts += ("dead" if dead else "ok") == row["schema"]
            tokens += row["output_tokens"]
            if dead is None:
                equal += row["schema"] == "ok"
                continue
            after += round(row["output_tokens"] * (1 - fed / len(parts)))
            if dead.char == row.get("schema_dead_char"):
                equal += 1
            else:
                earlier += isinstance(dead.char, int) and dead.char < row["schema_dead_char"]
                line(f"{row['name']}: analysis {row['schema_dead_char']}", f"got {dead.char} ({dead.keyword})")
    line("verdict as analysed", f"{verdicts} of {len(analysis)}")
    line("dead character as analysed; nearer", f"{equal}; {earlier}")
    line(
        "tokens generated after the dead character (estimated by deltas)", f"{after} of {tokens} = {after / tokens:.0%}"
    )


def per_delta(make: Callable[[], Prefix], parts: list[str], repeat: int = 7) -> float:
    """Microseconds per piece, the best of some runs: the machine is shared."""
    best = float("inf")
    loops = max(1, 20_000 // len(parts))
    for _ in range(repeat):
        began = time.perf_counter()
        for _ in range(loops):
            prefix = make()
            for part in parts:
                prefix.feed(part)
        best = min(best, time.perf_counter() - began)
    return best / loops / len(parts) * 1e6


def fours(text: str) -> list[str]:
    return [text[i : i + 4] for i in range(0, len(text), 4)]


def cost() -> None:
    head("Cost, microseconds per 4-character delta")
    began = time.perf_counter()
    schema = compile_schema(advisory())
    line("compile the advisory schema (ms)", f"{(time.perf_counter() - began) * 1e3:.2f}")
    document = {
        "package": "some-package",
        "kind": "vulnerability",
        "categories": ["memory-corruption", "denial-of-service"],
        "fixed_in": "1.2.3",
        "functions": ["crate::module::function", "other::name"],
        "alternatives": ["one", "two"],
        "summary": "What is wrong with this package, in some two hundred characters, as such summaries go. " * 2,
    }
    parts = fours(json.dumps(document, indent=1))
    alone, both = per_delta(SyntaxPrefix, parts), per_delta(schema.prefix, parts)
    line("advisory: syntax alone; schema on top", f"{alone:.2f}; {both - alone:.2f}")
    mixed = fours(
        json.dumps([{"name": "word " * 6, "n": i, "ok": True, "tags": ["a", "bc"], "x": 1.5} for i in range(999)])
    )
    line("many short values: syntax alone", f"{per_delta(SyntaxPrefix, mixed, 3):.2f}")
    for what, one in (
        ("string, syntax alone", None),
        ("string with maxLength", {"type": "string", "maxLength": 10**7}),
        ("string with a pattern", {"type": "string", "pattern": "^[a-z ]+$"}),
        ("string with a pattern of groups", {"type": "string", "pattern": "^([a-z]+ ?)+$"}),
    ):
        make = SyntaxPrefix if one is None else compile_schema(one).prefix
        costs = [
            per_delta(make, fours('"' + "lorem ip" * (size // 8)), 3) for size in (1_000, 10_000, 100_000, 1_000_000)
        ]
        line(f"{what} of 1 KB, 10 KB, 100 KB, 1 MB", ", ".join(f"{c:.2f}" for c in costs))


def main() -> None:
    """Print the whole report."""
    if not DATA.exists():
        sys.exit(f"no test data at {DATA.name}: set STREAMGUARD_DATA to its folder")
    syntax()
    cases()
    oracle(suite())
    streams()
    cost()


if __name__ == "__main__":
    main()
