"""The schema prefix on the official JSON Schema Test Suite, and against an independent oracle."""

from __future__ import annotations

import functools
import json
import lzma
from typing import Any

from streamguard.viability import Schema, compile_schema
from tests.data import path
from tests.viability.feeding import each, feed, offset, pieces, spellings


@functools.cache
def suite() -> tuple[dict[str, Schema], list[tuple[str, str, bool, Any]]]:
    """The schemas by name, and the tests: (name of the schema, description, valid, instance)."""
    with lzma.open(path("json_schema_test_suite_2020_12.jsonl.xz"), "rt") as lines:
        rows = [json.loads(line) for line in lines]
    remotes = {row["remote"]: row["schema"] for row in rows if "remote" in row}
    schemas, tests = {}, []
    for row in rows:
        if row.get("draft") == "draft2020-12" and not row["file"].startswith("optional"):
            name = f"{row['file']}|{row['group']}"
            schemas[name] = compile_schema(row["schema"], registry=remotes)
            tests += [(name, *test) for test in row["tests"]]
    return schemas, tests


def test_no_valid_instance_is_aborted_and_no_invalid_one_stands() -> None:
    """In four spellings, character by character and in pieces: valid instances live, invalid ones die by the end."""
    schemas, tests = suite()
    wrong = []
    for name, what, valid, instance in tests:
        for text in spellings(instance):
            verdicts = {str(feed(schemas[name].prefix(), text, split)) for split in (each, pieces(5))}
            if len(verdicts) != 1 or (verdicts == {"None"}) != valid:
                wrong.append((name, what, text, verdicts))
    assert (len(schemas), len(tests)) == (383, 1299)
    assert wrong == []


def test_the_final_judge_agrees_with_the_suite() -> None:
    """The judge of finished values says what the suite says."""
    schemas, tests = suite()
    assert [(n, what) for n, what, valid, value in tests if (schemas[n].validate(value) is None) != valid] == []


def test_the_oracle() -> None:
    """Rows of the oracle with a witness are met exactly. The others are upper bounds; the three that are passed compare
    decimals exactly where the final judge compares floats."""
    schemas, _ = suite()
    certified, late = {}, set()
    with lzma.open(path("oracle_suite_2020_12.jsonl.xz"), "rt") as lines:
        for row in map(json.loads, lines):
            if row.get("id") not in schemas:
                continue
            got = offset(feed(schemas[row["id"]].prefix(), row["text"], each))
            got = row["len"] if got == "eof" else got
            bound = row["len"] if row["dead_at"] == "eof" else row["dead_at"]
            if row["certified"]:
                certified[row["id"], row["n"]] = (got, bound)
            elif got is None or got > bound:
                late.add((row["id"].split("|")[0], row["test"]))
    assert len(certified) >= 470
    assert {key: pair for key, pair in certified.items() if pair[0] != pair[1]} == {}
    assert late <= {
        ("const.json", "integer minus one is invalid"),
        ("const.json", "float minus one is invalid"),
        ("multipleOf.json", "always invalid, but naive implementations may raise an overflow error"),
    }
