"""Budget-enforcing stream guard: abort early, retry from scratch, never overspend.

The names below are the public ones; each is imported when it is first used, so that `import streamguard` alone is
cheap: a policy can be checked without the SDK, and the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamguard import events, relay, sync
    from streamguard.adapters.anthropic.middleware.guard import GuardMiddleware
    from streamguard.adapters.anthropic.source import messages
    from streamguard.api import GuardedStream, guarded, run, stream
    from streamguard.budgets.spec import BudgetSpec
    from streamguard.conversation import Conversation
    from streamguard.engine.runtime import Runtime
    from streamguard.engine.telemetry_structlog import structlog_hook
    from streamguard.errors import (
        BudgetExhausted,
        CallError,
        ConfigError,
        DeadlineExceeded,
        GaveUp,
        Interrupted,
        JobError,
        PolicyError,
        Problem,
        SchemaError,
        StreamguardError,
    )
    from streamguard.guards.caps import Caps
    from streamguard.guards.checks.custom import check
    from streamguard.guards.checks.spec import Check
    from streamguard.guards.completion import Completion
    from streamguard.guards.content import Content
    from streamguard.guards.custom import View, guard
    from streamguard.guards.document.guard import JsonDocument
    from streamguard.guards.grounding.spec import Grounded
    from streamguard.guards.repetition import Repetition
    from streamguard.guards.timeouts import Timeouts
    from streamguard.outcome import AttemptRecord, CallRecord, Cost, Outcome
    from streamguard.policy.file import load_policy
    from streamguard.policy.model import Policy
    from streamguard.pricing.price import Price
    from streamguard.retry.rules import Backoff, Retry, Rule
    from streamguard.source import Source
    from streamguard.usage import UsageRange
    from streamguard.verdict import Decision, Enough, Trip, Where

__all__ = [
    # doors
    "run",
    "stream",
    "guarded",
    "messages",
    "Source",
    "events",
    "sync",
    "GuardMiddleware",
    "GuardedStream",
    "Conversation",
    "relay",
    # policies
    "Policy",
    "load_policy",
    "Timeouts",
    "Caps",
    "JsonDocument",
    "Grounded",
    "Check",
    "Completion",
    "Content",
    "Repetition",
    "Retry",
    "Rule",
    "Backoff",
    "BudgetSpec",
    "Price",
    # guards of one's own
    "guard",
    "check",
    "View",
    "Trip",
    "Enough",
    "Where",
    # what calls share, and what comes out
    "Runtime",
    "structlog_hook",
    "Outcome",
    "CallRecord",
    "AttemptRecord",
    "Cost",
    "UsageRange",
    "Decision",
    # errors
    "StreamguardError",
    "ConfigError",
    "PolicyError",
    "SchemaError",
    "JobError",
    "Problem",
    "CallError",
    "GaveUp",
    "DeadlineExceeded",
    "BudgetExhausted",
    "Interrupted",
]

# Where each public name lives; `tests/test_public.py` holds this to the imports above.
_HOME = {
    "streamguard.adapters.anthropic.source": ("messages",),
    "streamguard.adapters.anthropic.middleware.guard": ("GuardMiddleware",),
    "streamguard.conversation": ("Conversation",),
    "streamguard.api": (
        "GuardedStream",
        "guarded",
        "run",
        "stream",
    ),
    "streamguard.errors": (
        "BudgetExhausted",
        "CallError",
        "ConfigError",
        "DeadlineExceeded",
        "GaveUp",
        "Interrupted",
        "JobError",
        "PolicyError",
        "Problem",
        "SchemaError",
        "StreamguardError",
    ),
    "streamguard.guards.caps": ("Caps",),
    "streamguard.guards.checks.custom": ("check",),
    "streamguard.guards.checks.spec": ("Check",),
    "streamguard.guards.completion": ("Completion",),
    "streamguard.guards.content": ("Content",),
    "streamguard.guards.custom": (
        "View",
        "guard",
    ),
    "streamguard.guards.document.guard": ("JsonDocument",),
    "streamguard.guards.grounding.spec": ("Grounded",),
    "streamguard.guards.repetition": ("Repetition",),
    "streamguard.guards.timeouts": ("Timeouts",),
    "streamguard.outcome": (
        "AttemptRecord",
        "CallRecord",
        "Cost",
        "Outcome",
    ),
    "streamguard.budgets.spec": ("BudgetSpec",),
    "streamguard.pricing.price": ("Price",),
    "streamguard.source": ("Source",),
    "streamguard.usage": ("UsageRange",),
    "streamguard.policy.model": ("Policy",),
    "streamguard.policy.file": ("load_policy",),
    "streamguard.retry.rules": (
        "Backoff",
        "Retry",
        "Rule",
    ),
    "streamguard.engine.runtime": ("Runtime",),
    "streamguard.engine.telemetry_structlog": ("structlog_hook",),
    "streamguard.verdict": (
        "Decision",
        "Enough",
        "Trip",
        "Where",
    ),
}
_SUBMODULES = (
    "conversation",
    "errors",
    "events",
    "outcome",
    "relay",
    "replay",
    "request",
    "source",
    "sync",
    "testing",
    "usage",
    "verdict",
    "view",
    "viability",
)
"""Documented modules, which a bare `import streamguard` is enough for."""
_MODULE = {name: module for module, names in _HOME.items() for name in names}


if not TYPE_CHECKING:  # so that a name that does not exist is a mistake for type checkers

    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            return import_module(f"streamguard.{name}")
        if name not in _MODULE:
            raise AttributeError(f"module 'streamguard' has no attribute {name!r}")
        value = getattr(import_module(_MODULE[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
