"""Policy files: any text, sections that are empty or off, and types as schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.errors import PolicyError
from streamguard.files.yaml import load
from streamguard.guards.document.guard import JsonDocument
from streamguard.policy.file import (
    _Reading,
    loads_policy,
    shipped_policies,
)
from streamguard.policy.model import Policy
from tests.models.bad_answers import Invoice


def mistakes(text: str | bytes, base: Path | None = None) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        loads_policy(text, "p.yaml", base)
    return [str(problem) for problem in raised.value.problems]


SHIPPED = ["agent", "extraction", "interactive_chat", "long_document", "strict_budget", "tool_input"]


# Whatever a file holds

TOKENS = [
    "version: 1\n",
    "timeouts:",
    " {",
    "}",
    "[",
    "]",
    ", ",
    "total: ",
    "10s",
    "5",
    "\n",
    "\n  ",
    "- ",
    "json:",
    "retry: ",
]
TOKENS += [
    "rules: ",
    "when: ",
    "json.*",
    "extends: ",
    "streamguard:extraction",
    "null",
    "true",
    "wait: ",
    "'",
    "caps: ",
    "0.1",
]
TOKENS += [
    "schema: ",
    "type: ",
    "content: ",
    "budgets: ",
    "prices: ",
    "name: ",
    "guards: ",
    "a:b",
    "schema_file: ",
    "/",
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 10**6)
    | st.floats(allow_nan=False)
    | st.sampled_from(["x", "10s", "none", "json.*"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["when", "wait", "patch", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
sections = st.dictionaries(
    st.sampled_from([*Policy.model_fields, "json", "extends"]),
    values
    | st.dictionaries(
        st.sampled_from(["total", "rules", "attempts", "schema", "schema_file", "where", "cost_usd", "accept"]),
        values,
        max_size=3,
    ),
    max_size=4,
)


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join) | sections.map(json.dumps))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    """Nothing but a policy or a `PolicyError` with places comes out of any text."""
    policy, problems = None, ()
    try:
        policy = loads_policy(text, "p.yaml")
    except PolicyError as refused:
        problems = refused.problems
    assert isinstance(policy, Policy) != bool(problems)
    assert all(problem.file and problem.line and problem.column for problem in problems)
    lines = [problem.line or 0 for problem in problems if problem.file == "p.yaml"]
    assert lines == sorted(lines)


def test_a_type_may_be_named() -> None:
    """`json.schema: "module:Name"` is the type itself, where the caller allows imports, and equals it in code."""
    text = 'json: {schema: "tests.models.bad_answers:Invoice", fence: strip}'
    assert loads_policy(text, allow_imports=True) == Policy(json=JsonDocument(schema=Invoice, fence="strip"))


@pytest.mark.parametrize(
    ("name", "allow", "said"),
    [
        ("tests.models.bad_answers:Invoice", False, "is Python code, and this caller does not let policies import any"),
        ("tests.models.nowhere:Invoice", True, "cannot be imported: ModuleNotFoundError"),
        ("tests.models.bad_answers:BREAKS", True, "tests.models.bad_answers:BREAKS is no type that Pydantic validates"),
        ("threading:Lock", True, "Pydantic cannot validate"),
        ("Invoice", True, 'must be "request" or a mapping, got the text "Invoice"'),
    ],
)
def test_a_type_that_cannot_be_used_is_refused(name: str, allow: bool, said: str) -> None:
    """Each with its place, and in words: nothing is imported without leave, and what is imported must be a type."""
    with pytest.raises(PolicyError) as raised:
        loads_policy(f'json: {{schema: "{name}"}}', "p.yaml", allow_imports=allow)
    assert str(raised.value).startswith("p.yaml:1:16: /json/schema: ")
    assert said in str(raised.value)


SECTIONS = {
    "json": "mode: observe",
    "completion": "accept: [end_turn]",
    "repetition": "mode: observe",
    "caps": "output_tokens: 7",
    "retry": "attempts: 3",
    "timeouts": "total: 77",
    "content": "",
    "budgets": "",
}
"""Every section, and a line that it may hold."""


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("nothing", ["", " # {}", "\n  # mode: observe", "\n\n"])
def test_an_empty_section_changes_nothing(section: str, nothing: str) -> None:
    """A section whose lines are all commented out is as inherited, and a warning says so."""
    whole = loads_policy("extends: streamguard:extraction\n")
    text = f"extends: streamguard:extraction\n{section}:{nothing}\n"
    found = _Reading(False).finish(text, "p.yaml", None, identity=None)
    assert found.policy == whole
    warned = [problem for problem in found.warnings if problem.file == "p.yaml"]
    assert [(problem.line, problem.pointer) for problem in warned] == [(2, f"/{section}")]
    assert "empty" in warned[0].problem


@pytest.mark.parametrize("section", [name for name, line in SECTIONS.items() if line])
@pytest.mark.parametrize("word", ["off", "null", "~"])
def test_a_word_removes_a_section(section: str, word: str) -> None:
    """What `off` takes away is told, with the file that had it."""
    base = f"extends: streamguard:extraction\n{section}: {{{SECTIONS[section]}}}\n"
    found = _Reading(False).finish(f"{base}", "p.yaml", None, identity=None)
    assert found.removed == ()
    text = f"extends: streamguard:extraction\n{section}: {word}\n"
    found = _Reading(False).finish(text, "p.yaml", None, identity=None)
    bare = loads_policy("{}")
    attribute = {"json": "json_document"}.get(section, section)
    assert getattr(found.policy, attribute) == getattr(bare, attribute)
    has_it = section in load(shipped_policies()["extraction"].read_bytes()).data
    assert [problem.pointer for problem in found.removed] == [f"/{section}"] * has_it


def test_a_value_of_nothing_is_as_inherited_or_as_by_default() -> None:
    """Inside a section too: a clock with its number commented out keeps its number, and `off` is no limit."""
    inherited = loads_policy("extends: streamguard:extraction\n").timeouts
    found = _Reading(False).finish(
        "extends: streamguard:extraction\ntimeouts:\n  total: # 240\n  alive: off\n  attempt:\n",
        "p.yaml",
        None,
        identity=None,
    )
    assert found.policy.timeouts == inherited.model_copy(update={"alive": None})
    assert [problem.pointer for problem in found.warnings] == ["/timeouts/total", "/timeouts/attempt"]
    assert [str(problem) for problem in found.removed if problem.pointer == "/timeouts/alive"] in (
        [],
        ["p.yaml:4:3: /timeouts/alive: off: streamguard:extraction has it, and this file takes it away"],
    )
    alone = loads_policy("timeouts:\n  total:\n  progress: 9\n").timeouts
    assert alone == loads_policy("timeouts: {progress: 9}").timeouts


def test_off_is_a_mistake_where_a_word_is_wanted() -> None:
    """`mode: off` is refused as any other wrong word."""
    with pytest.raises(PolicyError, match="mode"):
        loads_policy("mode: off\n")
    assert loads_policy("json: {schema: {enum: [off, null]}}\n").json_document is not None
