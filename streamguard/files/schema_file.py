"""A JSON Schema from a file: JSON, at most 1 MiB, strictly as RFC 8259 has it.

In charge of reading one JSON object with the place of a syntax error. It does not know what a schema means.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamguard.errors import Problem
from streamguard.files import strict_json
from streamguard.files.reading import read_bytes

MAX_BYTES = 1024 * 1024
"""Largest schema file."""

MAX_DEPTH = 100
"""Deepest nesting of a schema's own text. Pydantic's JSON parser stops at 200."""


def read_schema(path: Path) -> dict[str, Any] | Problem:
    """The schema, or the first thing wrong with the file (with a line, if it is about the text)."""
    file = str(path)
    raw = read_bytes(path, MAX_BYTES)
    if isinstance(raw, str):
        return Problem(file=file, problem=raw)
    if len(raw) > MAX_BYTES:
        return Problem(file=file, problem=f"more than {MAX_BYTES:,} bytes")
    return parse_schema(raw, file)


def parse_schema(raw: bytes, file: str) -> dict[str, Any] | Problem:
    """The same for bytes."""

    def wrong(what: str, line: int = 1, column: int = 1) -> Problem:
        return Problem(file=file, line=line, column=column, problem=what)

    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as mistake:
        before = raw[: mistake.start].decode("utf-8")
        return wrong("not UTF-8", before.count("\n") + 1, len(before) - before.rfind("\n"))
    try:
        value = strict_json.loads(text)
    except json.JSONDecodeError as mistake:
        return wrong(f"not JSON: {mistake.msg[:1].lower()}{mistake.msg[1:]}", mistake.lineno, mistake.colno)
    except RecursionError:
        return wrong(f"nested more than {MAX_DEPTH} deep")
    except ValueError as mistake:
        return wrong(f"not JSON: {mistake}")
    if not isinstance(value, dict):
        return wrong("must be a JSON Schema, which is a JSON object")
    return wrong(f"nested more than {MAX_DEPTH} deep") if strict_json.is_deeper(value, MAX_DEPTH) else value
