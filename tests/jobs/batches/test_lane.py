"""The batch lane: every row once, at half the price, and never submitted twice. In virtual time."""

from __future__ import annotations

import pytest

from streamguard.jobs.batches.lane import Order
from streamguard.jobs.runner import Stop
from streamguard.testing import BACKENDS, answer, run_virtual
from streamguard.testing.batches import BatchProvider
from tests.jobs.batches.lanes import CANCELED, EPOCH, EXPIRED, MODEL, answers, errored, lines, message, play, run_lane
from tests.jobs.jobs import GOOD, Provider, batch_line, results, write_job

BAD = '{"n": "one"}'
WHOLE = [answer(GOOD)]


def job(folder, *names, **options):
    """A job of rows that are called so, for a model with a price."""
    return write_job(folder, *(batch_line(name, model=MODEL) for name in names), **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_batch_answers_well_is_asked_no_more(tmp_path, backend) -> None:
    """Good rows stand as they came, at half the price; bad, failed, expired and canceled ones are asked by streams."""
    spec = job(tmp_path, "good1", "good2", "bad", "failed", "expired", "canceled")
    batches = BatchProvider(
        answers(other=message(GOOD), bad=message(BAD), failed=errored(), expired=EXPIRED, canceled=CANCELED),
        epoch=EPOCH,
    )
    calls = Provider(other=WHOLE)
    ran = play(spec, batches, calls, backend=backend)
    assert results(tmp_path) == dict.fromkeys(("good1", "good2", "bad", "failed", "expired", "canceled"), "succeeded")
    assert sorted(calls.asked) == ["bad", "canceled", "expired", "failed"]
    found = lines(tmp_path)
    name = next(iter(batches.batches))
    assert {key: line["streamguard"].get("batch") for key, line in found.items()} == {
        "good1": name,
        "good2": name,
        "bad": None,
        "failed": None,
        "expired": None,
        "canceled": None,
    }
    assert found["good1"]["streamguard"]["cost_usd"] == [0.0001, 0.0001]
    assert ran.summary.attempts == 2 + 1 + 1 + 4
    assert ran.summary.retries == {"json.schema": 1, "provider.invalid_request": 1}
    assert ran.runner.stopped is None


def test_a_job_is_cut_into_batches(tmp_path) -> None:
    """No batch has more rows, or more bytes, than it may; each row is in one."""
    spec = job(tmp_path, *map(str, range(10)))
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH)
    play(spec, batches, Provider(), order=Order(most_rows=4))
    assert [len(one.requests) for one in batches.batches.values()] == [4, 4, 2]
    assert set(results(tmp_path).values()) == {"succeeded"}
    small = tmp_path / "small"
    small.mkdir()
    spec = job(small, *map(str, range(10)))
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH)
    play(spec, batches, Provider(), order=Order(most_bytes=500))
    assert [len(one.requests) for one in batches.batches.values()] == [2, 2, 2, 2, 2]


def test_rows_that_no_batch_takes_are_asked_by_streams(tmp_path) -> None:
    """A beta or a speed is nothing for a batch."""
    rows = [batch_line("plain", model=MODEL), batch_line("fast", model=MODEL, speed="fast")]
    spec = write_job(tmp_path, *rows)
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH)
    calls = Provider(other=WHOLE)
    play(spec, batches, calls)
    assert [
        [one["params"]["messages"][0]["content"] for one in batch.requests] for batch in batches.batches.values()
    ] == [["plain"]]
    assert calls.asked == ["fast"]


@pytest.mark.parametrize(
    ("faults", "created", "streamed"),
    [
        pytest.param({"create": ["lost"]}, 0, 3, id="never arrived"),
        pytest.param({"create": ["unheard"]}, 1, 0, id="taken, and nobody heard"),
        pytest.param({"create": [500]}, 0, 3, id="an error that may mean anything"),
        pytest.param({"create": [429, 529]}, 1, 0, id="refused for now"),
        pytest.param({"create": [404]}, 0, 3, id="a server without batches"),
        pytest.param({"create": [400]}, 0, 3, id="a mistake"),
        pytest.param({"create": [429] * 9}, 0, 3, id="refused all the time"),
        pytest.param({"results": ["cut", "lost", 500]}, 1, 0, id="results that break off"),
        pytest.param({"results": ["lost"] * 9}, 1, 3, id="results that never come"),
        pytest.param({"retrieve": ["lost", 500, 429]}, 1, 0, id="no look"),
        pytest.param({"retrieve": [404]}, 1, 3, id="a batch that is gone"),
        pytest.param({"create": ["unheard"], "list": ["lost", 500]}, 1, 0, id="no list for a while"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_the_provider_does_every_row_has_one_answer(tmp_path, faults, created, streamed, backend) -> None:
    """Nothing is submitted twice, and what a batch does not answer streams do."""
    spec = job(tmp_path, "a", "b", "c")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, faults=faults)
    calls = Provider(other=WHOLE)
    ran = play(spec, batches, calls, backend=backend)
    assert ran.runner.stopped is None
    assert set(results(tmp_path).values()) == {"succeeded"}
    assert (len(batches.batches), len(calls.asked)) == (created, streamed)


@pytest.mark.parametrize("operation", ["create", "retrieve"])
def test_refused_credentials_end_the_job(tmp_path, operation) -> None:
    """No stream would fare better; nothing is asked, and the next run goes on."""
    spec = job(tmp_path, "a", "b")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, faults={operation: [401]})
    calls = Provider(other=WHOLE)
    ran = play(spec, batches, calls)
    assert ran.runner.stopped == Stop("refused", "scripted 401")
    assert (results(tmp_path), calls.asked) == ({}, [])
    play(spec, batches, calls)
    assert results(tmp_path) == {"a": "succeeded", "b": "succeeded"}
    assert len(batches.batches) == 1


def test_somebody_elses_batch_is_not_ours(tmp_path) -> None:
    """A batch as large as one whose submission was not heard is looked into, and left alone."""
    spec = job(tmp_path, "a", "b")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, faults={"create": ["lost"]})
    theirs = [{"custom_id": str(at), "params": {"messages": [{"content": "x"}]}} for at in range(2)]
    batches.create(theirs, 0.0)
    calls = Provider(other=WHOLE)
    play(spec, batches, calls)
    assert set(results(tmp_path).values()) == {"succeeded"}
    assert (len(batches.batches), sorted(calls.asked)) == (1, ["a", "b"])


def test_the_deadline_cancels_what_is_not_done(tmp_path) -> None:
    """What was done by then is taken; the rest is asked by streams."""
    spec = job(tmp_path, *"abcd")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, seconds=100.0)
    calls = Provider(other=WHOLE)
    play(spec, batches, calls, order=Order(deadline=50.0))
    (batch,) = batches.batches.values()
    assert batch.canceled == pytest.approx(50.0, abs=1.0)
    assert sorted(line["streamguard"].get("batch") or "" for line in lines(tmp_path).values()) == [
        "",
        "",
        batch.id,
        batch.id,
    ]
    assert len(calls.asked) == 2


@pytest.mark.parametrize("submits", [True, False])
def test_an_interrupted_job_goes_on_with_its_batch(tmp_path, submits) -> None:
    """The batch goes on at the provider, the job says so, and the next run takes it: also one without a lane."""
    spec = job(tmp_path, "a", "b", "c")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, seconds=30.0)
    calls = Provider(other=WHOLE)

    async def both():
        first = await run_lane(spec, batches, calls, interrupt_at=10.0)
        return first, results(tmp_path), await run_lane(spec, batches, calls, submits=submits)

    first, between, second = run_virtual(both)
    assert first.runner.stopped == Stop("signal", "SIGINT")
    assert first.said[-1] == "1 batch go on at the provider (msgbatch_000001): run again to take the results"
    assert between == {}
    assert second.said[0] == "3 rows are in 1 batch of an earlier run: waiting for their results"
    assert (len(batches.batches), calls.asked) == (1, [])
    assert set(results(tmp_path).values()) == {"succeeded"}


def test_an_answer_to_another_question_is_nobodys(tmp_path) -> None:
    """A row that was changed while it was in a batch is asked anew."""
    spec = job(tmp_path, "a", "b")
    batches = BatchProvider(answers(other=message(GOOD)), epoch=EPOCH, seconds=30.0)
    calls = Provider(other=WHOLE)

    async def both():
        await run_lane(spec, batches, calls, interrupt_at=10.0)
        changed = [batch_line("a", "another", model=MODEL), batch_line("b", model=MODEL)]
        await run_lane(write_job(tmp_path, *changed), batches, calls, submits=False)

    run_virtual(both)
    assert results(tmp_path) == {"a": "succeeded", "b": "succeeded"}
    assert calls.asked == ["another"]
