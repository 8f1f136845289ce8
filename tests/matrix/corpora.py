"""Inputs that break others: patterns that backtrack, YAML bombs, schemas that reach out, paths that lead elsewhere."""

from __future__ import annotations

import json
from typing import Any

REDOS: tuple[tuple[str, str], ...] = (
    (r"^(a+)+$", "a" * 64 + "!"),
    (r"^(a|a)*$", "a" * 64 + "!"),
    (r"^(a|aa)+$", "a" * 96 + "!"),
    (r"(x+x+)+y", "x" * 96),
    (
        r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
        "a" * 96,
    ),
    (r"(.*)*=(.*)*;", "=" * 96),
    (r"^(\w+\s?)*$", "word " * 30 + "!"),
    (r"(?:a?){64}a{64}$", "a" * 63),
    (r"^(?:.*,){20}x$", "," * 200),
)
"""Pattern and text: with Python's own engine some of these take longer than the universe has lasted."""


def bombs() -> dict[str, str]:
    """Policy files that are small and mean something large, or something else than they say."""
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    levels += [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(8)]
    return {
        "billion laughs": "version: 1\n" + "\n".join(levels),
        "alias": "version: 1\ntimeouts: &t {total: 5}\nx: *t\n",
        "merge": "version: 1\ntimeouts:\n  <<: {total: 5}\n",
        "tag": "version: 1\nguards: [!!python/object/apply:os.system ['true']]\n",
        "own tag": "version: 1\ntimeouts: !evil {total: 5}\n",
        "depth": "version: 1\njson: " + "[" * 5000 + "]" * 5000,
        "duplicate key": "version: 1\nversion: 1\n",
        "size": "version: 1\n" + "# comment\n" * 40_000,
        "two documents": "version: 1\n---\nversion: 1\n",
        "norway": "version: 1\nmode: no\n",
        "sexagesimal": "version: 1\ntimeouts: {total: 12:30:00}\n",
        "octal": "version: 1\ncaps: {events: 0o777x}\n",
        "no text": "\x00\x01\x02",
        "control": "version: 1\nmode: enforce\x07\n",
        "surrogate": 'version: 1\ncontent: [{reason: content.x, pattern: "\\ud800"}]\n',
    }


REMOTE_SCHEMAS: tuple[dict[str, Any], ...] = (
    {"$ref": "http://127.0.0.1:1/schema.json"},
    {"$ref": "https://example.invalid/schema.json"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "//example.invalid/schema.json"},
    {"$id": "http://127.0.0.1:1/base", "type": "object", "properties": {"a": {"$ref": "other.json"}}},
    {"$schema": "http://127.0.0.1:1/dialect", "type": "object"},
    {"$dynamicRef": "http://127.0.0.1:1/schema.json#x"},
)
"""Schemas that a careless client would fetch."""


def expanding(levels: int = 24) -> dict[str, Any]:
    """A schema whose references double at each level: small in text, enormous when it is copied out."""
    defs: dict[str, Any] = {"d0": {"type": "integer"}}
    for n in range(1, levels):
        part = {"$ref": f"#/$defs/d{n - 1}"}
        defs[f"d{n}"] = {"allOf": [part, part]}
    return {"$defs": defs, "type": "object", "properties": {"n": {"$ref": f"#/$defs/d{levels - 1}"}}}


RECURSIVE: dict[str, Any] = {"$ref": "#"}
"""A schema that is only itself."""

PATHS = (
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "/dev/full",
    "/dev/zero",
    "/proc/self/mem",
    "a\x00b",
    "a" * 5000,
)
"""Names for files that lead elsewhere, or nowhere."""


def ids() -> list[str]:
    """Keys of records that a careless writer makes file names or log lines of."""
    return [
        "../../x",
        "/etc/passwd",
        "a\nb",
        "a\r\nb",
        "\u2028",
        "\x1b[2J",
        "con",
        "",
        " " * 64,
        "a" * 512,
        "%s%n",
        "${HOME}",
    ]


def jobs_lines() -> list[str]:
    """Lines of input that are no rows."""
    return [
        "",
        "null",
        "[]",
        '{"custom_id": "a"',
        '{"custom_id": 7}',
        '{"a": NaN}',
        '{"custom_id": "a", "custom_id": "b"}',
        json.dumps({"custom_id": "x", "params": []}),
        "{" * 100_000,
        '"' + "\\ud800" * 3 + '"',
    ]
