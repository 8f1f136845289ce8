"""`json.grounded` at every door: the source is given, is a row's field, or is the request's own text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import anyio
import msgspec
import pytest

import streamguard
from streamguard import GaveUp, Grounded, GuardMiddleware, JsonDocument, Outcome, Policy, PolicyError, Retry, Rule
from streamguard.errors import JobError
from streamguard.jobs.job import Job
from streamguard.jobs.store.fingerprint import salt
from streamguard.policy.file import loads_policy, shipped_policies
from streamguard.replay.recording import Recording, recordings
from streamguard.replay.rerun import replay
from streamguard.request import Request
from streamguard.testing import ScriptedServer, answer, run_virtual, script, wire
from tests.jobs.jobs import Provider, results, run_job, write_job

SOURCE = "Order 17 of Globex Corporation, Zürich"
RIGHT = '{"supplier": "Globex Corporation"}'
WRONG = '{"supplier": "Initech Ltd", "more": "of what is not paid for"}'
POLICY = Policy(
    json=JsonDocument(grounded=[Grounded(at="/supplier")]),
    retry=Retry(attempts=2, rules=[Rule(when="json.ungrounded")]),
)


def request(text: str = SOURCE, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **fields}


def source(*texts: str, **fields: Any) -> Any:
    return script(*map(answer, texts), request=request(**fields), messages=True)


def run(made: Any, **options: Any) -> Outcome:
    """The outcome of `run`."""

    async def main() -> Outcome:
        return await streamguard.run(made, policy=POLICY, **options)

    return anyio.run(main)


@pytest.mark.parametrize("options", [{}, {"source_text": SOURCE}, {"source_text": {"text": SOURCE}}])
def test_run_asks_again(options: dict[str, Any]) -> None:
    """What stands nowhere in the source is ended and asked again; what stands there is the outcome."""
    outcome = run(source(WRONG, RIGHT), **options)
    assert (outcome.value, outcome.reasons) == (json.loads(RIGHT), ("json.ungrounded",))


def test_what_is_given_beats_the_request() -> None:
    """The request may hold examples in which wrong values stand."""
    made = source(WRONG, RIGHT, text="For example Initech Ltd. " + SOURCE)
    assert run(made, source_text=SOURCE).reasons == ("json.ungrounded",)
    assert run(source(WRONG, text="For example Initech Ltd. " + SOURCE)).reasons == ()


def test_every_door_of_the_library() -> None:
    """`stream`, and both doors for threads."""

    async def main() -> Any:
        async with streamguard.stream(source(WRONG, RIGHT), policy=POLICY, source_text=SOURCE) as events:
            async for _ in events:
                pass
            return events.result()

    found = [anyio.run(main), streamguard.sync.run(source(WRONG, RIGHT), policy=POLICY, source_text=SOURCE)]
    with streamguard.sync.stream(source(WRONG, RIGHT), policy=POLICY, source_text=SOURCE) as events:
        list(events)
    found.append(events.result())
    assert [one.reasons for one in found] == [("json.ungrounded",)] * 3


def test_an_observing_section_lets_it_pass() -> None:
    """And says what it saw, once."""
    policy = POLICY.replace(json=POLICY.json_document.replace(mode="observe"))  # type: ignore[union-attr]  # it has one

    async def main() -> Outcome:
        return await streamguard.run(source(WRONG), policy=policy)

    outcome = anyio.run(main)
    assert outcome.reasons == ()
    assert [seen.trip.reason for seen in outcome.attempts[0].observed] == ["json.ungrounded"]


@pytest.mark.parametrize("schema", [None, {"type": "object", "required": ["supplier"]}])
def test_an_observing_entry_lets_it_pass_and_the_others_do_not(schema: Any) -> None:
    """What it saw is recorded once, the answer is whole, and the rest of the section is enforced."""
    seen = Grounded(at="/more", mode="observe")
    section = JsonDocument(schema=schema, grounded=[seen, Grounded(at="/supplier")])
    more = '{"supplier": "Globex Corporation", "more": "made up", "and": 1}'

    async def main(*texts: str) -> Outcome:
        return await streamguard.run(source(*texts), policy=POLICY.replace(json=section))

    outcome = anyio.run(main, WRONG, more)
    assert (outcome.value, outcome.reasons, outcome.completed) == (json.loads(more), ("json.ungrounded",), "whole")
    [observed] = outcome.attempts[1].observed
    assert (observed.trip.reason, observed.trip.guard) == ("json.ungrounded", "grounded")
    assert observed.trip.where is not None
    assert observed.trip.where.pointer == "/more"
    assert outcome.attempts[0].observed == ()


def test_an_observing_entry_needs_a_source() -> None:
    """As any other; the mistake names the entry."""
    policy = Policy(json=JsonDocument(grounded=[Grounded(at="/a", mode="observe", in_="row.body")]))

    async def main() -> Outcome:
        return await streamguard.run(source(RIGHT), policy=policy)

    with pytest.raises(PolicyError, match=r"/json/grounded/0/in: values at /a need a source: row\.body is a field"):
        anyio.run(main)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}]},
            "the request has an image, whose text nobody here knows: give source_text=, or between",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "the server tool web_search_20250305 brings text of its own while the answer is written: give source_text=",
        ),
    ],
)
def test_nothing_is_sent_where_nobody_knows_the_source(fields: dict[str, Any], problem: str) -> None:
    """It is a `PolicyError`, before the first byte."""
    made = source(RIGHT, **fields)
    with pytest.raises(PolicyError) as refused:
        run(made)
    assert str(refused.value) == f"/json/grounded/0/in: values at /supplier need a source: {problem}"
    assert made.opened == 0
    assert run(source(RIGHT, **fields), source_text=SOURCE).value == json.loads(RIGHT)


def test_a_second_request_is_held_against_the_first() -> None:
    """What a retry adds to a request is no source: the original is."""
    rule = Rule(when="json.ungrounded", patch={"messages": [{"role": "user", "content": "Not Initech Ltd!"}]})
    policy = POLICY.replace(retry=Retry(attempts=2, rules=[rule]))

    async def main() -> Outcome:
        return await streamguard.run(source(WRONG, WRONG), policy=policy)

    with pytest.raises(GaveUp) as gave_up:
        anyio.run(main)
    assert [attempt.reason for attempt in gave_up.value.attempts] == ["json.ungrounded"] * 2


@pytest.mark.parametrize("given", [None, SOURCE, lambda asked: asked.body["messages"][0]["content"][-38:]])
def test_behind_a_client(given: Any) -> None:
    """`GuardMiddleware` holds answers against the request, a text, or what a function makes of the request."""
    text = SOURCE if given is None else f"Not Initech Ltd. {SOURCE}"

    async def main() -> Any:
        async with ScriptedServer(wire.text_stream(WRONG), wire.text_stream(RIGHT)) as server:
            middleware = [GuardMiddleware(POLICY, source_text=given)]
            async with anthropic.AsyncAnthropic(
                api_key="k", base_url=server.url, middleware=middleware, max_retries=0
            ) as client:
                message = await client.messages.create(**request(text))
                return message.content[0].text, len(server.requests)

    assert anyio.run(main) == (RIGHT, 2)


JOB = """
version: 1
timeouts: {total: 60}
json: {grounded: [{at: /supplier%s}]}
retry: {attempts: 2, rules: [{when: [json.*], wait: none}]}
"""


def job(folder: Path, place: str, *rows: dict[str, Any]) -> Any:
    """A job whose rows are data, and which has a template."""
    spec = write_job(folder, *rows, policy=JOB % place)
    (folder / "row.j2").write_text("---\nmodel: m\nmax_tokens: 100\n---\n{{ id }}")
    return msgspec.structs.replace(spec, template=str(folder / "row.j2"))


@pytest.mark.parametrize(("place", "field"), [("", "text"), (", in: row.text", "text"), (", in: row.doc.body", "doc")])
def test_a_row_of_a_job(tmp_path: Path, place: str, field: str) -> None:
    """Each answer is held against its own row's field."""
    fields = {"text": SOURCE} if field == "text" else {"doc": {"body": SOURCE}}
    spec = job(tmp_path, place, {"id": "good", **fields}, {"id": "again", **fields}, {"id": "never", **fields})
    provider = Provider(good=[answer(RIGHT)], again=[answer(WRONG), answer(RIGHT)], never=[answer(WRONG)])
    _, summary = run_virtual(run_job, spec, provider)
    assert results(tmp_path) == {"good": "succeeded", "again": "succeeded", "never": "json.ungrounded"}
    assert summary.retries == {"json.ungrounded": 2}


def test_a_row_without_its_field_is_a_mistake_before_the_first_is_asked(tmp_path: Path) -> None:
    """With its line, and the entry that needs it."""
    spec = job(tmp_path, ", in: row.body", {"id": "a", "body": SOURCE}, {"id": "b"}, {"id": "c", "body": 5})
    with pytest.raises(JobError) as refused:
        Job.open(spec)
    assert [(one.line, one.pointer, one.problem) for one in refused.value.problems] == [
        (
            line,
            "/json/grounded/0/in",
            f"values at /supplier need a source: row.body is {what}, so there is no source to hold values against",
        )
        for line, what in ((2, "missing"), (3, "a number, no text"))
    ]


def test_a_recording_brings_its_source_or_is_given_one(tmp_path: Path) -> None:
    """Beside the recording, from its request, or as an argument; without any it cannot be judged."""
    (tmp_path / "a.sse").write_bytes(b"".join(wire.text_stream(WRONG)))
    (tmp_path / "a.json").write_text(json.dumps({"source_text": SOURCE}))
    beside = next(recordings([tmp_path / "a.sse"]))
    bare = Recording(file="b", data=beside.data)
    found = replay(beside, POLICY)
    assert (found.reason, found.pointer) == ("json.ungrounded", "/supplier")
    assert found == replay(Recording(file=beside.file, data=beside.data), POLICY, Request(request()))
    assert replay(beside, POLICY, source_text="Initech Ltd").reason is None
    with pytest.raises(PolicyError, match="shows no request to read it from: give source_text="):
        replay(bare, POLICY)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    """What stands beside a recording is checked."""
    (tmp_path / "a.sse").write_bytes(b"".join(wire.text_stream(RIGHT)))
    (tmp_path / "a.json").write_text(json.dumps({"source_text": ["x"]}))
    with pytest.raises(JobError, match="source_text must be a text, or an object of fields"):
        list(recordings([tmp_path / "a.sse"]))


SCHEMA = """
json:
  schema:
    type: object
    additionalProperties: false
    properties:
      supplier: {type: string}
      kind: {enum: [a, b]}
      total: {type: [number, "null"]}
      ok: {type: boolean}
      lines: {type: array, items: {$ref: "#/$defs/line"}}
    $defs: {line: {type: object, additionalProperties: false, properties: {sku: {type: string}, n: {type: integer}}}}
  grounded: [{at: %s}]
"""


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("/suplier", "the document has no member 'suplier' in the schema; did you mean \"supplier\"?"),
        ("/total", "a number in the schema, and this is as: text; write as: number"),
        ("/ok, as: number", "true or false in the schema, and this is as: number; it cannot be grounded"),
        ("/lines", "an array in the schema: write /lines/* for its items"),
        ("/lines/*", "an object in the schema: name its members, such as /lines/*/sku"),
        ("/lines/*/skuu", "/lines/* has no member 'skuu' in the schema; did you mean \"sku\"?"),
        ("/lines/*/n, as: date", "a number in the schema, and this is as: date; write as: number"),
        ("/total, as: number", None),
        ("/lines/0/sku", None),
        ("/lines/*/n, as: number", None),
        ("/supplier, as: date", None),
    ],
)
def test_an_entry_that_the_schema_forbids(entry: str, problem: str | None) -> None:
    """It is a mistake of the policy, at its place in the file."""
    if problem is None:
        loads_policy(SCHEMA % entry)
        return
    with pytest.raises(PolicyError) as refused:
        loads_policy(SCHEMA % entry, "p.yaml")
    assert [str(one) for one in refused.value.problems] == [f"p.yaml:13:19: /json/grounded/0/at: {problem}"]


def test_shipped_policies_ground_nothing() -> None:
    """Which values are copied is known to the owner of the data alone."""
    for name in shipped_policies():
        section = streamguard.load_policy(f"streamguard:{name}").json_document
        assert section is None or section.grounded == ()


def test_what_decides_whether_results_of_a_job_are_kept() -> None:
    """Which values are grounded does, as it decides which answer is right; whether one only observes does not."""

    def salted(*entries: Grounded) -> str:
        return salt(Policy(json=JsonDocument(grounded=entries)))

    assert salted(Grounded(at="/a")) == salted(Grounded(at="/a", mode="observe"))
    assert len({salted(), salted(Grounded(at="/a")), salted(Grounded(at="/b"))}) == 3
