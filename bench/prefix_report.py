"""`python -m bench.prefix_report`: how exact, how safe, how early and how dear the dead-prefix detection is.

Prints one table per question; what is not as expected is listed with the reason. Reads the test data of `tests/data`,
and the suites of others where `STREAMGUARD_DATA` says.
"""

from __future__ import annotations

import base64
import json
import lzma
import random
import statistics
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bench import peers_prefix, prefix_cost
from streamguard.viability import Dead, Prefix, Schema, SyntaxPrefix, compile_schema
from tests.data import find
from tests.viability.completing import find_completion

TRIES = 200
"""Completions tried of a beginning that is said to be dead."""

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


def path_of(*parts: str) -> Path:
    """Return a file of the test data, or end with a sentence."""
    found = find(*parts)
    if found is None:
        sys.exit(f"no {parts[-1]} here: set STREAMGUARD_DATA to the folder that holds it")
    return found


def rows(name: str) -> list[dict[str, Any]]:
    path = path_of(name)
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


WHY_NEARER = {
    "const.json": "a float has room for fewer digits than the text: the last word is the judge's, in floats",
    "multipleOf.json": "divided in floats, as the judge does: infinity is no reason to give up",
    "dynamicRef.json": "$dynamicRef is followed into open values; the oracle waits for their end",
    "defs.json": "$dynamicRef is followed into open values; the oracle waits for their end",
    "ref.json": "a $ref behind an $id is followed at once; the oracle waits for the value's end",
    "minContains.json": "no array has more matches than it may have: dead at the bracket",
    "oneOf.json": "the branches cannot differ on any value: nothing satisfies the schema",
    "unevaluatedItems.json": "what is evaluated is followed item by item; the oracle waits for the bracket",
    "unevaluatedProperties.json": "what is evaluated is followed name by name; the oracle waits for value or brace",
}
"""By file of the suite: why the dead byte found here is not the oracle's."""


def oracle(schemas: dict[str, Schema]) -> None:
    head("Schema: against the independent oracle")
    print("  Certified rows are exact (a valid completion one byte earlier was found). The others are upper bounds: a")
    print("  nearer byte there is no mistake. So the share is taken of the certified rows, and given of all as well.")
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows("oracle_suite_2020_12.jsonl.xz"):
        schema = schemas.get(row.get("id", ""))
        if schema is None:
            continue
        dead = feed(schema.prefix(), row["text"], each)
        got = at(dead)
        here = row["len"] if got == "eof" else row["len"] + 1 if got is None else int(got)
        there = row["len"] if row["dead_at"] == "eof" else row["dead_at"]
        relation = "equal" if here == there else "earlier" if here < there else "later"
        kind = "certified" if row["certified"] else "upper bound"
        counts[kind, relation] += 1
        if relation != "equal":
            file, _, group = row["id"].partition("|")
            searched = ""
            if relation == "earlier" and schema.satisfiable:
                begin = row["text"].encode()[: here + 1].decode("utf-8", "ignore")
                found = find_completion(begin, schema.schema, lambda v, s=schema: s.validate(v) is None, TRIES)
                searched = f"; {TRIES} completions tried, {'REFUTED by ' + found if found else 'none valid'}"
            line(f"{relation}: {file.removesuffix('.json')}: {row['test'][:44]}", f"{kind} {there}, got {here}")
            print(f"    {WHY_NEARER.get(file, group)}{searched}")
    certified = sum(n for (kind, _), n in counts.items() if kind == "certified")
    equal = counts["certified", "equal"]
    all_equal = equal + counts["upper bound", "equal"]
    line("certified rows: earlier, later", f"{counts['certified', 'earlier']}, {counts['certified', 'later']}")
    line("certified rows: equal", f"{equal} of {certified} = {equal / certified:.1%}")
    line("upper bounds: equal", counts["upper bound", "equal"])
    line("upper bounds: nearer, none refuted", counts["upper bound", "earlier"])
    line("upper bounds: later, for floats", counts["upper bound", "later"])
    line("all rows: equal", f"{all_equal} of {sum(counts.values())} = {all_equal / sum(counts.values()):.1%}")


def deltas(raw: bytes) -> Iterator[str]:
    for text in raw.decode().splitlines():
        if text.startswith("data:"):
            event = json.loads(text[5:])
            if event.get("type") == "content_block_delta":
                yield event["delta"].get("text") or ""


def advisory() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path_of("advisories", "advisory.schema.json").read_text())
    return found


WHY_CLOSER = {
    "maxItems": "the comma promises a ninth of eight items; the analysis sees it at the item's first character",
    "enum": "items must differ, and the values that begin so are used up; the analysis does not keep count",
}
"""By keyword: why a recorded stream dies sooner than its analysis says."""


def streams() -> None:
    head("Recorded streams of a real model")
    schema = compile_schema(advisory())
    verdicts = equal = nearer = tokens = after = noted = 0
    with zipfile.ZipFile(path_of("real_sse", "gemma270m-advisories.zip")) as recorded:
        analysis = json.loads(path_of("real_sse", "analysis.json").read_text())
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
            noted += row.get("schema_tokens_after", 0)
            if dead is None:
                equal += row["schema"] == "ok"
                continue
            after += round(row["output_tokens"] * (1 - fed / len(parts)))
            if dead.char == row.get("schema_dead_char"):
                equal += 1
                continue
            nearer += isinstance(dead.char, int) and dead.char < row["schema_dead_char"]
            line(f"{row['name']}: {dead.keyword}", f"analysis {row['schema_dead_char']}, got {dead.char}")
            print(f"    {WHY_CLOSER.get(dead.keyword, dead.message)}")
    line("verdict as analysed", f"{verdicts} of {len(analysis)}")
    line("dead character as analysed; nearer; later", f"{equal}; {nearer}; {len(analysis) - equal - nearer}")
    line("tokens after the dead character, by deltas", f"{after} of {tokens} = {after / tokens:.0%}")
    line("the same as the analysis counts them", f"{noted} = {noted / tokens:.0%}")


def cost() -> None:
    head("Cost, microseconds of CPU per 4-character piece")
    text = json.dumps(peers_prefix.record(), indent=1)
    for what, found in prefix_cost.advisory_rows(advisory(), text):
        line(what, found)
    for part in prefix_cost.PARTS:
        for what, found in part():
            line(what, found)
    head("Peers on the same text, in the same run")
    for row in peers_prefix.table(advisory()):
        print(row)


def main() -> None:
    """Print the whole report."""
    syntax()
    cases()
    oracle(suite())
    streams()
    cost()


if __name__ == "__main__":
    main()
