"""What users read is written for readers with English as a second language: docstrings of public names, pages, help."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import griffe
import pytest

import streamguard
from tools import words
from tools.public import public

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.name not in {"faults.md", "servers.md"}  # generated from titles of faults, and recorded words
]
FRONT = [
    *("run", "stream", "guarded", "messages", "Source", "GuardMiddleware", "GuardedStream", "Conversation"),
    *("Policy", "load_policy", "Timeouts", "Caps", "JsonDocument", "Grounded", "Check", "Completion", "Content"),
    *("Repetition", "Retry", "Rule", "Backoff", "BudgetSpec", "Price", "guard", "View", "Runtime", "structlog_hook"),
    *("Outcome", "CallRecord", "CallError", "BudgetExhausted", "ConfigError", "PolicyError", "Decision", "Trip"),
]
"""Names that users call or catch: each has an example."""


@pytest.fixture(scope="module")
def names() -> dict[str, griffe.Object]:
    """Every public name."""
    return dict(public())


def said(one: griffe.Object) -> str:
    """A docstring; of a class with the one of its constructor."""
    text = one.docstring.value if one.docstring is not None else ""
    init = one.members.get("__init__")
    return f"{text}\n{init.docstring.value}" if init is not None and init.docstring is not None else text


def test_every_public_name_has_a_docstring(names: dict[str, griffe.Object]) -> None:
    """All functions, methods and classes; of modules the first line of their file."""
    assert len(names) > 500
    callables = {name: one for name, one in names.items() if not isinstance(one, griffe.Attribute)}
    assert [name for name, one in callables.items() if not said(one).strip()] == []


def test_functions_begin_with_an_imperative(names: dict[str, griffe.Object]) -> None:
    """Ruff's D401 over the package, of which what is public must be clean."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", "--select", "D401", "--output-format", "json", "streamguard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = {(one["filename"], one["location"]["row"]) for one in json.loads(done.stdout)}
    assert len(found) > 100  # the rule is asked, and names that are not public are let pass
    functions = [(name, one) for name, one in names.items() if isinstance(one, griffe.Function) and one.docstring]
    assert len(functions) > 100
    assert [name for name, one in functions if (str(one.filepath), one.docstring.lineno) in found] == []


def test_parameters_and_errors_are_documented(names: dict[str, griffe.Object]) -> None:
    """Each parameter is in a `:param`, or named in the text; so is each error that a function itself raises."""
    lacking = []
    for name, one in names.items():
        if isinstance(one, griffe.Function):
            text = said(one)
            given = [part.name for part in one.parameters if part.name not in ("self", "cls")]
            lacking += [f"{name}({part})" for part in given if not re.search(rf":param {part}:|[`*]{part}\b", text)]
            raised = {
                ast.unparse(node.exc.func)
                for node in ast.walk(ast.parse(textwrap.dedent(str(one.source))))
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
            }
            lacking += [f"{name} raises {error}" for error in raised if error[:1].isupper() and error not in text]
    assert lacking == []


def test_functions_of_the_root_say_what_they_return(names: dict[str, griffe.Object]) -> None:
    """In `:returns:`, or in a first line that begins with a verb that says so."""
    says = re.compile(r"(Return|Make|Build|Read|Take|Handle|Guard)\b|.*:returns:", re.DOTALL)
    silent = [
        name
        for name, one in names.items()
        if isinstance(one, griffe.Function)
        and name in streamguard.__all__
        and str(one.returns) != "None"
        and not says.match(said(one))
    ]
    assert silent == []


@pytest.mark.parametrize("name", FRONT)
def test_front_door_names_have_an_example(names: dict[str, griffe.Object], name: str) -> None:
    """An example that parses as Python, and names nothing of the package that does not exist."""
    blocks = re.findall(r"```python\n(.*?)```", said(names[name]), re.DOTALL)
    assert len(blocks) >= 1
    for block in blocks:
        tree = compile(textwrap.dedent(block), name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "streamguard":
                assert hasattr(streamguard, node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_plain_words(page: Path) -> None:
    """No idiom and no rare word of `tools/words.py`; the reference pages have the command line's help in them."""
    assert [
        f"{page.name}:{line}: {word!r}: write: {instead}" for line, word, instead in words.found(page.read_text())
    ] == []


def test_docstrings_use_plain_words(names: dict[str, griffe.Object]) -> None:
    """The same for what editors show."""
    found = {name: list(words.found(said(one))) for name, one in names.items()}
    assert {name: these for name, these in found.items() if these} == {}


def test_the_list_of_words_finds_them_outside_of_code() -> None:
    """Whole words in any case, with their line; code is not prose."""
    text = "Whoever asks\nwaits `for ever`.\n\n```text\nfor ever\n```\nIt waits for ever, dearly.\n"
    assert [(line, word) for line, word, _ in words.found(text)] == [(1, "Whoever"), (7, "for ever")]
