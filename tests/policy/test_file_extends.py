"""Policy files: what they extend, the schemas and guards that they name, and what comes with the package."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest

from streamguard.errors import PolicyError
from streamguard.files.yaml import load
from streamguard.guards.completion import Completion
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.file import (
    MAX_CHAIN,
    load_policy,
    loads_policy,
    read_policy,
    shipped_policies,
)
from streamguard.policy.model import Policy
from streamguard.retry.rules import Retry, Rule
from tests.data import ROOT


def mistakes(text: str | bytes, base: Path | None = None) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        loads_policy(text, "p.yaml", base)
    return [str(problem) for problem in raised.value.problems]


SHIPPED = ["agent", "extraction", "interactive_chat", "long_document", "strict_budget", "tool_input"]


# Extending


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def problems_of(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    return [str(problem).replace(f"{path.parent}{os.sep}", "") for problem in raised.value.problems]


def test_merge(tmp_path: Path) -> None:
    """Mappings merge, lists replace, null removes a section and is a value inside one."""
    path = write(
        tmp_path,
        {
            "a/child.yaml": "extends: ../base.yaml\nmode: observe\ntimeouts: {total: 100, alive: null}\ncaps: null\n"
            "completion: {accept: [end_turn]}\nretry: {rules: [{when: [json.*]}]}\njson: {}\n"
            "prices: {a: null, b: {output: '9'}}\n",
            "base.yaml": "timeouts: {total: 200, attempt: 50}\ncaps: {characters: 5}\ncompletion: {accept: [tool_use]}\n"
            "retry: {attempts: 3, rules: [{when: [stop.*]}, {when: [cap.*]}]}\nrepetition: {}\n"
            "prices: {a: {input: '1', output: '2'}, b: {input: '3', output: '4'}}\n",
        },
    )
    assert load_policy(path) == Policy(
        mode="observe",
        timeouts=Timeouts(total=100, attempt=50, alive=None),
        completion=Completion(accept=("end_turn",)),
        retry=Retry(attempts=3, rules=(Rule(when=("json.*",)),)),
        json=JsonDocument(),
        repetition=Repetition(),
        prices={"b": {"input": "3", "output": "9"}},
    )


def test_a_schema_replaces_a_schema(tmp_path: Path) -> None:
    """Half of one JSON Schema and half of another is neither: schemas replace, by value or by file."""
    path = write(
        tmp_path,
        {
            "by_file.yaml": "extends: base.yaml\njson: {schema_file: schemas/new.json}\n",
            "by_value.yaml": "extends: by_file.yaml\njson: {schema: {required: [b]}}\n",
            "without.yaml": "extends: by_file.yaml\njson: {schema: null}\n",
            "base.yaml": "json: {fence: strip, schema: {type: object, properties: {a: {type: string}}}}\n",
            "schemas/new.json": '{"type": "array"}',
        },
    )
    json_of = {
        name: load_policy(path.with_name(name)).json_document
        for name in ("by_file.yaml", "by_value.yaml", "without.yaml")
    }
    assert json_of == {
        "by_file.yaml": JsonDocument(fence="strip", schema={"type": "array"}),  # type: ignore[arg-type]
        "by_value.yaml": JsonDocument(fence="strip", schema={"required": ["b"]}),  # type: ignore[arg-type]
        "without.yaml": JsonDocument(fence="strip"),
    }


def test_mistakes_are_where_the_value_came_from(tmp_path: Path) -> None:
    """What is wrong after merging is reported in the file that said it, this file's mistakes first."""
    path = write(
        tmp_path,
        {
            "child.yaml": "extends: middle.yaml\nretry:\n  attempts: 0\n",
            "middle.yaml": "\nextends: base.yaml\ntimeouts: {totl: 5}\nretry: {rules: [{when: [jsn.*]}]}\n",
            "base.yaml": "mode: quiet\nretry: {attempts: three, rules: 5}\ncaps: {characters: -1}\n",
        },
    )
    assert problems_of(path) == [
        "child.yaml:3:13: /retry/attempts: must be at least 1, got 0",
        'middle.yaml:3:12: /timeouts/totl: unknown key; did you mean "total"?',
        'middle.yaml:4:25: /retry/rules/0/when/0: no reason matches "jsn.*"; did you mean "json.*"?',
        'base.yaml:1:7: /mode: must be "enforce" or "observe", got the text "quiet"',
        "base.yaml:3:20: /caps/characters: must be a whole number, 1 or more, not -1",
    ]


def test_a_parent_that_is_no_yaml(tmp_path: Path) -> None:
    """The parent's syntax error stands at its place in the parent."""
    path = write(tmp_path, {"child.yaml": "extends: base.yaml\n", "base.yaml": "mode: enforce\n\tx: 1\n"})
    assert problems_of(path) == ["base.yaml:2:1: not YAML: a tab; indent with spaces"]


def test_cycles(tmp_path: Path) -> None:
    """A file that extends itself, by whatever way, is refused with the way."""
    path = write(
        tmp_path,
        {
            "a.yaml": "extends: sub/b.yaml\n",
            "sub/b.yaml": "extends: ../c.yaml\n",
            "c.yaml": "extends: ./sub/../a.yaml\n",
            "self.yaml": "mode: enforce\nextends: self.yaml\n",
        },
    )
    assert problems_of(path) == [
        f"c.yaml:1:10: /extends: extends itself: {tmp_path}/a.yaml → {tmp_path}/sub/b.yaml → {tmp_path}/c.yaml → {tmp_path}/a.yaml".replace(
            f"{tmp_path}/", ""
        )
    ]
    assert problems_of(path.with_name("self.yaml")) == [
        "self.yaml:2:10: /extends: extends itself: self.yaml → self.yaml"
    ]


def test_a_cycle_through_a_link(tmp_path: Path) -> None:
    """A symbolic link is the file that it points to."""
    path = write(tmp_path, {"a.yaml": "extends: b.yaml\n"})
    (tmp_path / "b.yaml").symlink_to(path)
    assert problems_of(path) == ["a.yaml:1:10: /extends: extends itself: a.yaml → b.yaml"]


def test_long_chains(tmp_path: Path) -> None:
    """A chain of as many files as allowed is read; one more is refused, naming them all."""
    names = [f"{n}.yaml" for n in range(MAX_CHAIN + 1)]
    files = {name: f"extends: {after}\n" for name, after in pairwise(names)}
    first = write(tmp_path, {**files, names[-1]: "mode: observe\n"})
    assert load_policy(first.with_name("1.yaml")).mode == "observe"
    chain = " → ".join(names)
    assert problems_of(first) == [f"7.yaml:1:10: /extends: more than 8 files in a chain: {chain}"]


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("base.yaml", "base.yaml: no such file"),
        ("extraction", "extraction: no such file; did you mean streamguard:extraction?"),
        ("folder", "folder: not a file"),
('"../up/\\0"', '"../up/\\u0000" is no file\'s name'),
        ("~/base.yaml", "must be relative to this file, so that it means the same on every machine"),
        ("file:///etc/passwd", '"file:///etc/passwd" is no relative path; nothing is fetched from a URL'),
        ("''", 'must be streamguard:NAME or the path of a policy file, got the text ""'),
        ("null", "must be streamguard:NAME or the path of a policy file, got nothing (null)"),
        ("[a, b]", "must be streamguard:NAME or the path of a policy file, got a list of 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended(tmp_path: Path, extends: str, expected: str) -> None:
    """Only a file that is there, named relative to this one, or a shipped policy can be extended."""
    path = write(tmp_path, {"p.yaml": f"extends: {extends}\n", "folder/x": ""})
    assert problems_of(path) == [f"p.yaml:1:10: /extends: {expected}"]


@pytest.mark.parametrize(("name", "what"), [("nowhere.yaml", "no such file"), ("", "not a file")])
def test_the_file_itself_is_missing(tmp_path: Path, name: str, what: str) -> None:
    """A missing file is a policy error like any other."""
    with pytest.raises(PolicyError) as raised:
        load_policy(tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: {what}"


def test_unknown_shipped_policy() -> None:
    """A shipped policy is loaded by name; a wrong name is told the nearest."""
    with pytest.raises(PolicyError) as raised:
        load_policy("streamguard:agents")
    assert str(raised.value) == 'streamguard:agents: no shipped policy "agents"; did you mean "agent"?'


# Schema files


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ('{"type": "object" 1}', "schema.json:1:19: not JSON: expecting ',' delimiter"),
        ('{\n  "type": objekt}', "schema.json:2:11: not JSON: expecting value"),
        ("[]", "schema.json:1:1: must be a JSON Schema, which is a JSON object"),
        ("true", "schema.json:1:1: must be a JSON Schema, which is a JSON object"),
        ("", "schema.json:1:1: not JSON: expecting value"),
        ('{"a": 1, "a": 2}', 'schema.json:1:1: not JSON: the name "a" stands twice in one object'),
        ('{"minimum": NaN}', "schema.json:1:1: not JSON: NaN is no JSON number"),
        ('{"minimum": 1e999}', "schema.json:1:1: not JSON: 1e999 is too large for a number"),
        ('{"allOf": ' + "[" * 120 + "]" * 120 + "}", "schema.json:1:1: nested more than 100 deep"),
        ('{"allOf": ' + "[" * 100_000 + "]" * 100_000 + "}", "schema.json:1:1: nested more than 100 deep"),
        ('{"minimum": ' + "9" * 5000 + "}", "schema.json:1:1: not JSON: "),
    ],
)  # fmt: skip
def test_broken_schema_files(tmp_path: Path, schema: str, expected: str) -> None:
    """A schema file's mistake stands at its place in the schema file."""
    path = write(tmp_path, {"p.yaml": "json: {schema_file: schema.json}\n", "schema.json": schema})
    (found,) = problems_of(path)
    assert found.startswith(expected)


def test_schema_files_that_cannot_be_read(tmp_path: Path) -> None:
    """What is not there or too large is a mistake of the line that names it."""
    path = write(tmp_path, {"p.yaml": "json:\n  schema_file: big.json\n", "big.json": " " * (1024 * 1024 + 1)})
    assert problems_of(path) == ["p.yaml:2:16: /json/schema_file: big.json: more than 1,048,576 bytes"]
    (tmp_path / "big.json").unlink()
    assert problems_of(path) == ["p.yaml:2:16: /json/schema_file: big.json: no such file"]
    (tmp_path / "big.json").write_bytes(b'{"a": "\xff"}')
    assert problems_of(path) == ["big.json:1:8: not UTF-8"]


def test_a_schema_that_cannot_be_used(tmp_path: Path) -> None:
    """A mistake inside a schema is found with the policy, where the schema is named."""
    path = write(
        tmp_path, {"p.yaml": "json:\n  schema_file: s.json\n", "s.json": '{"properties": {"a": {"type": "objekt"}}}'}
    )
    (found,) = problems_of(path)
    assert found.startswith("p.yaml:2:16: /json/schema: ")
    assert "objekt" in found


# Guards of one's own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_guards_of_a_test.py").write_text(
        "class Quiet:\n    name, mode = 'quiet', None\n    def watch(self, ctx, now): ...\nquiet = Quiet()\nfive = 5\n"
    )
    (tmp_path / "own_guards_that_fail.py").write_text("raise SystemError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_guards_of_a_test"


def test_own_guards_are_imported_if_the_caller_allows(module: str) -> None:
    """`guards` names Python objects; the caller has to allow that."""
    policy = loads_policy(f"guards: ['{module}:quiet']\n", allow_imports=True)
    assert [guard.name for guard in policy.guards] == ["quiet"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("{module}:five", "{module}:five is no guard: it has no watch(ctx, now); wrap a function with @streamguard.guard"),
        ("{module}:six", "cannot be imported: AttributeError: module '{module}' has no attribute 'six'"),
        ("{module}.six:x", "cannot be imported: ModuleNotFoundError: No module named '{module}.six'; '{module}' is not a package"),
        ("own_guards_that_fail:x", "cannot be imported: SystemError: no"),
        ("{module}", 'must be "module:name", got the text "{module}"'),
    ],
)  # fmt: skip
def test_own_guards_that_are_none(module: str, name: str, expected: str) -> None:
    """Whatever goes wrong with an import is a mistake of the line that asks for it."""
    with pytest.raises(PolicyError) as raised:
        loads_policy(f"guards: ['{name.format(module=module)}']\n", "p.yaml", allow_imports=True)
    assert str(raised.value) == f"p.yaml:1:10: /guards/0: {expected.format(module=module)}"


# Warnings


def test_warnings(tmp_path: Path) -> None:
    """What is allowed and probably not meant is a warning with its place; the policy loads."""
    path = tmp_path / "p.yaml"
    path.write_text("json:\nretry:\n  attempts: 3\n  rules:\n    - {when: [json.*]}\n    - {when: [json.schema]}\n")
    assert [str(problem).replace(f"{tmp_path}{os.sep}", "") for problem in read_policy(path).warnings] == [
        "p.yaml:1:1: /json: empty, which is the same as leaving it out; for a section with its defaults write {}",
        "p.yaml:6:7: /retry/rules/1: never reached: retry.rules[0] decides all its reasons before",
    ]


# What comes with the package


def test_which_policies_are_shipped() -> None:
    """The shipped policies are found by name, in a checkout as in a wheel."""
    assert sorted(shipped_policies()) == SHIPPED


def test_where_shipped_policies_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside an installed package; beside it only in a checkout."""
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path / name)
    write(tmp_path, {"policies/beside.yaml": "mode: observe\n", "policies/README.md": "", "streamguard/x": ""})
    assert list(shipped_policies()) == []
    write(tmp_path, {"pyproject.toml": ""})
    assert list(shipped_policies()) == ["beside"]
    write(tmp_path, {"streamguard/policies/inside.yaml": "mode: observe\n"})
    assert list(shipped_policies()) == ["inside"]
    assert load_policy("streamguard:inside").mode == "observe"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policy(name: str) -> None:
    """Every shipped policy loads by name and by path, without a warning, and can be extended."""
    by_name = read_policy(f"streamguard:{name}")
    assert by_name.warnings == ()
    assert by_name.policy == load_policy(ROOT / "policies" / f"{name}.yaml")
    assert by_name.policy == loads_policy(f"extends: streamguard:{name}\n")
    assert by_name.policy.timeouts.total is not None


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policy_is_valid_for_editors(name: str) -> None:
    """Each begins with the line that editors look for, whose schema is there and accepts it."""

    path = ROOT / "policies" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    head, _, where = text.partition("\n")[0].partition("$schema=")
    assert head == "# yaml-language-server: "
    assert (path.parent / where).resolve() == (ROOT / "streamguard" / "policy.schema.json").resolve()
    jsonschema.Draft202012Validator(json.loads((path.parent / where).read_text())).validate(load(text).data)


def test_extending_a_shipped_policy() -> None:
    """The use they are made for: a page of one's own on top of a shipped one."""
    policy = loads_policy("extends: streamguard:strict_budget\njson: {schema: request}\nrepetition: null\n")
    base = load_policy("streamguard:extraction")
    assert policy.json_document == base.json_document.model_copy(update={"schema_": "request"})  # type: ignore[union-attr]
    assert policy.repetition is None
    assert [budget.name for budget in policy.budgets] == ["extraction"]
    assert policy.retry.rules == base.retry.rules
    assert policy.retry.attempts == 2
