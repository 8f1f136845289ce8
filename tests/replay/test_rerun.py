"""Replay: the same verdicts as in a live call, from the bytes alone; clocks by the recorded times; what it would save."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

import streamguard
from streamguard import CallError, Caps, JsonDocument, Outcome, Policy, Retry, Timeouts, load_policy
from streamguard.errors import PolicyError
from streamguard.jobs.opening import with_schema
from streamguard.outcome import AttemptRecord
from streamguard.replay.recording import Recording, recordings
from streamguard.replay.rerun import ObservedTrip, Replayed, replay
from streamguard.request import Request
from streamguard.testing import ScriptedServer, pause, script, send, status, wire
from streamguard.testing.scripted import REQUEST
from streamguard.verdict import Trip, Where
from tests.data import path

ASKED = {name: value for name, value in REQUEST.body.items() if name != "stream"}
PLACES = ("reason", "pointer", "offset", "char", "event", "keyword", "completed")


def advisory(policy: Policy) -> Policy:
    return with_schema(policy, json.loads(path("advisories", "advisory.schema.json").read_text()))


POLICIES: dict[str, Any] = {
    "no document": Policy,
    "syntax": lambda: Policy(json=JsonDocument()),
    "schema": lambda: advisory(Policy(json=JsonDocument())),
    "extraction": lambda: load_policy("streamguard:extraction"),
    "extraction with schema": lambda: advisory(load_policy("streamguard:extraction")),
    "prose around": lambda: Policy(json=JsonDocument(preamble="skip", trailing="allow", fence="strip")),
    "tools": lambda: Policy(json=JsonDocument(where="tools")),
    "enough": lambda: advisory(Policy(json=JsonDocument(enough_when=["/package"]))),
    "extraction observed": lambda: advisory(load_policy("streamguard:extraction")).model_copy(
        update={"mode": "observe"}
    ),
    "observe": lambda: advisory(Policy(mode="observe", json=JsonDocument())),
}


def all_recordings() -> list[Recording]:
    found = list(recordings([path("sse"), path("real_sse", "gemma270m-advisories.zip")]))
    assert len(found) == 66
    return found


def lived(attempt: AttemptRecord) -> dict[str, Any]:
    """What a live attempt's record says, in the words of a replay."""
    where = (attempt.ended.where if isinstance(attempt.ended, Trip) else None) or Where()
    told = {name: getattr(where, name, None) for name in PLACES}
    return told | {"reason": attempt.reason, "completed": attempt.completed}


def replayed(one: Replayed) -> dict[str, Any]:
    told = {name: getattr(one, name) for name in PLACES}
    # Where an answer stands, or the provider fails, a live attempt names no event.
    return told if one.reason and not one.reason.startswith("provider.") else told | {"event": None}


async def asked(source: Any, policy: Policy) -> AttemptRecord:
    """The one attempt of a call."""
    try:
        record: Any = await streamguard.run(source, policy=policy.model_copy(update={"retry": Retry()}))
    except CallError as error:
        record = error.record
    (attempt,) = record.attempts
    if isinstance(record, Outcome):
        assert attempt.completed == record.completed
    return attempt


@pytest.mark.parametrize("name", POLICIES)
def test_replay_agrees_with_a_live_call_in_memory(run_virtual, name) -> None:
    """The 6 samples and the 60 recorded streams: the same reason, place and kind of acceptance, however it is cut."""
    policy, found = POLICIES[name](), all_recordings()
    chunk: Any = {"extraction": 7, "extraction with schema": "event"}.get(name, "whole")

    async def live() -> dict[str, Any]:
        return {one.file: lived(await asked(script(send(one.data), chunk=chunk), policy)) for one in found}

    assert {one.file: replayed(replay(one, policy)) for one in found} == run_virtual(live)


def test_replay_agrees_with_a_live_call_over_sockets(run_real) -> None:
    """The same through the SDK: each stream served in the reads it was recorded in."""
    policy, found = POLICIES["extraction with schema"](), all_recordings()

    async def live() -> dict[str, Any]:
        scripts = {one.file: [send(data) for _, data in one.reads() if data] for one in found}
        lives = {}
        async with (
            ScriptedServer(scripts) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            for one in found:
                source = streamguard.messages(client, **ASKED, extra_headers={"x-script": one.file})
                lives[one.file] = lived(await asked(source, policy))
            assert server.errors == []
        return lives

    # Without the times: over this socket everything comes at once.
    untimed = [Recording(file=one.file, data=one.data) for one in found]
    assert {one.file: replayed(replay(one, policy)) for one in untimed} == run_real(live)


@pytest.mark.parametrize("name", ["schema", "syntax"])
def test_replay_agrees_with_the_independent_judge(name) -> None:
    """No recorded stream is dead later than a slow judge found it, and none it calls valid is dead."""
    kind, policy = name, POLICIES[name]()
    judged = {row["name"]: row for row in json.loads(path("real_sse", "analysis.json").read_text())}
    checked = 0
    for one in recordings([path("real_sse", "gemma270m-advisories.zip")]):
        row, verdict = judged[one.file.rpartition("/")[2].removesuffix(".sse")], replay(one, policy)
        at = row.get(f"{kind}_dead_char")
        if at is None:
            assert verdict.reason in (None, "stop.max_tokens", "json.incomplete")
            continue
        assert isinstance(verdict.char, int)
        assert verdict.char <= at
        # The judge counts deltas from 1; before them come the message's and the block's start, counted from 0.
        assert verdict.event <= row[f"{kind}_dead_delta"] + 1
        # Ours by the weight of text, the judge's by pieces. Some candidates die up to six characters earlier here.
        assert verdict.tokens_after == pytest.approx(row[f"{kind}_tokens_after"], abs=15 + 0.05 * verdict.tokens)
        assert verdict.tokens == row["output_tokens"]
        checked += 1
    assert checked > 20


TIMED = [
    pytest.param({"first_token": 5.0}, "timeout.first_token", id="first token"),
    pytest.param({"progress": 3.0}, "timeout.progress", id="progress"),
    pytest.param({"alive": 3.0, "progress": None}, "timeout.alive", id="alive"),
    pytest.param({"attempt": 9.0}, "timeout.attempt", id="attempt"),
    pytest.param({"total": 9.0}, "timeout.total", id="total"),
    pytest.param({"connect": 0.5}, "timeout.connect", id="connect"),
    pytest.param({"connect": 1.5, "first_token": 8.5, "progress": 4.5, "alive": 5.5, "attempt": 14.0}, None, id="fine"),
]
PAUSES = (1.0, 5.0, 2.0, 4.0, 0.5)
"""Before the head, and before each read."""


def timed() -> Recording:
    frames = [
        wire.message_start() + wire.block_start() + wire.ping(),
        wire.text_delta("{"),
        wire.text_delta("}"),
        wire.block_stop() + wire.message_delta() + wire.message_stop(),
    ]
    at = PAUSES[0]
    chunks = []
    for seconds, data in zip(PAUSES[1:], frames, strict=True):
        at += seconds
        chunks.append((at, len(data)))
    return Recording(file="timed", data=b"".join(frames), chunks=tuple(chunks), head=PAUSES[0])


@pytest.mark.parametrize(("clocks", "reason"), TIMED)
def test_clocks_run_by_the_recorded_times(run_virtual, clocks, reason) -> None:
    """A stream whose reads came 1, 6, 8, 12 and 12.5 s after the request trips the clocks that it tripped live."""
    policy, one = Policy(timeouts=Timeouts(**clocks)), timed()
    steps: list[Any] = [pause(PAUSES[0]), status()]
    for seconds, (_, data) in zip(PAUSES[1:], one.reads(), strict=True):
        steps += [pause(seconds), send(data)]

    async def live() -> str | None:
        return (await asked(script(steps), policy)).reason

    assert run_virtual(live) == reason
    verdict = replay(one, policy)
    assert (verdict.reason, verdict.completed) == (reason, "whole" if reason is None else None)
    # Without times no clock runs; with an unknown head none that waits for it.
    assert replay(Recording(file="timed", data=one.data), policy).completed == "whole"
    headless = Recording(file="timed", data=one.data, chunks=one.chunks)
    assert replay(headless, policy).reason == (None if reason == "timeout.connect" else reason)


TEXT = '{"kind": "unsafe", "n": "' + "x" * 100 + '"}'
ENUM = {"type": "object", "properties": {"kind": {"enum": ["vulnerability", "unsound"]}}}


def recorded(text: str = TEXT, *, tokens: int | None = None, chunk: int = 4) -> Recording:
    usage = None if tokens is None else {"output_tokens": tokens}
    return Recording(file="a.sse", data=b"".join(wire.text_stream(text, chunk, usage=usage)))


def test_a_verdict_names_its_place_and_what_it_would_save() -> None:
    """Everything about one dead prefix, with the provider's own count of the tokens."""
    verdict = replay(recorded(tokens=1000), with_schema(Policy(), ENUM))
    assert verdict == Replayed(
        file="a.sse",
        reason="json.schema",
        pointer="/kind",
        offset=13,
        char=13,
        event=6,
        tokens_after=verdict.tokens_after,
        tokens=1000,
        keyword="enum",
        message='enum: "unsa", expected "unsound" (at character 13, in /kind)',
    )
    # 16 of 127 characters had come; tokens are shared out by the weight of the text.
    assert 750 < verdict.tokens_after < 900


def test_characters_are_not_bytes() -> None:
    """Offsets are bytes of UTF-8, `char` counts code points; both from the document's start, behind what is skipped."""
    verdict = replay(recorded('Hé: {"ä": "ü" "b"}'), Policy(json=JsonDocument(preamble="skip")))
    assert (verdict.reason, verdict.char, verdict.offset) == ("json.malformed", 10, 12)


def test_an_answer_that_is_cut_saves_what_follows_it() -> None:
    """`trailing: cut` ends at the closing brace; the prose behind it counts as saved."""
    policy = Policy(json=JsonDocument(trailing="cut"))
    verdict = replay(recorded('{"a": 1}' + " and some more words about it" * 20, tokens=200), policy)
    assert (verdict.reason, verdict.completed, verdict.tokens) == (None, "cut", 200)
    assert 180 < verdict.tokens_after < 200
    assert replay(recorded('{"a": 1}'), policy).tokens_after == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", ("transport.incomplete", None), id="empty"),
        pytest.param(wire.message_start(), ("transport.incomplete", 0), id="cut after the start"),
        pytest.param(wire.message_start()[:40], ("transport.incomplete", None), id="cut inside the first event"),
        pytest.param(b"event: x\ndata: {\n\n", ("transport.decode", 0), id="no JSON"),
        pytest.param(b"data: [DONE]\n\n", ("transport.incomplete", 0), id="of another API"),
        pytest.param(
            wire.message_start() + wire.error("overloaded_error"), ("provider.overloaded", 1), id="an error inside"
        ),
        pytest.param(
            wire.message_start() + b"data: " + b"x" * 17_000_000 + b"\n\n",
            ("transport.event_too_large", 1),
            id="an endless event",
        ),
    ],
)
def test_broken_streams_end_as_they_do_live(run_virtual, data, expected) -> None:
    """What is an event stream, but no whole answer, is a verdict and no mistake."""
    verdict = replay(Recording(file="a", data=data), Policy())
    assert (verdict.reason, verdict.event) == expected

    async def live() -> str | None:
        return (await asked(script([status(), send(data)]), Policy())).reason

    assert run_virtual(live) == verdict.reason


def test_what_follows_the_end_voids_nothing() -> None:
    """After `message_stop` the answer stands, as live."""
    whole = recorded('{"a": 1}')
    policy = Policy(json=JsonDocument())
    assert replay(Recording(file="a", data=whole.data + wire.ping()), policy).completed == "whole"
    more = replay(Recording(file="a", data=whole.data + wire.error("overloaded_error")), policy)
    assert (more.reason, more.completed) == (None, "whole")


def test_observed_trips_are_told_and_claim_nothing() -> None:
    """A guard in `mode: observe` rejects nothing; what it would have rejected is in `observed`."""
    policy = with_schema(Policy(mode="observe"), ENUM)
    verdict = replay(recorded(), policy)
    assert (verdict.reason, verdict.completed) == (None, None)
    assert verdict.observed == (ObservedTrip(reason="json.schema", pointer="/kind", offset=13, char=13, event=6),)
    # A heuristic that only observes says nothing against an answer that was read to its end.
    capped = Policy(caps=Caps(characters=10, mode="observe"))
    verdict = replay(recorded(), capped)
    assert (verdict.completed, [seen.reason for seen in verdict.observed]) == ("whole", ["cap.characters"])


def test_a_request_gives_the_schema_and_the_beginning() -> None:
    """`schema: request` and a prefill are read from the recording's own request, or the one given; without one the
    policy cannot be used."""
    output = {"format": {"type": "json_schema", "schema": ENUM}}
    body = {"model": "m", "max_tokens": 9, "output_config": output, "messages": [{"role": "assistant", "content": "{"}]}
    policy = Policy(json=JsonDocument(schema="request"))
    rest = recorded(TEXT[1:])
    own = Recording(file=rest.file, data=rest.data, request=body)
    assert (replay(own, policy).offset, replay(rest, policy, Request(body)).offset) == (13, 13)
    with pytest.raises(PolicyError, match="the source's request is unknown"):
        replay(rest, policy)


def test_a_ceiling_for_the_cost_takes_the_price_of_the_recorded_model() -> None:
    """Tokens and money are estimates of the same kind as live; a model without a price is a mistake."""
    policy = Policy(caps=Caps(cost_usd="0.0001"))
    assert replay(recorded(TEXT * 20), policy).reason == "cap.cost"
    nobody = Recording(file="a", data=recorded().data.replace(wire.MODEL.encode(), b"nobody-knows-it"))
    with pytest.raises(PolicyError, match="nobody-knows-it"):
        replay(nobody, policy)


def test_asynchronous_guards_are_not_asked() -> None:
    """A guard that has to be awaited is left out; the others decide."""

    @streamguard.guard(reason="house.never")
    async def never(view: Any) -> str:
        raise AssertionError("asked")

    @streamguard.guard(reason="house.x")
    def no_x(view: Any) -> str | None:
        return "an x" if "x" in view.new else None

    assert replay(recorded(), Policy(guards=(never,))).completed == "whole"
    assert replay(recorded(), Policy(guards=(never, no_x))).reason == "house.x"
