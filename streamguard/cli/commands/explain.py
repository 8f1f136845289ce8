"""`streamguard explain`: is this text a valid document, the beginning of one, or dead, and where and why?

In charge of reading the text and the schema, and of printing. The verdict and its layout are `viability.render`'s.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamguard.cli.commands.exits import Exit
from streamguard.errors import JobError, Problem, SchemaError
from streamguard.files.schema_file import read_schema
from streamguard.terminal import columns, fitted, print_result, printable, standard_input
from streamguard.viability.explain.render import Told, render, tell

HANG = 12
"""Columns before the text of a fact."""

MAX_BYTES = 64 * 1024 * 1024
"""Largest text."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the text."""

    schema: str | None = None
    assert_formats: bool = False
    numbers: Literal["exact", "plain"] = "exact"
    patterns: Literal["python", "ecma"] = "python"
    duplicate_names: Literal["reject", "allow"] = "reject"
    as_json: bool = False


def main(file: str, options: Options) -> int:
    """Judge one text.

    :raises ConfigError: the text or the schema cannot be read, or the schema cannot be used.
    """
    schema = None if options.schema is None else _schema(options.schema, options)
    text = _text(file)
    told = tell(text, schema, duplicate_names=options.duplicate_names)
    name = "standard input" if file == "-" else file
    if options.as_json:
        lines = [json.dumps(_as_object(name, told))]
    else:
        width = columns(sys.stdout)
        lines = [_broken(line, width) for line in render(name, text, told, printable, width)]
    print_result("".join(f"{line}\n" for line in lines))
    return Exit.OK if told.status == "valid" else Exit.FAILED


def _broken(line: str, width: int | None) -> str:
    """A line of facts goes on below its text. An excerpt fits as it is, and its blanks count."""
    return line if " | " in line[:HANG] else fitted(line, HANG if line.startswith("  ") else 0, width)


def _as_object(name: str, told: Told) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(told)
    return {"file": name} | found


def _schema(name: str, options: Options) -> Any:
    from streamguard.viability import compile_schema

    schema = read_schema(Path(name))
    if isinstance(schema, Problem):
        raise JobError(schema)
    try:
        return compile_schema(
            schema,
            assert_formats=options.assert_formats,
            duplicate_names=options.duplicate_names,
            numbers=options.numbers,
            patterns=options.patterns,
        )
    except SchemaError as error:
        raise SchemaError([msgspec.structs.replace(problem, file=name) for problem in error.problems]) from None


def _text(name: str) -> str:
    """The text of a file, or of standard input. A character that the end cuts in two is left out.

    :raises JobError: no such file, too large, or no UTF-8.
    """
    file = "standard input" if name == "-" else name
    try:
        if name == "-":
            raw = standard_input().read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as opened:
                raw = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as mistake:
        why = getattr(mistake, "strerror", None) or mistake
        raise JobError(Problem(file=file, problem=f"cannot be read: {why}")) from None
    if len(raw) > MAX_BYTES:
        raise JobError(Problem(file=file, problem=f"more than {MAX_BYTES:,} bytes"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as mistake:
        before = raw[: mistake.start].decode("utf-8")
        if mistake.end == len(raw) and mistake.reason == "unexpected end of data":
            return before
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problem = f"not UTF-8: byte {mistake.start} is 0x{raw[mistake.start]:02x}"
        raise JobError(Problem(file=file, line=line, column=column, problem=problem)) from None
