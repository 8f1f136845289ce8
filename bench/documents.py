"""JSON documents of any length, as answers of a model."""

from __future__ import annotations

import json
import random
from typing import Any

WORDS = [
    "the",
    "reader",
    "model",
    "parses",
    "each",
    "line",
    "of",
    "every",
    "invoice",
    "and",
    "writes",
    "down",
    "what",
    "it",
    "finds",
    "there",
    "in",
    "order",
    "before",
    "an",
    "attacker",
    "could",
    "cause",
    "memory",
    "corruption",
    "through",
    "crafted",
    "input",
    "in",
    "versions",
    "up",
    "to",
    "this",
    "one",
    "which",
    "is",
    "fixed",
    "by",
    "the",
    "latest",
    "release",
]

CATEGORIES = [
    *("code-execution", "crypto-failure", "denial-of-service", "file-disclosure", "format-injection", "malicious"),
    *("memory-corruption", "memory-exposure", "privilege-escalation", "thread-safety"),
]
ADVISORY: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["package", "kind", "categories", "fixed_in", "functions", "alternatives", "summary"],
    "properties": {
        "package": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "kind": {"enum": ["vulnerability", "unsound", "unmaintained", "notice"]},
        "categories": {"type": "array", "uniqueItems": True, "maxItems": 4, "items": {"enum": CATEGORIES}},
        "fixed_in": {"type": ["string", "null"], "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+([-+][0-9A-Za-z.-]+)?$"},
        "functions": {"type": "array", "maxItems": 8, "items": {"type": "string", "minLength": 1, "maxLength": 80}},
        "alternatives": {"type": "array", "maxItems": 8, "items": {"type": "string", "minLength": 1, "maxLength": 64}},
        "summary": {"type": "string", "minLength": 10, "maxLength": 240},
    },
}
"""The schema of one security advisory, as an extraction job has it: enums, patterns, nullable, bounded arrays."""

ADVISORIES: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["advisories"],
    "properties": {"advisories": {"type": "array", "items": ADVISORY}},
}
"""Many of them in one document, which one alone is too short for."""


def advisories(characters: int, seed: int = 1) -> str:
    """A document that satisfies `ADVISORIES`, about this long."""
    source = random.Random(seed)
    found: list[dict[str, Any]] = []
    size = 20
    while size < characters:
        words = source.choices(WORDS, k=source.randrange(15, 40))
        version = f"{source.randrange(9)}.{source.randrange(30)}.{source.randrange(30)}"
        advisory = {
            "package": "-".join(source.choices(WORDS, k=2)),
            "kind": source.choice(ADVISORY["properties"]["kind"]["enum"]),
            "categories": source.sample(CATEGORIES, source.randrange(3)),
            "fixed_in": version if source.random() < 0.8 else None,
            "functions": [f"{source.choice(WORDS)}::{source.choice(WORDS)}" for _ in range(source.randrange(3))],
            "alternatives": [],
            "summary": " ".join(words)[:230].capitalize() + ".",
        }
        found.append(advisory)
        size += len(json.dumps(advisory)) + 2
    return json.dumps({"advisories": found})


def objects(characters: int, seed: int = 1) -> str:
    """An object with a list of small objects, about this long."""
    source = random.Random(seed)
    lines, size = [], 40
    while size < characters:
        line = {
            "name": f"{source.choice(WORDS)}-{source.randrange(1000)}",
            "amount": round(source.random() * 1000, 2),
            "note": " ".join(source.choices(WORDS, k=8)),
            "paid": source.random() < 0.5,
        }
        lines.append(line)
        size += len(json.dumps(line)) + 2
    return json.dumps({"total": len(lines), "lines": lines})


def one_string(characters: int, seed: int = 1) -> str:
    """An object with one long string."""
    source = random.Random(seed)
    words: list[str] = []
    size = 0
    while size < characters:
        words.append(source.choice(WORDS) + str(source.randrange(100)))
        size += len(words[-1]) + 1
    return json.dumps({"text": " ".join(words)})


def pieces(text: str, size: int) -> list[str]:
    """A text in deltas."""
    return [text[start : start + size] for start in range(0, len(text), size)]
