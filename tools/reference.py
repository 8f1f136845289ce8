"""The generated pages of `docs/reference`: `python -m tools.reference` writes them, a test holds them to the code.

Policy and job keys come from the JSON Schemas, the command line from typer's own documentation, names of Python from
their docstrings (`python_names.py`), the catalogue of faults from `streamguard.testing.faults`.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import streamguard
from streamguard.testing import faults
from tools import python_names

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
MARK = "<!-- generated: python -m tools.reference -->\n"
"""The first line of each generated page."""

INDEX = """# Reference

Look up a key, an option or a name. These pages are generated from the code.

| page | what |
| --- | --- |
| [Policy keys](policy.md) | every section and key of a policy file: type, default, meaning |
| [Job keys](job.md) | the same for `job.yaml` |
| [Command line](cli.md) | every command with its arguments, options and exit codes |
| [Calls](python-calls.md) | Python: `run`, `stream`, `guarded`, `messages`, the middleware, conversations |
| [Policies](python-policies.md) | Python: `Policy`, its sections, rules, budgets |
| [Guards of your own](python-guards.md) | Python: `guard`, `View`, `Trip` |
| [What calls share, and what comes out](python-outcomes.md) | Python: `Runtime`, `Outcome` and its records |
| [Errors](python-errors.md) | Python: the tree of exceptions |
| [Faults](faults.md) | what goes wrong between clients and providers, by number |
| [Servers](servers.md) | recorded answers of servers and gateways, one by one |
"""


def kind(schema: Mapping[str, Any]) -> str:
    """A value's type in words: `number ≥ 0`, `"full" or "none"`, a link to a section."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            words = [kind(one) for one in schema[word] if one.get("type") != "null" and one.get("const") != "off"]
            return " or ".join(dict.fromkeys(words))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}" if schema.get("items") else "list"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {kind(schema['additionalProperties'])}"
    named = {"object": "mapping", "string": "text"}
    types = schema.get("type", "any value")
    text = named.get(types, types) if isinstance(types, str) else " or ".join(named.get(one, one) for one in types)
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤")):
        if key in schema and abs(schema[key]) < 10**9:
            text += f" {sign} {schema[key]:g}"
    return text


def default(schema: Mapping[str, Any], required: bool) -> str:
    """A key's default: `needed`, a value, or nothing. A section's defaults stand in its own table."""
    if required:
        return "needed"
    value = schema.get("default")
    return "" if value is None or (value and isinstance(value, dict)) else f"`{json.dumps(value, ensure_ascii=False)}`"


def cell(text: str) -> str:
    """A text inside a table."""
    return " ".join(text.split()).replace("|", "\\|")


def keys(schema: Mapping[str, Any]) -> Iterator[str]:
    """The table of an object's keys."""
    yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for name, one in schema.get("properties", {}).items():
        cells = [f"`{name}`", kind(one), default(one, name in schema.get("required", ())), one.get("description", "")]
        yield f"| {' | '.join(cell(text) for text in cells)} |"
    yield ""


def schema_page(title: str, says: str, file: str) -> str:
    """A page of one JSON Schema: the top, then each of its parts."""
    schema = json.loads((ROOT / "streamguard" / file).read_text())
    lines = [f"# {title}", "", says, "", *keys(schema)]
    for name, part in sorted(schema["$defs"].items()):
        if "properties" in part:
            lines += [f"## {name}", "", part.get("description", ""), "", *keys(part)]
    return "\n".join(lines)


def cli_page() -> str:
    """The command line, as typer documents it."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "streamguard.cli.main", "utils", "docs", "--name", "streamguard"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return (
        "# Command line\n\nLook up a command, its arguments, options and exit codes.\n\n"
        + done.stdout.partition("\n\n")[2]
    )


def themes() -> dict[str, list[str]]:
    """Public names by the comments that stand between them in `__all__`."""
    found: dict[str, list[str]] = {}
    text = (ROOT / "streamguard" / "__init__.py").read_text().partition("__all__ = [\n")[2].partition("]")[0]
    theme = ""
    for line in text.splitlines():
        if line.strip().startswith("#"):
            theme = line.strip(" #")
            found[theme] = []
        else:
            found[theme].append(ast.literal_eval(line.strip(" ,")))
    assert sum(found.values(), []) == streamguard.__all__  # noqa: RUF017  some fifty names
    return found


FILES = {
    "doors": ("python-calls.md", "Calls"),
    "policies": ("python-policies.md", "Policies"),
    "guards of one's own": ("python-guards.md", "Guards of your own"),
    "what calls share, and what comes out": ("python-outcomes.md", "What calls share, and what comes out"),
    "errors": ("python-errors.md", "Errors"),
}
"""The page and the title of each theme of public names."""


def python_pages() -> dict[str, str]:
    """A page for each theme."""
    root = python_names.package()
    texts = {}
    for theme, names in themes().items():
        file, title = FILES[theme]
        lines = [
            f"# {title}",
            "",
            "Look up a public name of Python: its parameters, what it returns, what it raises.",
            "",
        ]
        for name in names:
            lines += python_names.described(name, root[name])
        texts[file] = "\n".join(lines)
    return texts


def faults_page() -> str:
    """The catalogue of faults."""
    lines = [
        "# Faults, by number",
        "",
        "Look up what has really gone wrong between clients and providers. Variants stand under one number.",
        "How they are used: [reliability](../reliability.md).",
        "",
        "| | what goes wrong | what a client must do |",
        "| --- | --- | --- |",
        *(f"| `{one.id}` | {cell(one.title)} | {cell(one.must)} |" for one in faults.ALL),
        "",
        "## Shown by tests of their own",
        "",
        "No single stream shows them.",
        "",
        "| | what goes wrong | where |",
        "| --- | --- | --- |",
        *(
            f"| {one.number} | {cell(one.title)} | {', '.join(f'`{t}`' for t in one.tests)} |"
            for one in faults.ELSEWHERE
        ),
        "",
        "## Not met",
        "",
        "| | what goes wrong | why |",
        "| --- | --- | --- |",
        *(f"| {one.number} | {cell(one.title)} | {cell(one.why)} |" for one in faults.NOT_MET),
        "",
    ]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """Every generated page: its name, its text."""
    texts = {
        "index.md": INDEX,
        "policy.md": schema_page(
            "Policy keys",
            "Look up a key of a policy file. How to write one: [Write a policy](../policy.md).",
            "policy.schema.json",
        ),
        "job.md": schema_page(
            "Job keys", "Look up a key of `job.yaml`. How to run one: [Run a job](../jobs.md).", "job.schema.json"
        ),
        "cli.md": cli_page(),
        **python_pages(),
        "faults.md": faults_page(),
    }
    return {name: MARK + text.rstrip() + "\n" for name, text in texts.items()}


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
