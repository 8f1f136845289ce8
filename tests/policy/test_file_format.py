"""Policy files: the whole format, what comes with the package, sections that are empty or off."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from streamguard.errors import PolicyError
from streamguard.files.yaml import load
from streamguard.guards.caps import Caps
from streamguard.guards.completion import Completion
from streamguard.guards.content import Content
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import MinRate, Timeouts
from streamguard.policy.file import (
    loads_policy,
    policy_schema,
)
from streamguard.policy.model import Policy
from streamguard.retry.rules import Backoff, Retry, Rule


def mistakes(text: str | bytes, base: Path | None = None) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        loads_policy(text, "p.yaml", base)
    return [str(problem) for problem in raised.value.problems]


SHIPPED = ["agent", "extraction", "interactive_chat", "long_document", "strict_budget", "tool_input"]


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


def test_the_full_format_is_valid_for_editors() -> None:
    """The schema accepts the whole format, and refuses what the loader refuses: money that is not quoted."""

    validator = jsonschema.Draft202012Validator(policy_schema())
    data = load(FULL).data
    validator.validate({**data, "extends": "streamguard:extraction", "guards": ["a.b:c"]})
    assert [error.json_path for error in validator.iter_errors({**data, "caps": {"cost_usd": 0.04}})] == ["$.caps"]
