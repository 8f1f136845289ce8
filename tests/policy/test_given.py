"""A policy as a caller gives it: an object or a name, held to the same rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import streamguard
from streamguard import ConfigError, JsonDocument, Policy, PolicyError, Retry, Rule
from streamguard.policy.file import load_policy
from streamguard.policy.given import as_policy
from streamguard.testing import answer, run_virtual, script


def again(**rule: Any) -> Policy:
    return Policy(retry=Retry(attempts=2, rules=[Rule(**rule)]))


FAULTS = [
    (again(when="jsn.*"), '/retry/rules/0/when/0: no reason matches "jsn.*"; did you mean "json.*"?'),
    (
        again(when="json.*", patch={"max_tokens": {"times": 2}}),
        "/retry/rules/0/patch/max_tokens: unknown keys times; did you mean {multiply: …, max: …}?",
    ),
]


@pytest.mark.parametrize(("policy", "said"), FAULTS, ids=["reason", "patch"])
def test_what_a_file_is_refused_for_a_policy_in_code_is(policy: Policy, said: str) -> None:
    """Each door says it before anything is sent, as often as it is asked."""
    source = script(answer("{}"))
    for _ in range(2):
        with pytest.raises(PolicyError) as caught:
            run_virtual(lambda: streamguard.run(source, policy=policy))
        assert str(caught.value) == said
    with pytest.raises(PolicyError):
        streamguard.GuardMiddleware(policy)
    assert source.opened == 0


def test_a_name_is_as_good_as_an_object(tmp_path: Path) -> None:
    """A shipped name, a path, a policy: all the same."""
    (tmp_path / "p.yaml").write_text("version: 1\njson: {fence: strip}\n")
    policy = Policy(json=JsonDocument(fence="strip"))
    assert as_policy(policy) is policy
    assert as_policy(tmp_path / "p.yaml") == as_policy(str(tmp_path / "p.yaml")) == policy
    assert as_policy("streamguard:extraction") == load_policy("streamguard:extraction")


NAMES = [
    ("extraction", "extraction: no such file; did you mean streamguard:extraction?"),
    ("streamguard:extracton", 'streamguard:extracton: no shipped policy "extracton"; did you mean "extraction"?'),
    ("none.yaml", "none.yaml: no such file"),
    (
        3,
        "policy must be a Policy or the name of one, such as streamguard:extraction or the path of a policy file, not int",
    ),
]


@pytest.mark.parametrize(("given", "said"), NAMES)
def test_what_is_no_policy_says_what_to_write(given: Any, said: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A sentence, whatever was given."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError) as caught:
        as_policy(given)
    assert str(caught.value) == said


@pytest.mark.parametrize("given", [None, 3, "text", Path()])
def test_what_is_no_source_says_what_to_write(given: Any) -> None:
    """The SDK's client, a stream or a request in its place is a mistake with a sentence, at every door."""
    said = f"not {type(given).__name__}; guarded\\(\\) takes a stream that is open already"
    with pytest.raises(ConfigError, match=said):
        run_virtual(lambda: streamguard.run(given, policy=Policy()))
    with pytest.raises(ConfigError, match=said):
        streamguard.stream(given, policy=Policy())
    with pytest.raises(ConfigError, match=said):
        streamguard.sync.run(given, policy=Policy())
