"""Checks at every door: expressions and functions, refused, asked again, observed, told."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import anyio
import pytest

import streamguard
from streamguard import Check, GuardMiddleware, JsonDocument, Outcome, Policy, Retry, Rule, Runtime
from streamguard.cli.commands import replay as command
from streamguard.jobs.report.report import report
from streamguard.jobs.report.report_html import page
from streamguard.jobs.store.fingerprint import fingerprint, salt
from streamguard.jobs.store.journal import read_journal
from streamguard.policy.explain import explain
from streamguard.replay.recording import Recording
from streamguard.replay.rerun import replay
from streamguard.testing import ScriptedServer, answer, run_virtual, script, wire
from streamguard.view.board import Board
from tests.jobs.jobs import Provider, results, run_job, write_job
from tests.proxy.running import REQUEST, TOTAL, Running, with_proxy

LINE = {"qty": 2, "price": 1.5, "amount": 3}
RIGHT = json.dumps({"by": "ä", "lines": [LINE], "total": 3, "note": "x" * 30}, ensure_ascii=False)
WRONG = RIGHT.replace('"total": 3', '"total": 4')
SAY = "the lines come to 3, the total is 4"
CHAR = WRONG.index(', "note"')
MESSAGE = f"{SAY} (at character {CHAR}, in /total)"


@streamguard.check(needs=["/total", "/lines"], reason="check.total")
def adds_up(total: Decimal, lines: list[dict[str, Any]]) -> str | None:
    """What the expression says, as a function."""
    found = sum(line["amount"] for line in lines)
    return None if found == total else f"the lines come to {found}, the total is {total}"


@streamguard.check(needs=adds_up.needs, reason="check.total")
async def later(total: Decimal, lines: list[dict[str, Any]]) -> str | None:
    """The same, which takes a while."""
    await anyio.lowlevel.checkpoint()
    return adds_up(total, lines)  # type: ignore[no-any-return]


EXPRESSION = Check(
    reason="check.total",
    that="sum(l.amount for l in doc.lines) == doc.total",
    say="the lines come to {sum(l.amount for l in doc.lines)}, the total is {doc.total}",
)
CHECKS = {"expression": EXPRESSION, "function": adds_up, "async": later}
AGAIN = Retry(attempts=2, rules=[Rule(when="check.*", max_uses=1)])


@pytest.fixture(params=CHECKS)
def policy(request: pytest.FixtureRequest) -> Policy:
    """A policy whose only check is of one kind."""
    return Policy(json=JsonDocument(), checks=[CHECKS[request.param]], retry=AGAIN, timeouts=TOTAL)


def source(*texts: str) -> Any:
    return script(*map(answer, texts), request=REQUEST, messages=True)


def found(outcome: Outcome[Any]) -> tuple[Any, tuple[str, ...], str]:
    """The value's total, the reasons, and what ended the first attempt."""
    ended = outcome.attempts[0].ended
    return outcome.value["total"], outcome.reasons, "" if ended is None else ended.message


EXPECTED = (3, ("check.total",), MESSAGE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_doors_of_the_library(policy: Policy, backend: str) -> None:
    """`run`, `stream` and both doors for threads."""

    async def main() -> list[Any]:
        outcome = await streamguard.run(source(WRONG, RIGHT), policy=policy)
        async with streamguard.stream(source(WRONG, RIGHT), policy=policy) as events:
            async for _ in events:
                pass
        return [found(outcome), found(events.result())]

    told = anyio.run(main, backend=backend)
    told.append(found(streamguard.sync.run(source(WRONG, RIGHT), policy=policy)))
    with streamguard.sync.stream(source(WRONG, RIGHT), policy=policy) as events:
        list(events)
    assert [*told, found(events.result())] == [EXPECTED] * 4


def test_a_stream_that_is_open_already(policy: Policy) -> None:
    """`guarded` cannot ask again: it ends, with the words."""

    async def main() -> str:
        async with (
            ScriptedServer(wire.text_stream(WRONG)) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            raw = await client.messages.create(**REQUEST, stream=True)
            with pytest.raises(streamguard.GaveUp) as caught:
                async with streamguard.guarded(raw, policy=policy.replace(retry=Retry())) as events:
                    async for _ in events:
                        pass
        return str(caught.value)

    assert MESSAGE in anyio.run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_behind_a_client(policy: Policy, stream: bool) -> None:
    """`GuardMiddleware` asks again unseen."""

    async def main() -> tuple[str, int]:
        async with ScriptedServer(wire.text_stream(WRONG), wire.text_stream(RIGHT)) as server:
            middleware = [GuardMiddleware(policy, deliver="committed")]
            async with anthropic.AsyncAnthropic(
                api_key="k", base_url=server.url, middleware=middleware, max_retries=0
            ) as client:
                if stream:
                    async with client.messages.stream(**REQUEST) as events:
                        text = await events.get_final_text()
                else:
                    message = await client.messages.create(**REQUEST)
                    text = message.content[0].text  # type: ignore[union-attr]  # a text block
                return text, len(server.requests)

    assert anyio.run(main) == (RIGHT, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_behind_the_proxy(policy: Policy, stream: bool) -> None:
    """It asks again unseen; what never passes is an error of the provider's form, with the words."""

    async def again(running: Running) -> None:
        response = await running.ask(stream=stream)
        assert (response.status_code, response.headers["x-streamguard-attempts"]) == (200, "2")
        assert SAY not in response.text
        assert len(running.upstream.requests) == 2

    async def never(running: Running) -> None:
        response = await running.ask(stream=stream)
        assert response.headers["x-streamguard-reason"] == "check.total"
        assert SAY in response.text
        assert len(running.upstream.requests) == 2

    committed = policy.replace(deliver="committed")
    with_proxy([wire.text_stream(WRONG), wire.text_stream(RIGHT)], again, committed)
    with_proxy([wire.text_stream(WRONG), wire.text_stream(WRONG)], never, committed)


def test_a_live_stream_behind_the_proxy(policy: Policy) -> None:
    """What was handed out stays; then comes an error event with the words, and not the rest of the answer."""

    async def test(running: Running) -> None:
        response = await running.ask()
        assert b"event: error" in response.content
        assert SAY in response.text
        assert "xxx" not in response.text

    with_proxy([wire.text_stream(WRONG)], test, policy.replace(deliver="live", retry=Retry()))


JOB = f"""
version: 1
timeouts: {{total: 60}}
json: {{}}
checks:
  - reason: check.total
    that: {EXPRESSION.that}
    say: "{EXPRESSION.say}"
retry: {{attempts: 2, rules: [{{when: [check.*], max_uses: 1, wait: none}}]}}
"""


def test_a_row_of_a_job(tmp_path: Path) -> None:
    """One is right, one is right the second time, one never is: the result, the report and its page tell."""
    spec = write_job(tmp_path, "good", "again", "never", policy=JOB)
    provider = Provider(good=[answer(RIGHT)], again=[answer(WRONG), answer(RIGHT)], never=[answer(WRONG)])
    _, summary = run_virtual(run_job, spec, provider)
    assert results(tmp_path) == {"good": "succeeded", "again": "succeeded", "never": "check.total"}
    assert summary.retries == {"check.total": 2}
    [never] = [line for line in (tmp_path / "out.jsonl").read_text().splitlines() if "errored" in line]
    error = json.loads(never)["result"]["error"]["error"]
    assert MESSAGE in error["message"]
    assert "the source itself may be wrong" in never
    journal = read_journal(spec.out)
    assert journal is not None
    with journal:
        told = report(journal, spec.out)
    assert {reason: spent.attempts for reason, spent in told.ended.items()} == {"check.total": 3}
    [row] = told.failed
    assert (row.reason, row.attempts, row.pointer, row.offset) == ("check.total", 2, "/total", CHAR + 1)
    assert row.excerpt is not None
    assert (row.excerpt.before[-10:], row.excerpt.after[:3]) == ('"total": 4', ', "')
    assert SAY in page(told)


def test_a_recording(policy: Policy) -> None:
    """Judged as it would have been; asynchronous functions are not asked."""
    told = replay(Recording(file="a", data=b"".join(wire.text_stream(WRONG))), policy)
    if policy.checks[0] is later:
        assert (told.reason, told.completed) == (None, "whole")
        return
    assert (told.reason, told.pointer, told.char, told.message) == ("check.total", "/total", CHAR, MESSAGE)
    assert told.tokens_after > 0


def test_the_command_says_what_it_did_not_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An asynchronous check in a policy file, as a guard of one's own."""
    (tmp_path / "p.yaml").write_text(
        "version: 1\njson: {}\nguards: ['tests.guards.checks.test_doors:later', "
        "'tests.guards.checks.test_doors:adds_up']\n"
    )
    (tmp_path / "a.sse").write_bytes(b"".join(wire.text_stream(WRONG)))
    options = command.Options(policy=str(tmp_path / "p.yaml"), allow_imports=True, as_json=True)
    command.main([str(tmp_path / "a.sse")], options)
    seen = capsys.readouterr()
    assert seen.err == "not asked, since they are asynchronous: later\n"
    assert json.loads(seen.out)["reason"] == "check.total"


def test_observed(policy: Policy) -> None:
    """The answer stands, and is whole; the trip is recorded once, live and in replay."""
    observing = policy.replace(mode="observe")
    outcome = anyio.run(lambda: streamguard.run(source(WRONG), policy=observing))
    assert (outcome.value["total"], outcome.completed, outcome.reasons) == (4, "whole", ())
    [seen] = outcome.attempts[0].observed
    assert (seen.trip.reason, seen.trip.message) == ("check.total", MESSAGE)
    told = replay(Recording(file="a", data=b"".join(wire.text_stream(WRONG))), observing)
    assert [one.reason for one in told.observed] == ([] if policy.checks[0] is later else ["check.total"])
    assert (told.reason, told.completed) == (None, "whole")


FRAMES: list[tuple[str, Callable[[str], str]]] = [
    ("plain", lambda text: text),
    ("fenced", lambda text: f"```json\n{text}\n```"),
]


@pytest.mark.parametrize(("name", "frame"), FRAMES, ids=[name for name, _ in FRAMES])
def test_the_live_view(policy: Policy, name: str, frame: Callable[[str], str]) -> None:
    """The character that completed the last value is marked, and the sentence stands beside it."""
    fenced = policy.replace(json=JsonDocument(fence="strip"), retry=Retry())

    async def main() -> tuple[Any, str]:
        runtime = Runtime()
        board = Board(runtime)
        with pytest.raises(streamguard.GaveUp):
            await streamguard.run(source(frame(WRONG)), policy=fenced, runtime=runtime)
        [call] = board.overview()["finished"]
        detail = board.detail(call)
        assert detail is not None
        [attempt] = detail["attempts"].values()
        [block] = attempt["blocks"]
        return attempt["ended"], block["text"][: block["mark"]]

    ended, before = anyio.run(main)
    assert (ended["reason"], ended["message"], ended["where"]["pointer"]) == ("check.total", MESSAGE, "/total")
    assert before == frame(WRONG)[: frame(WRONG).index(', "note"')]


def test_what_a_policy_tells_of_them(policy: Policy) -> None:
    """`explain` has a table for each check; a job's fingerprint and the salt of its rows change with it."""
    [rows] = explain(policy).checks
    told = {row.knob: row.value for row in rows}
    assert told["checks[0].reason"] == "check.total"
    if policy.checks[0] is not EXPRESSION:
        assert told["checks[0].needs"] == "/total, /lines"
        assert told["checks[0].function"] in ("adds_up", "later")
    none = policy.replace(checks=())
    assert "checks" in fingerprint(policy, None, {}).policy
    assert len({salt(policy), salt(none), salt(Policy(json=JsonDocument()))}) == 2
    other = policy.replace(checks=[Check(reason="check.x", that="doc.total > 0")])
    assert salt(other) != salt(policy)
    quiet = [Check(reason="check.x", that="doc.total > 0", mode="observe", say="no")]
    assert salt(other) == salt(policy.replace(checks=quiet))
