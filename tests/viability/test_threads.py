"""One compiled schema in several threads at once, from its first use on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from streamguard.viability import compile_schema
from tests.viability.feeding import each, feed, whole

THREADS = 4
TRIES = 120
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "anyOf": [
                {
                    "type": "object",
                    "required": ["v"],
                    "additionalProperties": False,
                    "properties": {
                        "v": {"$ref": "#/$defs/leaf"},
                        "l": {"$ref": "#/$defs/node"},
                        "r": {"$ref": "#/$defs/mark"},
                    },
                },
                {"type": "array", "items": {"$ref": "#/$defs/mark"}},
                {"$ref": "#/$defs/leaf"},
            ]
        },
        "mark": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["k", "n"],
                    "properties": {"k": {"const": "a"}, "n": {"$ref": "#/$defs/node"}},
                },
                {
                    "type": "object",
                    "required": ["k", "n"],
                    "properties": {"k": {"const": "b"}, "n": {"$ref": "#/$defs/mark"}},
                },
                {"type": "string", "pattern": "^[a-z]+$"},
            ]
        },
        "leaf": {"anyOf": [{"type": "integer"}, {"type": "null"}, {"enum": ["x", "y"]}]},
    },
}
VALID = json.dumps(
    {"v": 1, "l": {"v": "x", "l": [{"k": "b", "n": {"k": "a", "n": ["abc", {"k": "a", "n": 3}]}}]}, "r": "zz"}
)


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_do_not_disturb_each_other() -> None:
    """What a recursive schema can be satisfied by is found by all of them alike, and stays so."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(TRIES):
            made = compile_schema(TREE)
            together = Barrier(THREADS)

            def verdict(place: int) -> object:
                together.wait(10)  # noqa: B023  # done before the next one is made
                return feed(made.prefix(), VALID, each if place % 2 else whole)  # noqa: B023

            assert list(pool.map(verdict, range(THREADS))) == [None] * THREADS
            assert feed(made.prefix(), VALID, each) is None
