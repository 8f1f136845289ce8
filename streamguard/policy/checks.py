"""What one section of a policy cannot see by itself: contradictions between sections, and rules without effect.

In charge of findings, for policies from files and from code alike. An `error` is a policy that cannot do what it says;
a `warning` is allowed and probably not meant. It knows no files: each finding names the value's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from streamguard.errors import ConfigError
from streamguard.files.suggest import closest, did_you_mean
from streamguard.files.yaml import Path
from streamguard.guards.checks.custom import CustomCheck
from streamguard.policy.grounded import mistakes
from streamguard.policy.model import Policy
from streamguard.pricing.price import Price
from streamguard.request import is_scaling
from streamguard.retry.rules import NEVER_RETRIED
from streamguard.verdict import OWN_PREFIXES, REASONS

PriceOf = Callable[[str], Price | None]
"""Looks up a model's price; `None` if no source names it. `PriceBook.price` is one."""


class Finding(msgspec.Struct, frozen=True):
    """Something about a policy that a person should know before it runs."""

    level: Literal["error", "warning"]
    path: Path
    """Of the value that it is about, with the keys that a file has."""
    problem: str
    offset: int | None = None
    """The character of the value, if it is a text and one of them is to blame."""


def check_policy(
    policy: Policy,
    *,
    price_of: PriceOf | None = None,
    model: str | None = None,
    needs_total: bool = False,
    sees_request: bool = True,
) -> list[Finding]:
    """Look across a policy's sections.

    :param price_of: how to find prices besides the policy's own; `None` leaves this to whoever sends requests.
    :param model: the model that requests will ask for, if it is known.
    :param needs_total: whether nobody watches (a job, the proxy), so that a call without `timeouts.total` is an error.
    :param sees_request: whether the source shows its request; an opaque one cannot be patched or priced.
    """
    findings = [
        *unknown_reasons(_patterns(policy), _own_reasons(policy)),
        *_unreachable_rules(policy),
        *_patches(policy),
        *_continued(policy),
        *_prices(policy, price_of, model),
        *_json(policy),
        *_checks(policy),
        *_budgets(policy),
        *_clocks(policy, needs_total),
        *_hedge(policy),
    ]
    return findings if sees_request else [*findings, *_opaque(policy)]


def reasons_of(policy: Policy) -> list[str]:
    """Every reason that this policy can meet and name: the package's own and those of its `checks` and `content`."""
    return [*REASONS, *_own_reasons(policy)]


def _own_reasons(policy: Policy) -> list[str]:
    functions = (one for one in policy.guards if isinstance(one, CustomCheck))
    return list(dict.fromkeys(one.reason for one in (*policy.checks, *policy.content, *functions)))


def unknown_reasons(rules: Iterable[tuple[Path, str]], own: Iterable[str]) -> Iterator[Finding]:
    """`when` patterns that no reason matches. Prefixes nobody knows may be those of guards of one's own.

    :param rules: each pattern with its path.
    :param own: reasons of the policy's `checks` and `content`.
    """
    known = [*REASONS, *own]
    prefixes = {reason.partition(".")[0] for reason in REASONS}
    free = {prefix.rstrip(".") for prefix in OWN_PREFIXES}
    for path, pattern in rules:
        if any(fnmatchcase(reason, pattern) for reason in known):
            continue
        prefix, dot, _ = pattern.partition(".")
        similar = _similar(pattern, known, prefixes)
        if dot and not similar and (prefix in free or prefix not in prefixes):
            continue
        yield Finding("error", path, f'no reason matches "{pattern}"{similar or _under(prefix, known)}')


def _patterns(policy: Policy) -> Iterator[tuple[Path, str]]:
    for index, rule in enumerate(policy.retry.rules):
        for place, pattern in enumerate(rule.when):
            yield ("retry", "rules", index, "when", place), pattern


def _similar(pattern: str, known: list[str], prefixes: set[str]) -> str:
    prefix, dot, rest = pattern.partition(".")
    if not dot or rest == "*":
        close = closest(prefix, prefixes)
        return f'; did you mean "{close}.*"?' if close and (close != prefix or not dot) else ""
    return did_you_mean(pattern, known)


def _under(prefix: str, known: list[str]) -> str:
    there = [reason for reason in known if reason.startswith(f"{prefix}.")]
    return f"; there are {', '.join(there)}" if there else '; reasons look like "json.malformed" or "timeout.*"'


def _unreachable_rules(policy: Policy) -> Iterator[Finding]:
    known = reasons_of(policy)
    taken: dict[str, int] = {}
    for index, rule in enumerate(policy.retry.rules):
        mine = [reason for reason in known if rule.matches(reason)]
        never = [reason for reason in mine if any(fnmatchcase(reason, pattern) for pattern in NEVER_RETRIED)]
        if mine and never == mine and not rule.give_up:
            yield Finding(
                "warning", ("retry", "rules", index), f"{_listed(never)}: never retried, whatever a rule says"
            )
        before = sorted({taken[reason] for reason in mine if reason in taken})
        if mine and all(reason in taken for reason in mine) and not _names_unknown(rule.when, known):
            which = " and ".join(f"retry.rules[{earlier}]" for earlier in before)
            yield Finding(
                "warning", ("retry", "rules", index), f"never reached: {which} decides all its reasons before"
            )
        for reason in mine:
            taken.setdefault(reason, index)
    if policy.retry.attempts == 1 and any(not rule.give_up and rule.accept is None for rule in policy.retry.rules):
        yield Finding("warning", ("retry", "rules"), "no effect: attempts is 1, so nothing is asked again")


def _names_unknown(patterns: Sequence[str], known: list[str]) -> bool:
    """Whether a rule is also about reasons of guards of one's own."""
    return any(not any(fnmatchcase(reason, pattern) for reason in known) for pattern in patterns)


def _listed(reasons: list[str]) -> str:
    return ", ".join(reasons[:3]) + (" …" if len(reasons) > 3 else "")


_SCALING_WORDS = frozenset({"times", "most", "multiply", "max"})
"""Keys that only a scaling has, right or wrong: a field that held such a mapping would go out as it is."""
_WHOLE_NUMBERS = ("max_tokens", "top_k")
_REQUIRED = ("model", "messages", "max_tokens")
"""Fields without which no request is accepted."""
_OPTIONS = ("extra_headers", "extra_query", "timeout", "betas", "user_profile_id", "workspace_id")
"""Arguments of the SDK's `create()` that are no part of a request's body."""


def _continued(policy: Policy) -> Iterator[Finding]:
    """What continues an answer joins two: a document is never joined."""
    for index, rule in enumerate(policy.retry.rules):
        if rule.resume == "continue" and policy.json_document is not None:
            what = "a document is never joined of two answers: leave resume out, or the json section"
            yield Finding("error", ("retry", "rules", index, "resume"), what)


def _patches(policy: Policy) -> Iterator[Finding]:
    for index, rule in enumerate(policy.retry.rules):
        at: Path = ("retry", "rules", index, "patch")
        patch: Mapping[str, Any] = rule.patch or {}
        if rule.patch is not None and not patch:
            yield Finding("warning", at, "empty, so it changes nothing")
        extra = patch.get("extra_body")
        inner: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
        fields = [((*at, field), field, value) for field, value in patch.items() if field != "extra_body"]
        for path, field, value in [*fields, *(((*at, "extra_body", name), name, one) for name, one in inner.items())]:
            if field in _OPTIONS:
                what = f"{field} is an option of the SDK's, no field of a request's body, and cannot be patched"
                yield Finding("error", path, what)
            elif value is None and field in _REQUIRED:
                yield Finding("error", path, f"null removes {field}, and no request goes without it")
            elif value is None:
                continue  # it removes the field
            elif is_scaling(value):
                yield from _scaling(path, value)
            elif isinstance(value, Mapping) and value and set(value) <= _SCALING_WORDS:
                yield Finding("error", path, f"unknown keys {', '.join(value)}; did you mean {{multiply: …, max: …}}?")
            elif field == "stream":
                yield Finding("error", path, "every request is sent as a stream; nothing else can be guarded")
            elif field in _WHOLE_NUMBERS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                yield Finding("error", path, f"{field} must be a positive whole number or {{multiply: …, max: …}}")
            elif field == "model" and not (isinstance(value, str) and value):
                yield Finding("error", path, "model must be a model's name")


def _scaling(path: Path, value: dict[str, object]) -> Iterator[Finding]:
    for name in ("multiply", "max"):
        number = value.get(name)
        if name in value and (isinstance(number, bool) or not isinstance(number, int | float) or number <= 0):
            yield Finding("error", (*path, name), f"{name} must be a positive number")
    if "max" not in value:
        yield Finding("warning", path, "multiply without max: the model's own limit is the only ceiling")
    if value.get("multiply") == 1:
        yield Finding("warning", (*path, "multiply"), "multiply 1 changes nothing")


def _prices(policy: Policy, price_of: PriceOf | None, model: str | None) -> Iterator[Finding]:
    """Money means nothing without a price."""
    knobs: list[Path] = []
    if policy.caps is not None and policy.caps.cost_usd is not None:
        knobs.append(("caps", "cost_usd"))
    knobs += [("budgets", i, "cost_usd") for i, one in enumerate(policy.budgets) if one.cost_usd is not None]
    if any(one.cost_usd is not None for one in policy.budgets):
        yield from _uncached(policy)
    if not knobs or price_of is None:
        return
    patched = [rule.patch.get("model") for rule in policy.retry.rules if rule.patch is not None]
    for name in dict.fromkeys(name for name in (model, *patched) if isinstance(name, str)):
        if name not in policy.prices and price_of(name) is None:
            what = f'no price is known for model "{name}"; add prices: {{{name}: {{input: "…", output: "…"}}}}'
            yield from (Finding("error", path, what) for path in knobs)


def _uncached(policy: Policy) -> Iterator[Finding]:
    """Own prices by which a cached answer cannot be charged."""
    for name, price in policy.prices.items():
        missing = [rate for rate in ("cache_read", "cache_write") if getattr(price, rate) is None]
        if missing:
            what = (
                f"has no {' and no '.join(missing)}: an answer that uses a cache cannot be charged, and keeps its "
                "whole hold as uncertain; give the rates, or use no cache"
            )
            yield Finding("warning", ("prices", name), what)


def _json(policy: Policy) -> Iterator[Finding]:
    guard = policy.json_document
    if guard is None:
        return
    try:
        guard.plan(guard.own_schema())
    except ConfigError as mistake:
        for problem in mistake.problems:
            inside = (problem.pointer or "").removeprefix("/json/schema")
            yield Finding("error", ("json", "schema"), f"{inside}: {problem.problem}" if inside else problem.problem)
    else:
        schema = guard.own_schema()
        for index, entry in enumerate(guard.grounded if schema is not None else ()):
            for wrong, what in mistakes(entry, schema or {}):
                yield Finding("error" if wrong else "warning", ("json", "grounded", index, "at"), what)
    accept = policy.completion.accept
    if guard.where != "text" and "tool_use" not in accept:
        what = (
            f"where: {guard.where} looks for tool input, but completion.accept has no tool_use, so no answer can pass"
        )
        yield Finding("error", ("completion", "accept"), what)


def _checks(policy: Policy) -> Iterator[Finding]:
    """Expressions that the document's schema contradicts, and functions that need what there is not."""
    guard = policy.json_document
    functions: list[tuple[Path, CustomCheck]] = [
        ((section, index), one)
        for section, given in (("checks", policy.checks), ("guards", policy.guards))
        for index, one in enumerate(given)
        if isinstance(one, CustomCheck)
    ]
    if guard is None:
        for path in [("checks",)] if policy.checks else [path for path, _ in functions]:
            what = "checks are about a JSON document: add a json section, such as json: {}"
            yield Finding("error", path, what)
        return
    try:
        schema = guard.told_schema()
    except ConfigError:
        return  # said of the schema itself
    told = True if schema is None else schema
    for index, check in enumerate(policy.checks):
        for one in () if isinstance(check, CustomCheck) else check.mistakes(told):
            yield Finding("error", ("checks", index, one.key), one.problem, one.at)
    for path, function in functions:
        yield from (Finding("error", path, mistake) for mistake in function.mistakes(told))


def _clocks(policy: Policy, needs_total: bool) -> Iterator[Finding]:
    clocks = policy.timeouts
    if needs_total and clocks.total is None:
        what = "total is missing: nobody watches here, so every call needs an end, in seconds"
        yield Finding("error", ("timeouts", "total"), what)
    for whole, part in (("total", "attempt"), ("total", "first_token"), ("attempt", "first_token")):
        most, least = getattr(clocks, whole), getattr(clocks, part)
        if most is not None and least is not None and most < least and part in clocks.model_fields_set:
            what = f"{whole} ({most:g} s) ends before {part} ({least:g} s) can"
            yield Finding("warning", ("timeouts", part), what)


def _budgets(policy: Policy) -> Iterator[Finding]:
    seen: dict[tuple[str, str, str], int] = {}
    for index, spec in enumerate(policy.budgets):
        first = seen.setdefault((spec.ledger, spec.name, spec.per), index)
        if first != index:
            what = f"name {spec.name!r} is that of budgets[{first}] too, in the same ledger; give it another"
            yield Finding("error", ("budgets", index, "name"), what)


def _hedge(policy: Policy) -> Iterator[Finding]:
    """A second request that could never be sent."""
    if policy.hedge is None:
        return
    if policy.deliver == "live":
        what = "a second request needs deliver: committed or restarting: with live, output is gone before it could win"
        yield Finding("error", ("hedge",), what)
    if policy.retry.attempts == 1:
        yield Finding("error", ("hedge",), "a second request is an attempt, and retry.attempts is 1: allow 2 or more")


def _opaque(policy: Policy) -> Iterator[Finding]:
    for index, rule in enumerate(policy.retry.rules):
        if rule.patch:
            yield Finding("error", ("retry", "rules", index, "patch"), "an opaque source has no request to patch")
        if rule.hint:
            yield Finding("error", ("retry", "rules", index, "hint"), "an opaque source has no request to add to")
    if policy.budgets:
        yield Finding("error", ("budgets",), "an opaque source has no request whose cost could be bounded")
    if policy.hedge is not None:
        yield Finding("error", ("hedge",), "an opaque source has no request that could be sent a second time")
    guard = policy.json_document
    if guard is not None and guard.schema_ == "request":
        yield Finding("error", ("json", "schema"), "an opaque source has no request to read a schema from")
    for index, entry in enumerate(guard.grounded if guard is not None else ()):
        if entry.in_ == "request":
            what = "an opaque source has no request to read a text from"
            yield Finding("error", ("json", "grounded", index, "in"), what)
