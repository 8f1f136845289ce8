"""Random completions of the beginning of a JSON text: a bounded search for a witness that it is still alive.

Walks the beginning as a parser would, and where it ends goes on as a generator, with names and values that the schema
mentions. It knows nothing of how the package judges.
"""

from __future__ import annotations

import json
import random
from typing import Any

LITERALS = ("true", "false", "null")


def mentioned(schema: Any) -> tuple[list[str], list[Any]]:
    """Names and scalar values that stand anywhere in a schema."""
    names: dict[str, None] = {}
    values: dict[str, Any] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            values[json.dumps(node)] = node
            for name, inner in node.items():
                names[name] = None
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)
            if not any(isinstance(inner, (dict, bool)) and "type" in str(inner) for inner in node):
                values[json.dumps(node)] = node
        else:
            values[json.dumps(node)] = node
            if isinstance(node, str):
                names[node] = None

    walk(schema)
    return list(names), list(values.values())


class Completer:
    """One attempt: `text()` is the beginning, continued to some whole JSON text."""

    def __init__(self, begin: str, rng: random.Random, names: list[str], values: list[Any], depth: int = 2) -> None:
        self.begin = begin
        self.rng = rng
        self.names = names or ["a"]
        self.strings = [v for v in values if isinstance(v, str)] + ["", "a", "zz", "foo", "bar", "abc", "é", "a\n"]
        self.whole = [v for v in values if isinstance(v, (dict, list)) and len(json.dumps(v)) < 80]
        self.numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)] + [
            0,
            1,
            2,
            12,
            2.5,
        ]
        self.numbers += [n + d for n in self.numbers for d in (-1, 1)]
        self.i = 0
        self.out = ""
        self.depth = depth

    def text(self) -> str:
        if self.whole and self.rng.random() < 0.1:
            text = json.dumps(self.rng.choice(self.whole), separators=(",", ":"), ensure_ascii=False)
            bare = "".join(self.begin.split())
            if text.startswith(bare):
                return self.begin + text[len(bare) :]
        self.value(self.depth)
        return self.begin + self.out

    @property
    def more(self) -> bool:
        return self.i < len(self.begin)

    def space(self) -> None:
        while self.more and self.begin[self.i] in " \t\n\r":
            self.i += 1

    def value(self, depth: int) -> None:
        self.space()
        if not self.more:
            self.out += self.fresh(depth)
            return
        char = self.begin[self.i]
        if char == "{":
            self.container("}", depth)
        elif char == "[":
            self.container("]", depth)
        elif char == '"':
            self.string(self.strings)
        elif char in "tfn":
            word = next(w for w in LITERALS if w[0] == char)
            left = len(self.begin) - self.i
            self.i += min(left, len(word))
            self.out += word[left:] if left < len(word) else ""
        else:
            self.number()

    def container(self, close: str, depth: int) -> None:
        self.i += 1
        first = True
        used: set[str] = set()
        while True:
            self.space()
            if self.more:
                if self.begin[self.i] == close:
                    self.i += 1
                    return
                if not first:
                    self.i += 1  # the comma
                    self.space()
                self.member(close, depth, used)
            else:
                need = not first and self.begin.rstrip().endswith(",") and not self.out
                while need or self.rng.random() < 0.55:
                    if (not first or need) and not (need and not self.out):
                        self.out += ","
                    self.member(close, depth, used)
                    first = need = False
                self.out += close
                return
            first = False
            self.space()
            if not self.more and self.begin.rstrip().endswith(",") and not self.out:
                self.member(close, depth, used)

    def member(self, close: str, depth: int, used: set[str]) -> None:
        if close == "}":
            self.space()
            if self.more:
                used.add(self.string(self.names, used))
            else:
                name = self.rng.choice([n for n in self.names if n not in used] or ["zzz"])
                used.add(name)
                self.out += json.dumps(name)
            self.space()
            if self.more:
                self.i += 1  # the colon
            else:
                self.out += ":"
        self.value(depth - 1)

    def string(self, pool: list[str], used: set[str] = frozenset()) -> str:  # type: ignore[assignment]
        start = self.i
        self.i += 1
        while self.more:
            char = self.begin[self.i]
            if char == "\\":
                self.i += 2
                continue
            self.i += 1
            if char == '"':
                return str(json.loads(self.begin[start : self.i]))
        raw = self.begin[start:]
        self.i = len(self.begin)
        for _ in range(8):
            for quoted in self.spellings(self.rng.choice(pool)):
                if quoted.startswith(raw) and json.loads(quoted) not in used:
                    self.out += quoted[len(raw) :]
                    return str(json.loads(quoted))
        tail = "".join(
            self.rng.choice(["a", "b", "z", "0", "é", "-", "\\n", "1"]) for _ in range(self.rng.randint(0, 4))
        )
        for fix in ("", "n", "u0061", "0061", "061", "61", "1", "\\udc00", "udc00", "dc00", "c00", "00", "0"):
            try:
                whole = str(json.loads(raw + fix + tail + '"'))
            except ValueError:
                continue
            self.out += fix + tail + '"'
            return whole
        self.out += '"'
        return ""

    def spellings(self, text: str) -> list[str]:
        return [
            json.dumps(text, ensure_ascii=False),
            json.dumps(text),
            '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"',
        ]

    def number(self) -> None:
        start = self.i
        while self.more and self.begin[self.i] in "+-0123456789.eE":
            self.i += 1
        if self.more:
            return
        raw = self.begin[start:]
        for _ in range(6):
            want = self.rng.choice(self.numbers)
            for form in (json.dumps(want), f"{want}e0", f"{want * 10}e-1", f"{want}.0"):
                if form.startswith(raw):
                    self.out += form[len(raw) :]
                    return
        for _ in range(12):
            tail = self.rng.choice(
                ["", "0", "00", ".5", "e1", "e-1", "5", "e-2", "1", "e2", "5e1", "000e-3", "e-3", ".5e1"]
            )
            try:
                json.loads(raw + tail)
            except ValueError:
                continue
            self.out += tail
            return
        self.out += "1" if not raw.endswith("1") else ""

    def fresh(self, depth: int) -> str:
        kind = self.rng.random()
        if self.whole and kind < 0.15:
            return json.dumps(self.rng.choice(self.whole))
        kind = self.rng.random()
        if depth > 0 and kind < 0.2:
            names = self.rng.sample(self.names, min(len(self.names), self.rng.randint(0, 3)))
            return "{" + ",".join(f"{json.dumps(n)}:{self.fresh(depth - 1)}" for n in names) + "}"
        if depth > 0 and kind < 0.4:
            return "[" + ",".join(self.fresh(depth - 1) for _ in range(self.rng.randint(0, 3))) + "]"
        if kind < 0.6:
            return json.dumps(self.rng.choice(self.strings))
        if kind < 0.8:
            return json.dumps(self.rng.choice(self.numbers))
        return self.rng.choice(LITERALS)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def find_completion(begin: str, schema: Any, accepts: Any, tries: int, seed: int = 0) -> str | None:
    """A valid text that begins so, if `tries` attempts find one. `accepts` judges a parsed value."""
    rng = random.Random(seed)
    names, values = mentioned(schema)
    for attempt in range(tries):
        text = Completer(begin, rng, names, values, depth=1 + attempt % 3).text()
        try:
            value = json.loads(text, object_pairs_hook=unique)
        except ValueError:
            continue
        if text.startswith(begin) and accepts(value):
            return text
    return None
