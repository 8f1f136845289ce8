"""The hint that a policy adds to the next request: its rule's template, with what the policy and its schema know.

In charge of collecting the names and schemas that a hint may speak of. The words are `retry.hints`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamguard.events import Failed
from streamguard.guards.checks.spec import Check
from streamguard.policy.model import Policy
from streamguard.request import Request
from streamguard.retry.hints import words, written
from streamguard.verdict import Decision, Trip


def next_hint(policy: Policy, decision: Decision, ended: Trip | Failed, request: Request | None) -> str | None:
    """Return what the next request says of the answer that was rejected; `None` for no word.

    :param request: the call's own.
    """
    if decision.action != "retry" or decision.rule is None or not isinstance(ended, Trip):
        return None
    template = policy.retry.rules[decision.rule].hint
    return None if template is None else written(template, ended, words(_own_texts(policy)), _schemas(policy, request))


def _own_texts(policy: Policy) -> Iterator[str | None]:
    """What the policy's author wrote of members of the document."""
    for check in policy.checks:
        yield from (check.at, check.that) if isinstance(check, Check) else check.needs
    section = policy.json_document
    yield from (entry.at for entry in section.grounded) if section is not None else ()


def _schemas(policy: Policy, request: Request | None) -> Sequence[Mapping[str, Any]]:
    section = policy.json_document
    if section is None:
        return ()
    own = section.own_schema()
    if own is not None or section.schema_ != "request" or request is None:
        return () if own is None else (own,)
    if section.where == "text":
        return () if request.output_schema is None else (request.output_schema,)
    name = section.where.removeprefix("tool:")
    return [schema for tool, schema in request.tools.items() if section.where == "tools" or tool == name]
