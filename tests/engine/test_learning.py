"""What answers with tool calls teach about a model's tokens: nothing that is not true of text as well."""

from __future__ import annotations

import pytest

from streamguard.adapters.anthropic.events import Translator
from streamguard.adapters.sse.decoder import Decoder
from streamguard.events import BlockStarted, Delta, Event, Metered, Usage
from streamguard.guards.metering import lesson, usage_range
from streamguard.guards.transcript import Transcript
from streamguard.pricing.tokens import Calibration
from streamguard.request import Request
from tests import servers

REQUEST = Request({"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]})


def visible(calls: bool) -> list[tuple[list[Event], int]]:
    """The API's recorded answers without thinking, with calls or without, and their tokens."""
    found = []
    for _, body in servers.api_recordings():
        events = Translator().translate(Decoder().feed(body))
        made = Transcript()
        for event in events:
            made.feed(event, 0.0)
        kinds = {block.kind for block in made.blocks.values()}
        has_calls = bool(kinds & {"tool_input", "server_tool"})
        if made.usage.output_tokens and has_calls == calls and not kinds & {"thinking", "other"}:
            found.append((events, made.usage.output_tokens))
    return found


def taught(answers: list[tuple[list[Event], int]]) -> Calibration:
    """What some answers teach of one model, as the recorder has it learned."""
    calibration = Calibration()
    for events, _ in answers:
        made = Transcript()
        for event in events:
            made.feed(event, 0.0)
        if (found := lesson(made)) is not None:
            calibration.observe("m", *found)
    return calibration


@pytest.mark.parametrize("first", range(0, 20, 4))
def test_a_scale_learned_from_calls_holds_for_text(first: int) -> None:
    """After real answers with calls, no cut text is told as more than it was, and no whole one as less."""
    calibration = taught(visible(calls=True)[first : first + 8])
    scale = calibration.scale("m")
    assert scale.low < 1 < scale.high < 3
    texts = visible(calls=False)
    assert len(texts) >= 20
    for events, tokens in texts:
        cut = [event for event in events if not isinstance(event, Metered)][:-1]
        made = Transcript()
        for event in cut:
            made.feed(event, 0.0)
        usage = usage_range(made, REQUEST, calibration)
        low, high = usage.low.output_tokens, usage.high.output_tokens
        assert low is not None
        assert high is not None
        assert low <= tokens <= high


def test_long_inputs_teach_and_short_ones_do_not() -> None:
    """A call's framing is an estimate, so an answer that is mostly that teaches nothing."""
    short, long = ([BlockStarted(0, "tool_input", name="t"), Delta(0, "tool_input", "a" * n)] for n in (100, 4000))
    for events, learned in ((short, None), (long, (1030.25, 1060))):
        made = Transcript()
        for event in (*events, Metered(Usage(output_tokens=1060), "tool_use")):
            made.feed(event, 0.0)
        assert lesson(made) == learned


def test_the_framing_of_calls_counts_at_the_upper_end_alone() -> None:
    """A call of which only the name has come may have cost its framing; that it did is not sure."""
    for events, tokens in visible(calls=True):
        made = Transcript()
        for event in events:
            if not isinstance(event, Delta | Metered) and type(event).__name__ != "Stopped":
                made.feed(event, 0.0)
        usage = usage_range(made, REQUEST, Calibration())
        assert usage.low.output_tokens is not None
        assert usage.low.output_tokens <= tokens
