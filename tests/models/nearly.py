"""JSON texts about the types of the zoo: some are accepted, most are nearly right."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.models.zoo import ZOO

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 13, 5.0, 0.5, 1.0, -0.0, 1e22, 9007199254740993, 2**63, 2**64, 10**30, 86400),
    *(
        "",
        " ",
        "a",
        "b",
        "12",
        " 2",
        "1.0",
        "two",
        "on",
        "yes",
        "t",
        "red",
        "1",
        "cat",
        "bad",
        "x" * 6,
        "\t5\n",
        "é",
        "\u2028",
    ),
    *("2026-01-02", "2026-01-02 00:00Z", "1700000000", "P1D", "127.0.0.1", "https://e.org", "NaN", "null", "[1]", "{}"),
    *(
        "{12345678-1234-5678-1234-567812345678}",
        "12345678123456781234567812345678",
        "\U0001f600",
        "1_000",
        "0x10",
        "١٢",
    ),
    *(
        [],
        [1],
        [1, 1],
        ["a"],
        [[]],
        [1, "x"],
        [1, 2],
        {},
        {"a": 1},
        {"low": 2, "high": 1},
        {"kind": "dog", "name": "y"},
    ),
]
"""Values that a model may take in a way that one would not expect."""

NUMERALS = (
    "1.00",
    "1e0",
    "1E2",
    "10e-1",
    "1e400",
    "-0",
    "0.1e1",
    "123456789012345678901234567890.5",
    "0.30000000000000004",
)
"""Ways to write a number that `json.dumps` does not choose."""


def mutated(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """A value with some of its parts replaced, removed, repeated or added."""
    if chance.random() < 0.12 + 0.05 * depth:
        return chance.choice(ODD)
    if isinstance(value, dict):
        members = [(name, mutated(item, chance, depth + 1)) for name, item in value.items() if chance.random() > 0.05]
        if chance.random() < 0.08:
            members.append((chance.choice(["extra", "A", "a", "b", "lives", "z", "nested"]), chance.choice(ODD)))
        if chance.random() < 0.3:
            chance.shuffle(members)
        return dict(members)
    if isinstance(value, list):
        items = [mutated(item, chance, depth + 1) for item in value if chance.random() > 0.05]
        if items and chance.random() < 0.15:
            items.append(chance.choice(items))
        return items
    return value


def texts(name: str, seed: int, count: int) -> Iterator[str]:
    """JSON texts about one type of the zoo: some it accepts, most are nearly right."""
    chance = random.Random(f"{name} {seed}")
    documents = ZOO[name][1]
    for _ in range(count):
        document = chance.choice(documents)
        for _ in range(chance.choice((0, 1, 1, 2))):
            document = mutated(document, chance)
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, None, 1)))
        if chance.random() < 0.15:
            text = text.replace("1", chance.choice(NUMERALS), 1)
        if chance.random() < 0.05:
            text = text.replace('"', '"' + chance.choice(("\\u0041", "\\ud800", "\\ud83d\\ude00", "\\n")), 1)
        yield text
