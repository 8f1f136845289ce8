"""Public names of Python as Markdown: signature, prose, parameters, returns, errors, fields and methods.

Read by griffe from the sources, so that the pages are the same files for the site, for a repository's host
and for programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
KINDS = griffe.DocstringSectionKind


def package() -> griffe.Module:
    """The package's sources as griffe reads them."""
    found = griffe.load("streamguard", search_paths=[ROOT], resolve_aliases=True, docstring_parser="sphinx")
    assert isinstance(found, griffe.Module)
    return found


def target(found: griffe.Object | griffe.Alias) -> griffe.Object:
    """What a name stands for, wherever it was imported from."""
    return found.final_target if isinstance(found, griffe.Alias) else found


def signature(name: str, function: griffe.Function, bound: bool) -> str:
    """A call as it is written, one parameter a line where it is long."""
    parts: list[str] = []
    keyword_only = False
    for parameter in list(function.parameters)[1 if bound else 0 :]:
        kind = parameter.kind
        mark = (
            {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
            if kind
            else ""
        )
        if kind is griffe.ParameterKind.keyword_only and not keyword_only and not any(p.startswith("*") for p in parts):
            parts.append("*")
        keyword_only = keyword_only or kind is griffe.ParameterKind.keyword_only
        typed = f": {parameter.annotation}" if parameter.annotation is not None else ""
        default = "" if mark or parameter.default is None else f" = {parameter.default}"
        parts.append(f"{mark}{parameter.name}{typed}{default}")
    returns = f" -> {function.returns}" if function.returns is not None else ""
    start = f"{'async ' if 'async' in function.labels else ''}{name}("
    line = f"{start}{', '.join(parts)}){returns}"
    return line if len(line) <= 100 else start + "".join(f"\n    {part}," for part in parts) + f"\n){returns}"


def text(prose: str) -> str:
    """A docstring's prose as Markdown: blocks that are indented are code."""
    lines: list[str] = []
    code = False
    for line in prose.splitlines():
        if line.startswith("    ") and (code or not lines or not lines[-1]):
            if not code:
                lines.append("```python")
            code = True
            lines.append(line[4:])
            continue
        if code and line:
            while not lines[-1]:
                lines.pop()
            lines += ["```", ""]
            code = False
        lines.append(line)
    return "\n".join([*lines, "```"] if code else lines)


def cell(words: str) -> str:
    """A text inside a table."""
    return " ".join(words.split()).replace("|", "\\|")


def prose(found: griffe.Object) -> Iterator[str]:
    """A docstring: its text, then what goes in, what comes out, and what is raised."""
    for section in found.docstring.parsed if found.docstring is not None else ():
        if section.kind is KINDS.text:
            yield from (text(section.value), "")
        elif section.kind is KINDS.parameters:
            yield from ("| parameter | meaning |", "| --- | --- |")
            yield from (f"| `{one.name}` | {cell(one.description)} |" for one in section.value)
            yield ""
        elif section.kind is KINDS.returns:
            yield from (f"Returns {cell(one.description)}" for one in section.value)
            yield ""
        elif section.kind is KINDS.raises:
            yield from (f"* raises `{one.annotation}`: {cell(one.description)}" for one in section.value)
            yield ""


def members(found: griffe.Class) -> Iterator[str]:
    """A class's own fields, then its methods."""
    public = {name: target(one) for name, one in found.members.items() if not name.startswith("_") and not one.is_alias}
    fields = {name: one for name, one in public.items() if isinstance(one, griffe.Attribute)}
    if fields:
        yield from ("| field | type | meaning |", "| --- | --- | --- |")
        for name, one in fields.items():
            says = one.docstring.value if one.docstring is not None else ""
            yield f"| `{name}` | {typed(one)} | {cell(says)} |"
        yield ""
    for name, one in public.items():
        if isinstance(one, griffe.Function):
            bound = "staticmethod" not in one.labels
            yield from (
                f"### `{found.name}.{name}`",
                "",
                "```python",
                signature(name, one, bound),
                "```",
                "",
                *prose(one),
            )


def typed(attribute: griffe.Attribute) -> str:
    """A field's type, without what only a validator reads."""
    if attribute.annotation is None:
        return ""
    bare = re.sub(r"Annotated\[([^,\[\]]+(?:\[[^\]]*\])?),.*\]", r"\1", str(attribute.annotation))
    return f"`{cell(bare)}`"


def described(name: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    """One public name: a heading, and everything about it."""
    one = target(found)
    yield from (f"## `{name}`", "")
    if isinstance(one, griffe.Function):
        yield from ("```python", signature(name, one, bound=False), "```", "", *prose(one))
    elif isinstance(one, griffe.Class):
        init = one.members.get("__init__")
        if isinstance(init, griffe.Function):
            yield from ("```python", signature(name, init, bound=True).removesuffix(" -> None"), "```", "")
        bases = [str(base) for base in one.bases if str(base) not in ("Spec", "Protocol", "Exception")]
        if bases and not bases[0].startswith("msgspec"):
            yield from (f"A `{bases[0]}`.", "")
        yield from prose(one)
        if isinstance(init, griffe.Function):
            yield from prose(init)
        yield from members(one)
    elif isinstance(one, griffe.Module):
        yield from (f"A module: `streamguard.{name}`.", "", *prose(one))
        exported = [str(name) for name in one.exports or ()]
        for part in exported or [
            key for key, value in one.members.items() if not key.startswith("_") and not value.is_alias
        ]:
            inner = target(one.members[part])
            if isinstance(inner, griffe.Function | griffe.Class):
                yield from described(f"{name}.{part}", inner)
