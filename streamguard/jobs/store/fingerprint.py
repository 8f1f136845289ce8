"""What a job asks, as far as all its rows share it: template, schema, policy, model. And how two such differ.

In charge of telling whether kept results answer the question that is asked now. Only what decides which answers are
right is looked at: clocks, caps, retries, prices and budgets may change between runs, for that is what one does after
failures. It does not know rows: what is asked of each has a fingerprint of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamguard.files.json_pointer import pointer
from streamguard.files.mistakes import shown
from streamguard.guards.checks.custom import CustomCheck
from streamguard.guards.checks.spec import Check
from streamguard.policy.model import Policy

MOST_DIFFERENCES = 10
"""Differences that are listed, of each part."""

_MISSING = object()


class Fingerprint(msgspec.Struct, frozen=True):
    """The shared parts of a job's question, as JSON, so that the next run can say what changed."""

    template: str | None
    schema: dict[str, Any] | None
    policy: dict[str, Any]
    model: dict[str, Any]

    @property
    def digest(self) -> str:
        """A short name for all of it."""
        text = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(policy: Policy, template: str | None, overrides: Mapping[str, Any]) -> Fingerprint:
    """Of a job.

    :param template: the template's text.
    :param overrides: what the job says of every request: `model`, `max_tokens`.
    """
    section = policy.json_document
    document = None if section is None else section.model_dump(mode="json", by_alias=True, exclude={"schema_file"})
    schema = None if document is None else document.pop("schema")
    if schema is not None and not isinstance(schema, dict) and document is not None:
        document["schema"] = schema  # where it comes from: the request
    said = {
        "mode": policy.mode,
        "json": document,
        **({"checks": [_check(check) for check in policy.checks]} if policy.checks else {}),
        "completion": policy.completion.model_dump(mode="json", by_alias=True),
        "content": [content.model_dump(mode="json", by_alias=True) for content in policy.content],
        "guards": [getattr(guard, "name", type(guard).__qualname__) for guard in policy.guards],
    }
    return Fingerprint(
        template=template,
        schema=schema if isinstance(schema, dict) else None,
        policy=json.loads(json.dumps(said, default=str)),
        model=dict(overrides),
    )


def _check(check: Check | CustomCheck) -> dict[str, Any]:
    if isinstance(check, Check):
        return check.model_dump(mode="json", by_alias=True)
    said = msgspec.structs.asdict(check)
    return {key: value for key, value in said.items() if key != "function"}


def salt(policy: Policy | None) -> str:
    """Return what decides, besides the request, which answer is right: a digest of `json` and `checks`."""
    if policy is None or policy.json_document is None:
        return ""
    output = policy.json_document.output
    left_out = {"mode", "field_validators"} if output is not None else {"mode", "field_validators", "model"}
    if not policy.json_document.grounded:
        left_out.add("grounded")  # so that results from before there was such a key are still known
    section = policy.json_document.model_dump(mode="json", by_alias=True, exclude=left_out)
    for entry in section.get("grounded", ()):
        del entry["mode"]
    if output is not None:
        section["schema"] = [output.plan().accepts, output.plan().wire]
    if policy.checks:
        section["checks"] = [
            {key: value for key, value in _check(check).items() if key not in ("mode", "say", "name")}
            for check in policy.checks
        ]
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()


def request_fingerprint(salted: str, params: Mapping[str, Any]) -> str:
    """Return the fingerprint of one row's request.

    :param salted: what `salt` returned for the policy.
    """
    text = f"{salted}\n{json.dumps(params, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    """What changed, one sentence each."""
    yield from _some(_text_differences("template", before.template, now.template))
    for name in ("schema", "policy", "model"):
        yield from _some(_value_differences(name, getattr(before, name), getattr(now, name)))


def _some(found: Iterator[str]) -> Iterator[str]:
    said = list(found)
    yield from said[:MOST_DIFFERENCES]
    if len(said) > MOST_DIFFERENCES:
        yield f"and {len(said) - MOST_DIFFERENCES:,} more like that"


def _text_differences(name: str, before: str | None, now: str | None) -> Iterator[str]:
    if before is None or now is None:
        if before is not now:
            yield f"{name}: {'there was none' if before is None else 'there is none any more'}"
        return
    old, new = before.splitlines(), now.splitlines()
    for number in range(max(len(old), len(new))):
        was, is_ = (lines[number] if number < len(lines) else None for lines in (old, new))
        if was != is_:
            yield f"{name}: line {number + 1} was {_quoted(was)}, is {_quoted(is_)}"
            return  # what follows a line that was put in differs, too
    if before != now:
        yield f"{name}: its line ends changed"


def _quoted(line: str | None) -> str:
    return "not there" if line is None else shown(line).removeprefix("the text ")


def _value_differences(name: str, before: Any, now: Any) -> Iterator[str]:
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for path in dict.fromkeys([*old, *new]):
        was, is_ = old.get(path, _MISSING), new.get(path, _MISSING)
        if was is _MISSING or is_ is _MISSING or was != is_ or type(was) is not type(is_):
            yield f"{name}{f': {pointer(path)}' if path else ''}: was {_said(was)}, is {_said(is_)}"


def _said(value: Any) -> str:
    return "not there" if value is _MISSING else shown(value).removeprefix("the text ")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values of a JSON value that hold no others, each with its path."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif path:
        yield path, value
