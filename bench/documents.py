"""JSON documents of any length, as answers of a model."""

from __future__ import annotations

import json
import random

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
]


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
