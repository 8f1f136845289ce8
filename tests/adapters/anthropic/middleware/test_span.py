"""The SDK's own OpenTelemetry span of a guarded call: it stays as it is, and learns why attempts were aborted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from opentelemetry import trace

from streamguard import GaveUp
from streamguard.adapters.anthropic.middleware import span
from streamguard.testing import wire
from tests.adapters.anthropic.middleware.test_guard import BAD, GOOD, REQUEST, guarded


class Span(trace.NonRecordingSpan):
    """What a span was told."""

    def __init__(self, scope: str) -> None:
        super().__init__(trace.SpanContext(1, 1, False))
        self.instrumentation_scope = SimpleNamespace(name=scope)
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[str, Any]] = []
        self.status: Any = None
        self.ended = 0

    def is_recording(self) -> bool:
        return not self.ended

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def add_event(self, name: str, attributes: Any = None, timestamp: Any = None) -> None:
        self.events.append((name, attributes))

    def set_status(self, status: Any, description: Any = None) -> None:
        self.status = status.status_code.name

    def end(self, end_time: Any = None) -> None:
        self.ended += 1


class Provider(trace.TracerProvider):
    """Keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def get_tracer(self, name: str, *args: Any, **kwargs: Any) -> Any:
        def start_span(*args: Any, attributes: Any = None, **kwargs: Any) -> Span:
            span = Span(name)
            span.attributes.update(attributes or {})
            self.spans.append(span)
            return span

        return SimpleNamespace(start_span=start_span)


ABORTED = ("streamguard.attempt_aborted", {"streamguard.attempt": 1, "streamguard.reason": "json.malformed"})
USAGE = {"gen_ai.usage.output_tokens": wire.counted(8), "anthropic.message.stop_reason": "end_turn"}


def traced(*attempts: Any, how: str, **options: Any) -> Span:
    """The span of one call, made in this way; errors are swallowed."""
    provider = Provider()

    async def main() -> None:
        telemetry = {"traces": True, "tracer_provider": provider}
        async with guarded(*attempts, open_telemetry=telemetry, **options) as (_, sdk):
            try:
                if how == "create":
                    await sdk.messages.create(**REQUEST)
                elif how == "bytes":
                    async with sdk.messages.with_streaming_response.create(**REQUEST, stream=True) as response:
                        async for _ in response.iter_bytes():
                            pass
                else:
                    async with sdk.messages.stream(**REQUEST) as stream:
                        async for _ in stream:
                            if how == "break":
                                break
            except GaveUp:
                pass

    anyio.run(main)
    (span,) = provider.spans
    return span


@pytest.mark.parametrize(("how", "deliver"), [("create", None), ("stream", "committed"), ("bytes", "committed")])
def test_a_good_answer_has_its_usage_and_the_reason_of_the_first_attempt(how: str, deliver: Any) -> None:
    """One span, ended once, as without a guard; an event for the attempt that was aborted."""
    span = traced(BAD, GOOD, how=how, guard={"deliver": deliver})
    assert (span.status, span.ended) == ("OK", 1)
    if how != "bytes":  # the SDK itself does not look into bytes
        assert {key: span.attributes.get(key) for key in USAGE} == USAGE
    assert span.events == [ABORTED]
    assert span.attributes["streamguard.attempts"] == 2
    assert "streamguard.reason" not in span.attributes


@pytest.mark.parametrize(
    ("how", "deliver"), [("create", None), ("stream", "committed"), ("stream", "live"), ("bytes", "live")]
)
def test_a_call_that_is_given_up_has_its_reason(how: str, deliver: Any) -> None:
    """An error, ended once, with the reason."""
    span = traced(BAD, BAD, BAD, how=how, guard={"deliver": deliver})
    assert (span.status, span.ended) == ("ERROR", 1)
    assert span.attributes["streamguard.reason"] == "json.malformed"
    assert span.events[0] == ABORTED


def test_leaving_early_ends_the_span() -> None:
    """Without a status, as the SDK has it for streams that were left."""
    span = traced(GOOD, how="break", guard={"deliver": "live"})
    assert (span.status, span.ended) == (None, 1)


def test_other_spans_are_left_alone() -> None:
    """A span of the program's own around the call learns nothing."""
    own = Span("my.program")
    with trace.use_span(own):
        assert span.current() is None
    with trace.use_span(Span(span.SCOPE)) as sdks:
        assert span.current() is sdks
    assert span.current() is None
