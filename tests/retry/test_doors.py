"""One owner of retries: the same decisions at every door, as many requests as the policy says, and never a mixture."""

from __future__ import annotations

from typing import Any

import pytest

import streamguard
from streamguard import Backoff, Caps, GaveUp, JsonDocument, Policy, Retry, Rule, Runtime, Timeouts
from streamguard.errors import CallError
from streamguard.events import Delta, Failed, Metered, Restarted, Stopped, Usage
from streamguard.policy.explain import explain
from streamguard.policy.file import load_policy, shipped_policies
from streamguard.retry.rules import RetryState, decide
from streamguard.testing import ScriptedServer, answer, error, fin, script, stall, status, wire
from streamguard.testing.clock import BACKENDS, run_virtual
from streamguard.verdict import Trip
from tests.clients import plain_client

GOOD = '{"a": [1, 2, 3]}'
REQUEST: dict[str, Any] = {"model": wire.MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Extract."}]}
OVERLOADED = Failed(reason="provider.overloaded", message="…", status=529, billable=False)
POLICY = Policy(
    json=JsonDocument(),
    caps=Caps(characters=40),
    timeouts=Timeouts(progress=5),
    retry=Retry(
        attempts=4,
        rules=[
            Rule(when=["stop.refusal"], patch={"model": "other"}, max_uses=1),
            Rule(when=["stop.max_tokens"], patch={"max_tokens": {"multiply": 2, "max": 100}}, max_uses=1),
            Rule(when=["repetition.*"], patch={"temperature": 1.0}),
            Rule(when=["provider.*"], wait=Backoff(initial=2), respect_retry_after=True),
            Rule(when=["json.schema"], give_up=True),
            Rule(when=["json.*", "timeout.*", "transport.*"]),
        ],
    ),
)


def refused(stop: str, text: str = '{"a"') -> list[Any]:
    whole = answer(text)
    return [*whole[:-2], [Metered(Usage(output_tokens=3), stop_reason=stop)], [Stopped(stop)]]


STORIES: dict[str, tuple[tuple[Any, ...], list[tuple[str, str, int | None]]]] = {
    "good": ((answer(GOOD),), []),
    "dead, then good": ((answer('{"a" 1}'), answer(GOOD)), [("json.malformed", "retry", 5)]),
    "always dead": ((answer('{"a" 1}'),), [("json.malformed", "retry", 5)] * 3 + [("json.malformed", "give_up", 5)]),
    "refused twice": (
        (refused("refusal"), refused("refusal")),
        [("stop.refusal", "retry", 0), ("stop.refusal", "give_up", 0)],
    ),
    "truncated, then good": ((refused("max_tokens"), answer(GOOD)), [("stop.max_tokens", "retry", 1)]),
    "stalled, cut, good": (
        ([*answer(GOOD)[:3], stall()], answer(GOOD)[:-1], answer(GOOD)),
        [("timeout.progress", "retry", 5), ("transport.incomplete", "retry", 5)],
    ),
    "busy, then good": (([OVERLOADED], answer(GOOD)), [("provider.overloaded", "retry", 3)]),
    "not an object": ((answer("[1]"),), [("json.schema", "give_up", 4)]),
    "too long": ((answer('{"a": "' + "x" * 60),), [("cap.characters", "give_up", None)]),
}


def decisions(attempts: Any) -> list[tuple[str, str, int | None]]:
    return [(one.decision.reason, one.decision.action, one.decision.rule) for one in attempts if one.decision]


async def through(door: str, source: Any) -> list[tuple[str, str, int | None]]:
    """What was decided at a door."""
    runtime = Runtime(jitter=lambda: 0.5)
    try:
        if door == "run":
            outcome = await streamguard.run(source, policy=POLICY, runtime=runtime)
        else:
            async with streamguard.stream(source, policy=POLICY, deliver=door, runtime=runtime) as events:  # type: ignore[arg-type]
                async for _ in events:
                    pass
            outcome = events.outcome
    except CallError as error:
        return decisions(error.attempts)
    return decisions(outcome.attempts)


def in_a_thread(source: Any, stream: bool) -> list[tuple[str, str, int | None]]:
    """What was decided at a synchronous door."""
    try:
        if not stream:
            return decisions(streamguard.sync.run(source, policy=POLICY).attempts)
        with streamguard.sync.stream(source, policy=POLICY) as events:
            for _ in events:
                pass
        return decisions(events.outcome.attempts)
    except CallError as error:
        return decisions(error.attempts)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("door", ["run", "committed", "restarting", "live"])
@pytest.mark.parametrize("story", STORIES)
def test_every_door_takes_the_same_decisions(story: str, door: str, backend: Any) -> None:
    """Reason by reason and rule by rule, whatever the door; only `live` gives up where output was already seen."""
    attempts, expected = STORIES[story]
    found = run_virtual(through, door, script(*attempts), backend=backend)
    if door == "live" and expected and expected[0][1] == "retry" and story != "busy, then good":
        reason, _, rule = expected[0]
        expected = [(reason, "give_up", rule)]
    assert found == expected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("story", [name for name in STORIES if "stalled" not in name and "busy" not in name])
def test_the_sync_doors_too(story: str, stream: bool) -> None:
    """Threads get the same decisions; the stories without waits, since a thread's clock is real."""
    attempts, expected = STORIES[story]
    assert in_a_thread(script(*attempts), stream) == expected


@pytest.mark.parametrize("name", shipped_policies())
def test_the_printed_table_is_what_is_decided(name: str) -> None:
    """For every reason and every shipped policy, `check --explain` says what the engine will do."""
    policy = load_policy(f"streamguard:{name}")
    table = {row.reason: (row.decision, row.rule) for row in explain(policy).reasons}
    decided = {}
    for reason in table:
        decision = decide(policy.retry, Trip(reason=reason, message="…"), RetryState(attempt=1))
        rule = None if "never retried" in decision.why else decision.rule
        decided[reason] = ("retry" if decision.action == "retry" else "give up", rule)
    assert table == decided


FAILURES: dict[str, list[Any]] = {
    "429": [status(429, headers={"retry-after": "0"}), error("rate_limit_error", "slow down")],
    "500": [status(500), error("api_error", "oops")],
    "error in the stream": [*answer(GOOD)[:3], error("overloaded_error", "busy")],
    "cut": [*answer(GOOD)[:3], fin()],
    "dead": [answer('{"a" 1}')],
}


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("failure", FAILURES)
def test_requests_are_counted_at_the_server(failure: str, attempts: int, run_real: Any) -> None:
    """A server that always fails sees exactly `attempts` requests, whatever the SDK's own retries are set to."""
    policy = Policy(json=JsonDocument(), retry=Retry(attempts=attempts, rules=[Rule(when=["*"])]))

    async def main() -> None:
        async with (
            ScriptedServer(FAILURES[failure]) as server,
            plain_client(server.url).with_options(max_retries=5) as client,
        ):
            with pytest.raises(GaveUp) as caught:
                await streamguard.run(streamguard.messages(client, **REQUEST), policy=policy)
        assert (len(server.exchanges), len(caught.value.attempts)) == (attempts, attempts)

    run_real(main)


@pytest.mark.parametrize("deliver", ["committed", "restarting", "live"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_attempts_are_never_mixed(deliver: Any, backend: Any) -> None:
    """For a cut at every event: the committed text is one attempt's, byte for byte; a restart shows its seam; live
    output is never followed by another attempt's."""
    first, second = answer('{"first": "attempt"}', chunk=3), answer('{"second": true}', chunk=2)
    policy = Policy(retry=Retry(attempts=2, rules=[Rule(when=["*"])]))

    async def main() -> None:
        for cut in range(len(first)):
            source = script([*first[:cut], Failed(reason="transport.reset", message="gone")], second, chunk="event")
            parts: list[str] = [""]
            failed = False
            async with streamguard.stream(source, policy=policy, deliver=deliver) as events:
                try:
                    async for event in events:
                        if isinstance(event, Restarted):
                            parts.append("")
                        elif isinstance(event, Delta):
                            parts[-1] += event.text
                except GaveUp:
                    failed = True
            seen = "".join(event.text for event in first[:cut] if isinstance(event, Delta))
            if deliver == "committed" or (deliver == "live" and not seen):
                assert (parts, failed) == (['{"second": true}'], False), cut
                assert events.outcome.text == '{"second": true}'
            elif deliver == "restarting":
                assert (parts, failed) == ([seen, '{"second": true}'], False), cut
            else:
                assert (parts, failed) == ([seen], True), cut

    run_virtual(main, backend=backend)


def test_a_rule_can_ask_elsewhere(run_real: Any) -> None:
    """`base_url` sends the next attempt to another endpoint and keeps a count of its own."""

    async def main() -> None:
        async with (
            ScriptedServer([status(529), error("overloaded_error", "busy")]) as here,
            ScriptedServer([status(529), error("overloaded_error", "busy")], answer(GOOD)) as there,
            plain_client(here.url) as client,
        ):
            rules = [Rule(when=["provider.*"], max_uses=1, wait=0), Rule(when=["provider.*"], base_url=there.url)]
            policy = Policy(retry=Retry(attempts=4, rules=rules))
            with pytest.raises(GaveUp, match="used 1 of 1 times"):
                await streamguard.run(streamguard.messages(client, **REQUEST), policy=policy)
            rules = [Rule(when=["provider.*"], max_uses=2, base_url=there.url)]
            outcome = await streamguard.run(
                streamguard.messages(client, **REQUEST), policy=Policy(retry=Retry(attempts=4, rules=rules))
            )
        assert (outcome.text, len(here.exchanges), len(there.exchanges)) == (GOOD, 3, 2)

    run_real(main)
