"""Policy files: what they say, what they extend, and the exact words for everything that is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamguard.errors import PolicyError
from streamguard.policy.file import (
    loads_policy,
)

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
