"""Policy files: what they say, what they extend, and the exact words for everything that is wrong with them."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.errors import PolicyError
from streamguard.files.yaml import load
from streamguard.guards.caps import Caps
from streamguard.guards.completion import Completion
from streamguard.guards.content import Content
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import MinRate, Timeouts
from streamguard.policy.file import (
    MAX_CHAIN,
    _Reading,
    load_policy,
    loads_policy,
    policy_schema,
    read_policy,
    shipped_policies,
)
from streamguard.policy.model import Policy
from streamguard.retry.rules import Backoff, Retry, Rule
from tests.data import ROOT
from tests.models.bad_answers import Invoice

SHIPPED = ["agent", "extraction", "interactive_chat", "long_document", "strict_budget", "tool_input"]


def mistakes(text: str | bytes, base: Path | None = None) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        loads_policy(text, "p.yaml", base)
    return [str(problem) for problem in raised.value.problems]


BROKEN: list[tuple[str, list[str]]] = [
    ("verison: 1\n", ['p.yaml:1:1: /verison: unknown key; did you mean "version"?']),
    ("version: '1'\n", ['p.yaml:1:10: /version: must be 1, got the text "1"']),
    ("version: 2\n", ["p.yaml:1:10: /version: must be 1, got 2"]),
    ("timeouts: 10\n", ["p.yaml:1:11: /timeouts: must be a mapping, got 10"]),
    ("timeouts: [connect]\n", ["p.yaml:1:11: /timeouts: must be a mapping, got a list of 1"]),
    (
        "timeouts: {connect: 10s}\n",
        [
            "p.yaml:1:21: /timeouts/connect: must be seconds, or null for no limit: a finite number, more than zero, not '10s'; times are in seconds, without a unit: write 10"
        ],
    ),
    (
        "timeouts: {total: '4 min'}\n",
        [
            "p.yaml:1:19: /timeouts/total: must be seconds, or null for no limit: a finite number, more than zero, not '4 min'; times are in seconds, without a unit: write 240"
        ],
    ),
    (
        "timeouts: {total: '240'}\n",
        [
            "p.yaml:1:19: /timeouts/total: must be seconds, or null for no limit: a finite number, more than zero, not '240'; leave the quotes out: write 240"
        ],
    ),
    (
        "timeouts: {alive: true}\n",
        [
            "p.yaml:1:19: /timeouts/alive: must be seconds, or null for no limit: a finite number, more than zero, not True"
        ],
    ),
    (
        "timeouts: {idle: 5, Progress: 5, progres: 5}\n",
        [
            'p.yaml:1:12: /timeouts/idle: unknown key; did you mean "progress"?',
            'p.yaml:1:21: /timeouts/Progress: unknown key; did you mean "progress"?',
            'p.yaml:1:34: /timeouts/progres: unknown key; did you mean "progress"?',
        ],
    ),
    (
        "timeouts: {close_grace: null}\n",
        ["p.yaml:1:25: /timeouts/close_grace: must be seconds: a finite number, zero or more, not None"],
    ),
    (
        "timeouts: {progress: -1}\n",
        [
            "p.yaml:1:22: /timeouts/progress: must be seconds, or null for no limit: a finite number, more than zero, not -1"
        ],
    ),
    ("timeouts: {min_rate: 5}\n", ["p.yaml:1:22: /timeouts/min_rate: must be a mapping, got 5"]),
    ("timeouts: {min_rate: {}}\n", ['p.yaml:1:22: /timeouts/min_rate: the key "tokens_per_second" is missing']),
    (
        "caps: {cost_usd: 0.04}\n",
        ['p.yaml:1:18: /caps/cost_usd: cost_usd is money, and a number loses digits: quote it, as in "0.04"'],
    ),
    (
        "caps: {cost_usd: 1}\n",
        ['p.yaml:1:18: /caps/cost_usd: cost_usd is money, and a number loses digits: quote it, as in "1"'],
    ),
    (
        "caps: {cost_usd: four}\n",
        ["p.yaml:1:18: /caps/cost_usd: must be an amount of USD in quotes, such as \"3.00\", not 'four'"],
    ),
    ("caps: {cost_usd: '-1'}\n", ["p.yaml:1:18: /caps/cost_usd: must be a positive, finite amount of USD, not '-1'"]),
    ("caps: {max_tokens: 200}\n", ['p.yaml:1:8: /caps/max_tokens: unknown key; did you mean "output_tokens"?']),
    (
        "caps: {characters: 1_000}\n",
        ["p.yaml:1:20: /caps/characters: must be a whole number, 1 or more, not '1_000'; write 1000"],
    ),
    ("caps: {characters: 1.5}\n", ["p.yaml:1:20: /caps/characters: must be a whole number, 1 or more, not 1.5"]),
    (
        "json: {where: anywhere}\n",
        ['p.yaml:1:15: /json/where: must match ^(text|tools|tool:.+)$, got the text "anywhere"'],
    ),
    (
        "json: {expect: objekt}\n",
        [
            'p.yaml:1:16: /json/expect: must be "object", "array" or "any", got the text "objekt"; did you mean "object"?'
        ],
    ),
    (
        "json: {assert_formats: yes}\n",
        [
            'p.yaml:1:24: /json/assert_formats: must be true or false, got the text "yes"; YAML 1.2 has only true and false: write true'
        ],
    ),
    (
        "json: {assert_formats: 'true'}\n",
        [
            'p.yaml:1:24: /json/assert_formats: must be true or false, got the text "true"; leave the quotes out: write true'
        ],
    ),
    (
        "json: {fence: strip it}\n",
        ['p.yaml:1:15: /json/fence: must be "reject" or "strip", got the text "strip it"; did you mean "strip"?'],
    ),
    (
        "json: {enough_when: /total}\n",
        ['p.yaml:1:21: /json/enough_when: must be a list, got the text "/total"; write it in [ ]'],
    ),
    (
        "json: {enough_when: [/a], where: tools}\n",
        ["p.yaml:1:7: /json: enough_when needs one document: where: text or tool:NAME"],
    ),
    ("json: {max_depth: 1000}\n", ["p.yaml:1:19: /json/max_depth: must be at most 256, got 1000"]),
    ("json: {max_depth: 0}\n", ["p.yaml:1:19: /json/max_depth: must be at least 1, got 0"]),
    ("json: {schema: true}\n", ['p.yaml:1:16: /json/schema: must be "request" or a mapping, got true']),
    (
        "json: {schema: {type: object}, schema_file: x.json}\n",
        ["p.yaml:1:32: /json/schema_file: give either schema or schema_file"],
    ),
    ("json: {schema_file: 5}\n", ["p.yaml:1:21: /json/schema_file: must be the path of a JSON file, got 5"]),
    (
        "completion: {accept: end_turn}\n",
        ['p.yaml:1:22: /completion/accept: must be a list, got the text "end_turn"; write [end_turn]'],
    ),
    (
        "completion: {accept: [end_trun]}\n",
        ["p.yaml:1:22: /completion/accept: unknown stop reason 'end_trun'; did you mean 'end_turn'?"],
    ),
    (
        "completion: {accept: []}\n",
        ["p.yaml:1:22: /completion/accept: accept needs at least one stop reason: without one every answer trips"],
    ),
    (
        "json: {where: tools}\ncompletion: {accept: [end_turn]}\n",
        [
            "p.yaml:2:22: /completion/accept: where: tools looks for tool input, but completion.accept has no tool_use, so no answer can pass"
        ],
    ),
    ("content: {reason: content.x}\n", ["p.yaml:1:10: /content: must be a list, got a mapping"]),
    ("content:\n  - pattern: x\n", ['p.yaml:2:5: /content/0: the key "reason" is missing']),
    ("mode: off\n", ['p.yaml:1:7: /mode: must be "enforce" or "observe", got the text "off"']),
    ("mode: on\n", ['p.yaml:1:7: /mode: must be "enforce" or "observe", got the text "on"']),
    (
        "deliver: comitted\n",
        [
            'p.yaml:1:10: /deliver: must be "committed", "live" or "restarting", got the text "comitted"; did you mean "committed"?'
        ],
    ),
    ("retry: {attempts: 0}\n", ["p.yaml:1:19: /retry/attempts: must be at least 1, got 0"]),
    ("retry: {attempts: 1000}\n", ["p.yaml:1:19: /retry/attempts: must be at most 100, got 1000"]),
    ("retry: {attempts: three}\n", ['p.yaml:1:19: /retry/attempts: must be a whole number, got the text "three"']),
    ("retry: {max_retries: 2}\n", ['p.yaml:1:9: /retry/max_retries: unknown key; did you mean "attempts"?']),
    ("retry:\n  rules:\n    when: [json.*]\n", ["p.yaml:3:5: /retry/rules: must be a list, got a mapping"]),
    ("retry:\n  rules:\n    - on: [json.*]\n", ['p.yaml:3:7: /retry/rules/0/on: unknown key; use "when"']),
    ("retry:\n  rules:\n    - {wait: none}\n", ['p.yaml:3:7: /retry/rules/0: the key "when" is missing']),
    (
        "retry:\n  rules:\n    - {when: []}\n",
        ["p.yaml:3:14: /retry/rules/0/when: must have at least 1 item, got an empty list"],
    ),
    (
        "retry:\n  rules:\n    - {when: {json: all}}\n",
        ["p.yaml:3:14: /retry/rules/0/when: must be a list, got a mapping"],
    ),
    (
        "retry:\n  rules:\n    - {when: [5]}\n",
        ['p.yaml:3:15: /retry/rules/0/when/0: must be text, got 5; write "5" in quotes'],
    ),
    (
        "retry:\n  rules:\n    - {when: [jsn.*]}\n",
        ['p.yaml:3:15: /retry/rules/0/when/0: no reason matches "jsn.*"; did you mean "json.*"?'],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.malfomed, provider.overload, stop.nothing, acme.mine, timeout]}\n",
        [
            'p.yaml:3:15: /retry/rules/0/when/0: no reason matches "json.malfomed"; did you mean "json.malformed"?',
            'p.yaml:3:30: /retry/rules/0/when/1: no reason matches "provider.overload"; did you mean "provider.overloaded"?',
            'p.yaml:3:49: /retry/rules/0/when/2: no reason matches "stop.nothing"; there are stop.max_tokens, stop.refusal, stop.pause, stop.context_window, stop.empty, stop.not_allowed, stop.unknown',
            'p.yaml:3:74: /retry/rules/0/when/4: no reason matches "timeout"; did you mean "timeout.*"?',
        ],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], wait: 5s}\n",
        [
            'p.yaml:3:30: /retry/rules/0/wait: must be "none", a number or a mapping, got the text "5s"; times are in seconds, without a unit: write 5'
        ],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], wait: nonee}\n",
        [
            'p.yaml:3:30: /retry/rules/0/wait: must be "none", a number or a mapping, got the text "nonee"; did you mean "none"?'
        ],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], wait: -1}\n",
        ["p.yaml:3:30: /retry/rules/0/wait: must be at least 0, got -1"],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], wait: {initial: 1, jitter: ful, facter: 2}}\n",
        [
            'p.yaml:3:51: /retry/rules/0/wait/jitter: must be "full" or "none", got the text "ful"; did you mean "full"?',
            'p.yaml:3:56: /retry/rules/0/wait/facter: unknown key; did you mean "factor"?',
        ],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], give_up: true, max_uses: 1}\n",
        ["p.yaml:3:7: /retry/rules/0: give_up ends the call, so max_uses can have no effect"],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], patch: [max_tokens]}\n",
        ["p.yaml:3:31: /retry/rules/0/patch: must be a mapping, got a list of 1"],
    ),
    (
        "retry:\n  rules:\n    - {when: [json.*], patch: {max_tokens: {multiply: 0}, stream: false, model: null}}\n",
        [
            "p.yaml:3:55: /retry/rules/0/patch/max_tokens/multiply: multiply must be a positive number",
            "p.yaml:3:67: /retry/rules/0/patch/stream: every request is sent as a stream; nothing else can be guarded",
            "p.yaml:3:81: /retry/rules/0/patch/model: null removes model, and no request goes without it",
        ],
    ),
    ("budgets: {name: x}\n", ["p.yaml:1:10: /budgets: must be a list, got a mapping"]),
    ("budgets:\n  - {name: x}\n", ["p.yaml:2:5: /budgets/0: budget 'x' limits nothing: give cost_usd, tokens or both"]),
    (
        "budgets:\n  - {name: x, cost_usd: 25.00}\n",
        ['p.yaml:2:25: /budgets/0/cost_usd: must be quoted, so that no digit is lost: "25.0"'],
    ),
    (
        "budgets:\n  - {name: x, cost_usd: '25.00', mode: hard}\n",
        ['p.yaml:2:40: /budgets/0/mode: must be "strict" or "calibrated", got the text "hard"'],
    ),
    (
        "budgets:\n  - {name: a b, tokens: 5}\n",
        [
            "p.yaml:2:12: /budgets/0/name: 'a b' must be letters, digits, '.', '_' and '-': it names the budget in the ledger"
        ],
    ),
    (
        "prices: {m: {input: 3, output: '15'}}\n",
        ['p.yaml:1:21: /prices/m/input: must be quoted, so that no digit is lost: "3"'],
    ),
    ("prices: {m: {input: '3'}}\n", ['p.yaml:1:13: /prices/m: the key "output" is missing']),
    (
        "prices: {m: {input: '3', output: '4', as_of: yesterday}}\n",
        ["p.yaml:1:13: /prices/m: must be a date in quotes, such as \"2026-11-30\", not 'yesterday'"],
    ),
    ("prices: [m]\n", ["p.yaml:1:9: /prices: must be a mapping, got a list of 1"]),
    ("guards: 'a:b'\n", ['p.yaml:1:9: /guards: must be a list, got the text "a:b"; write it in [ ]']),
    ("guards: [a.b]\n", ['p.yaml:1:10: /guards/0: must be "module:name", got the text "a.b"']),
    (
        "guards: ['mypackage.guards:no_shouting']\n",
        [
            "p.yaml:1:10: /guards/0: mypackage.guards:no_shouting is Python code, and this caller does not let policies import any (allow_imports)"
        ],
    ),
    ("extends: 5\n", ["p.yaml:1:10: /extends: must be streamguard:NAME or the path of a policy file, got 5"]),
    (
        "extends: streamguard:extract\n",
        ['p.yaml:1:10: /extends: no shipped policy "extract"; did you mean "extraction"?'],
    ),
    (
        "extends: streamguard:nothing_like_it\n",
        [
            'p.yaml:1:10: /extends: no shipped policy "nothing_like_it"; there are agent, extraction, interactive_chat, long_document, strict_budget, tool_input'
        ],
    ),
    (
        "extends: https://example.com/x.yaml\n",
        ['p.yaml:1:10: /extends: "https://example.com/x.yaml" is no relative path; nothing is fetched from a URL'],
    ),
    (
        "extends: /etc/policy.yaml\n",
        ["p.yaml:1:10: /extends: must be relative to this file, so that it means the same on every machine"],
    ),
    (
        "extends: base.yaml\n",
        ["p.yaml:1:10: /extends: base.yaml is relative to a file, and this text has none; give base="],
    ),
    (
        "json: {schema_file: a.json}\n",
        ["p.yaml:1:21: /json/schema_file: a.json is relative to a file, and this text has none; give base="],
    ),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_broken(text: str, expected: list[str]) -> None:
    """Each mistake is reported at its place, in words that say what would be right."""
    assert mistakes(text) == expected


def test_every_mistake_at_once_in_order() -> None:
    """One run names all mistakes of all sections, in the order of the file."""
    text = """\
version: 1
retry:
  rules:
    - on: [json.*]
    - {when: [jsn.*], wait: 10s}
  attempts: 3.0
timeouts: {idle: 60, total: 4m}
extends: streamguard:extractoin
mode: observed
"""
    assert mistakes(text) == [
        'p.yaml:4:7: /retry/rules/0/on: unknown key; use "when"',
        'p.yaml:5:15: /retry/rules/1/when/0: no reason matches "jsn.*"; did you mean "json.*"?',
        'p.yaml:5:29: /retry/rules/1/wait: must be "none", a number or a mapping, got the text "10s"; times are in seconds, without a unit: write 10',
        "p.yaml:6:13: /retry/attempts: must be a whole number, got 3.0; write 3",
        'p.yaml:7:12: /timeouts/idle: unknown key; did you mean "progress"?',
        "p.yaml:7:29: /timeouts/total: must be seconds, or null for no limit: a finite number, more than zero, not '4m'; times are in seconds, without a unit: write 240",
        'p.yaml:8:10: /extends: no shipped policy "extractoin"; did you mean "extraction"?',
        'p.yaml:9:7: /mode: must be "enforce" or "observe", got the text "observed"; did you mean "observe"?',
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000 + "]" * 5000,
        "".join(f"{'  ' * n}a:\n" for n in range(5000))[: 250 * 1024],
        "a: " + "x" * 300 * 1024,
        "a: &a [x]\nb: [*a, *a]\nc: !!python/object:os.system x\n",
        "mode: enforce\nmode: observe\n",
        "- version: 1\n",
        "",
        b"\x00\x01\x02",
        b"mode: \xff\xfe",
    ],
)
def test_hostile_text_is_a_policy_error(text: str | bytes) -> None:
    """Nothing that a file can hold gets past the reader, whatever its size, depth or encoding."""
    with pytest.raises(PolicyError) as raised:
        loads_policy(text, "p.yaml")
    assert all(problem.line and problem.column for problem in raised.value.problems)


FULL = """\
version: 1
mode: observe
deliver: restarting
timeouts:
  connect: 10
  first_token: 60
  first_token_per_1k_input: 0.1
  progress: 60.5
  progress_thinking: 300
  alive: null
  attempt: 90
  total: 240
  min_rate: {tokens_per_second: 1, window: 30}
  close_grace: 2
caps: {output_tokens: 2000, thinking_tokens: 8000, characters: 100000, tool_calls: 8, cost_usd: "0.04"}
json:
  where: tool:save
  expect: object
  schema: {type: object, properties: {total: {type: number}}, required: [total]}
  numbers: plain
  duplicate_names: allow
  trailing: cut
  enough_when: [/total]
  max_depth: 32
  mode: enforce
completion: {accept: [end_turn, tool_use], require_content: false}
content: [{reason: content.apology, pattern: "^I('m| am) sorry", where: text}]
repetition: {max_whitespace: 64, max_period: 200, min_repeats: 8}
retry:
  attempts: 3
  rules:
    - {when: [json.*, content.apology], wait: none}
    - {when: [stop.max_tokens], max_uses: 1, patch: {max_tokens: {multiply: 2, max: 8192}, temperature: null}}
    - {when: [provider.overloaded], wait: {initial: 0.5, factor: 2, max: 20, jitter: full}, respect_retry_after: true}
    - {when: [stop.refusal], wait: 1.5, patch: {model: claude-other}}
    - {when: [provider.*], give_up: true}
budgets:
  - {name: invoices-nightly, per: job, cost_usd: "25.00", mode: strict, ledger: "sqlite:run/budget.db"}
prices: {claude-x: {input: "3.00", output: "15.00", tiers: [{above: 200000, input: "6", output: "22.5"}], as_of: "2026-11-01"}}
"""

CODE: dict[str, Any] = {
    "version": 1,
    "mode": "observe",
    "deliver": "restarting",
    "timeouts": Timeouts(
        connect=10,
        first_token=60,
        first_token_per_1k_input=0.1,
        progress=60.5,
        progress_thinking=300,
        alive=None,
        attempt=90,
        total=240,
        min_rate=MinRate(tokens_per_second=1, window=30),
        close_grace=2,
    ),
    "caps": Caps(output_tokens=2000, thinking_tokens=8000, characters=100_000, tool_calls=8, cost_usd=Decimal("0.04")),
    "json": JsonDocument(
        where="tool:save",
        expect="object",
        schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},  # type: ignore[arg-type]
        numbers="plain",
        duplicate_names="allow",
        trailing="cut",
        enough_when=("/total",),
        max_depth=32,
        mode="enforce",
    ),
    "completion": Completion(accept=("end_turn", "tool_use"), require_content=False),
    "content": (Content(reason="content.apology", pattern="^I('m| am) sorry", where="text"),),
    "repetition": Repetition(max_whitespace=64, max_period=200, min_repeats=8),
    "retry": Retry(
        attempts=3,
        rules=(
            Rule(when=("json.*", "content.apology"), wait="none"),
            Rule(
                when=("stop.max_tokens",),
                max_uses=1,
                patch={"max_tokens": {"multiply": 2, "max": 8192}, "temperature": None},  # type: ignore[arg-type]
            ),
            Rule(
                when=("provider.overloaded",),
                wait=Backoff(initial=0.5, factor=2, max=20, jitter="full"),
                respect_retry_after=True,
            ),
            Rule(when=("stop.refusal",), wait=1.5, patch={"model": "claude-other"}),  # type: ignore[arg-type]
            Rule(when=("provider.*",), give_up=True),
        ),
    ),
    "budgets": [
        {
            "name": "invoices-nightly",
            "per": "job",
            "cost_usd": Decimal("25.00"),
            "mode": "strict",
            "ledger": "sqlite:run/budget.db",
        }
    ],
    "prices": {
        "claude-x": {
            "input": "3.00",
            "output": "15.00",
            "tiers": [{"above": 200_000, "input": "6", "output": "22.5"}],
            "as_of": "2026-11-01",
        }
    },
}


def test_file_and_code_give_equal_objects() -> None:
    """The whole format, section by section and as a whole; equal policies have equal hashes."""
    from_file, from_code = loads_policy(FULL), Policy(**CODE)
    for name in Policy.model_fields:
        assert getattr(from_file, name) == getattr(from_code, name), name
    assert from_file == from_code
    assert hash(from_file) == hash(from_code)


def test_the_least_file_is_the_default_policy() -> None:
    """A file that says nothing says what `Policy()` says."""
    assert loads_policy("version: 1\n") == Policy()
    assert loads_policy("{}\n") == Policy()


def test_no_environment_and_no_types_of_yaml_1_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """`$NAME` is text, and text stays text."""
    monkeypatch.setenv("SECRET", "x")
    policy = loads_policy('content: [{reason: content.x, pattern: "${SECRET} $SECRET 12:30:00 no"}]\n')
    assert policy.content[0].pattern == "${SECRET} $SECRET 12:30:00 no"


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
    from streamguard.files.yaml import load

    path = ROOT / "policies" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    head, _, where = text.partition("\n")[0].partition("$schema=")
    assert head == "# yaml-language-server: "
    assert (path.parent / where).resolve() == (ROOT / "streamguard" / "policy.schema.json").resolve()
    jsonschema.Draft202012Validator(json.loads((path.parent / where).read_text())).validate(load(text).data)


def test_the_full_format_is_valid_for_editors() -> None:
    """The schema accepts the whole format, and refuses what the loader refuses: money that is not quoted."""
    from streamguard.files.yaml import load

    validator = jsonschema.Draft202012Validator(policy_schema())
    data = load(FULL).data
    validator.validate({**data, "extends": "streamguard:extraction", "guards": ["a.b:c"]})
    assert [error.json_path for error in validator.iter_errors({**data, "caps": {"cost_usd": 0.04}})] == ["$.caps"]


def test_extending_a_shipped_policy() -> None:
    """The use they are made for: a page of one's own on top of a shipped one."""
    policy = loads_policy("extends: streamguard:strict_budget\njson: {schema: request}\nrepetition: null\n")
    base = load_policy("streamguard:extraction")
    assert policy.json_document == base.json_document.model_copy(update={"schema_": "request"})  # type: ignore[union-attr]
    assert policy.repetition is None
    assert [budget.name for budget in policy.budgets] == ["extraction"]
    assert policy.retry.rules == base.retry.rules
    assert policy.retry.attempts == 2


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
