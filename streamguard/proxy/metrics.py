"""What happened, counted for Prometheus: a hook of the runtime, and what only the proxy sees.

Labels have few values: policies, reasons and names of refusals; never models, prompts or keys. Clients' names are
labels too, so whoever may read the metrics is an operator.
"""

from __future__ import annotations

import http
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamguard.engine.runtime import Runtime
from streamguard.engine.telemetry import (
    AttemptAborted,
    AttemptStarted,
    BudgetDenied,
    CallCompleted,
    CallGaveUp,
    CallLeft,
)
from streamguard.outcome import CallRecord, Outcome
from streamguard.pace.limits import NAMES

SECONDS: Final = (0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
"""Upper bounds of the histograms' buckets: answers take from half a second to ten minutes."""


class _Paces(Collector):
    """What the paces of a runtime come to, read when somebody scrapes. Pools of models are named by operators, or by
    clients that name any model, so the paces are summed up, and the least share left is told."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client's collectors."""
        views = list(self._runtime.paces(0.0).values())
        left = GaugeMetricFamily("streamguard_pace_left", "Least share left of a stated limit.", labels=["limit"])
        for name in NAMES:
            shares = [view.left[name] for view in views if name in view.left]
            if shares:
                left.add_metric([name], min(shares))
        yield left
        inflight = sum(view.inflight for view in views)
        yield GaugeMetricFamily("streamguard_pace_inflight", "Turns given and not over.", value=inflight)
        state = GaugeMetricFamily("streamguard_breaker_state", "Breakers in each state.", labels=["state"])
        for state_name, count in self._runtime.breaker_states().items():
            state.add_metric([state_name], count)
        yield state


_NAMED: Final = frozenset({*(status.value for status in http.HTTPStatus), 529})
"""Statuses that have a meaning, 529 by the provider's word."""


class Metrics:
    """The counters of one proxy, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        per_call = ("client", "policy")
        self.requests = Counter(
            "streamguard_http_requests",
            "Responses, by kind of request and status.",
            ("kind", "status"),
            registry=registry,
        )
        self.refused = Counter("streamguard_refused", "Requests not taken, by name.", ("refusal",), registry=registry)
        self.left = Counter(
            "streamguard_clients_gone", "Clients that left before their answer ended.", ("policy",), registry=registry
        )
        self.running = Gauge("streamguard_calls_running", "Calls that run.", registry=registry)
        self.connections = Gauge("streamguard_client_connections", "Clients connected.", registry=registry)
        self._calls = Counter(
            "streamguard_calls", "Calls that ended, by outcome or reason.", (*per_call, "end"), registry=registry
        )
        self._attempts = Counter("streamguard_attempts", "Requests sent upstream.", per_call, registry=registry)
        self._aborted = Counter(
            "streamguard_attempts_aborted", "Attempts tripped or failed.", (*per_call, "reason"), registry=registry
        )
        self._waited = Counter(
            "streamguard_pace_waited_seconds", "Seconds waited for the provider's limits.", per_call, registry=registry
        )
        self._denied = Counter("streamguard_budget_denied", "Requests without room.", per_call, registry=registry)
        self._tokens = Counter(
            "streamguard_tokens", "Tokens, upper estimates included.", (*per_call, "kind"), registry=registry
        )
        self._cost = Counter(
            "streamguard_cost_usd", "Cost in US dollars, upper estimates included.", per_call, registry=registry
        )
        self._saved = Counter(
            "streamguard_saved_tokens", "Output tokens that aborts avoided, estimated.", per_call, registry=registry
        )
        self._seconds = Histogram(
            "streamguard_call_seconds", "From a call's entry to its end.", per_call, buckets=SECONDS, registry=registry
        )
        self._first_token = Histogram(
            "streamguard_first_token_seconds",
            "From an attempt's start to its first output.",
            per_call,
            buckets=SECONDS,
            registry=registry,
        )

    def answered(self, kind: str, status: int) -> None:
        """Count a response. Of the statuses that an upstream may choose, those without a name are one a class."""
        label = str(status) if status in _NAMED or not status else f"{status // 100}xx"
        self.requests.labels(kind, label).inc()

    def watch(self, runtime: Runtime) -> None:
        """Read the number of running calls from their runtime."""
        self.running.set_function(lambda: len(runtime.calls))
        self.registry.register(_Paces(runtime))

    def hook(self, record: Any) -> None:
        """Take one record of the runtime's."""
        labels = (str(record.labels.get("client", "")), str(record.labels.get("policy", "")))
        match record:
            case AttemptStarted():
                self._attempts.labels(*labels).inc()
            case AttemptAborted():
                self._aborted.labels(*labels, record.attempt.reason or "").inc()
            case BudgetDenied():
                self._denied.labels(*labels).inc()
            case CallCompleted():
                self._ended(labels, _accepted(record.outcome), record.outcome)
            case CallGaveUp():
                self._ended(labels, record.reason, record.record)
            case CallLeft():
                self._ended(labels, "left", record.record)

    def _ended(self, labels: tuple[str, str], end: str, record: CallRecord) -> None:
        self._calls.labels(*labels, end).inc()
        self._seconds.labels(*labels).observe(record.seconds)
        for attempt in record.attempts:
            self._waited.labels(*labels).inc(attempt.waited.pace)
            if attempt.times.first_token is not None:
                self._first_token.labels(*labels).observe(attempt.times.first_token)
        high = record.usage.high
        for kind in ("input", "output", "cache_read", "cache_write"):
            self._tokens.labels(*labels, kind).inc(getattr(high, f"{kind}_tokens") or 0)
        self._cost.labels(*labels).inc((record.cost.high or 0) / 1_000_000)
        self._saved.labels(*labels).inc(record.saved_tokens or 0)

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and text that a scraper's `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)


def _accepted(outcome: Outcome) -> str:
    """How an answer was accepted, as a label."""
    return "marked" if outcome.marked else outcome.completed or "unclaimed"
