"""The comparison: both sides get the same answers, and every figure is the provider's own or follows from the clock."""

from __future__ import annotations

import json
import random
from collections import Counter

import anthropic
import pytest

from streamguard.demo import compare
from streamguard.demo.compare import MODEL, Order, compare_simulated
from streamguard.demo.documents import documents
from streamguard.demo.sides import POLICY, Side, guarded, unguarded, write_job
from streamguard.demo.simulated import MAX_TOKENS, simulated
from streamguard.demo.table import as_object, notes, rows
from streamguard.events import Usage
from streamguard.policy.file import load_policy
from streamguard.pricing.book import PriceBook
from streamguard.pricing.price import cost
from streamguard.testing import run_virtual


class Noted:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def began(self, documents: int) -> None:
        self.said.append(f"began {documents}")

    def done(self) -> None:
        self.said.append("done")


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    return Order(documents=24, seed=3, concurrency=8, folder=tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def comparison(order):
    reporter = Noted()
    found = compare_simulated(order, reporter)
    assert reporter.said == [
        "1 of 2, without guards: 24 documents, 8 at a time",
        "began 24",
        *["done"] * 24,
        "2 of 2, with guards: the same as a job under a policy",
        "began 24",
        *["done"] * 24,
    ]
    return found


def test_the_figures_are_the_providers(comparison, order) -> None:
    """The same two runs once more by hand: requests, tokens and money are sums of what the server billed."""
    asked = documents(order.documents, order.seed)
    price = PriceBook().price(MODEL)

    async def again() -> tuple[Side, list[Usage]]:
        async with (
            simulated(asked, order.seed) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            side = await unguarded(client, asked, model=MODEL, max_tokens=MAX_TOKENS, concurrency=8)
        return side, [bill.usage for bill in server.billed]

    side, usages = run_virtual(again, grace=compare.GRACE)
    one = comparison.without
    assert (one.requests, one.output_tokens) == (len(usages), sum(usage.output_tokens or 0 for usage in usages))
    assert one.cost_micro_usd == sum(cost(price, usage) or 0 for usage in usages)
    assert (one.valid, one.attempts, one.again) == (len(side.valid), side.attempts, dict(side.again))


def test_guards_throw_less_away(comparison) -> None:
    """Both sides end with valid answers for nearly all documents; bad ones cost less where they are ended early."""
    one, two = comparison.without, comparison.guarded
    assert one.rows == two.rows == 24
    assert min(one.valid, two.valid) >= 23
    assert two.output_tokens < one.output_tokens
    assert two.thrown_away < 0.7 * one.thrown_away
    assert two.cost_micro_usd < one.cost_micro_usd
    assert two.cost_micro_usd <= two.cost_in_full_micro_usd
    # Nobody leaves early on this side, but the ten minutes' timeout.
    assert one.cost_in_full_micro_usd == one.cost_micro_usd
    assert {"json.schema", "json.malformed"} <= two.again.keys()


def test_a_stall_costs_the_sdk_its_ten_minutes(comparison) -> None:
    """This seed has stalls: the plain side waits for the SDK's read timeout, the other for `timeouts.progress`."""
    one, two = comparison.without, comparison.guarded
    assert one.again["ReadTimeout"] == two.again["timeout.progress"] > 0
    assert one.row_longest > 600 > 100 > two.row_longest > 60


def test_the_job_is_the_one_that_people_run(comparison, order) -> None:
    """The folder has an input, a schema, a policy that loads and extends the shipped one, and a result for each."""
    policy = load_policy(order.folder / POLICY)
    shipped = load_policy("streamguard:extraction")
    assert policy.timeouts == shipped.timeouts
    assert policy.retry.rules == shipped.retry.rules
    assert policy.json_document.own_schema()["title"] == "Invoice"
    results = [json.loads(line) for line in (order.folder / "results.jsonl").read_text().splitlines()]
    assert len({one["custom_id"] for one in results}) == 24
    kinds = Counter(one["result"]["type"] for one in results)
    assert kinds["succeeded"] == comparison.guarded.valid


def test_the_table_says_what_it_rests_on(comparison) -> None:
    """Every figure in its row, changes in percent, and the clock, the price and the assumption named below."""
    table = {name.strip(): cells for name, *cells in rows(comparison)}
    one, two = comparison.without, comparison.guarded
    assert table["output tokens"][:2] == [f"{one.output_tokens:,}", f"{two.output_tokens:,}"]
    percent = round((1 - two.output_tokens / one.output_tokens) * 100)
    assert table["output tokens"][2] == f"\N{MINUS SIGN}{percent} %"
    assert table["valid answers"] == [f"{one.valid} of 24", f"{two.valid} of 24", ""]
    text = "\n".join(notes(comparison, local=False))
    for word in ("simulated, and so is the clock", "ReadTimeout", "json.schema", "genai-prices", "8 tokens more"):
        assert word in text
    assert "real time" in "\n".join(notes(comparison, local=True))


def test_as_json(comparison) -> None:
    """The figures under the names of both sides, and the clock that they are of."""
    told = json.loads(json.dumps(as_object(comparison, local=False)))
    assert (told["clock"], told["documents"], told["seed"]) == ("simulated", 24, 3)
    assert told["with_guards"]["output_tokens"] == comparison.guarded.output_tokens
    assert told["without_guards"]["again"] == dict(comparison.without.again)


def test_unknown_prices_are_no_money(order) -> None:
    """Without a price there is no sum, and no row for one."""
    figures = compare._billed([], [], Side(rows=0), None)
    assert figures == {
        "requests": 0,
        "output_tokens": 0,
        "thrown_away": 0,
        "cost_micro_usd": 0,
        "cost_in_full_micro_usd": 0,
    }
    assert compare._cost(None, [Usage(input_tokens=1, output_tokens=1)]) is None


def test_both_sides_work_in_real_time_too(run_real, tmp_path) -> None:
    """Nothing in them needs the simulated clock: a few documents without pauses."""
    asked = documents(3, seed=2)

    async def both() -> tuple[Side, Side]:
        from streamguard.demo.documents import answer, prompt
        from streamguard.testing import ScriptedServer, wire

        def choose(exchange):
            text = exchange.body["messages"][0]["content"]
            record = next(one.record for one in asked if prompt(one) == text)
            return [wire.text_stream(answer(record), 40)]

        write_job(tmp_path, asked, model=MODEL, max_tokens=MAX_TOKENS)
        async with (
            ScriptedServer(script_for=choose) as server,
            anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client,
        ):
            plain = await unguarded(client, asked, model=MODEL, max_tokens=MAX_TOKENS, concurrency=2)
            return plain, await guarded(client, tmp_path, jitter=random.random, concurrency=2)

    for side in run_real(both):
        assert (len(side.valid), side.attempts, side.again) == (3, 3, Counter())
        assert 0 < side.seconds < 10
        assert len(side.row_seconds) == len(side.first_tokens) == 3
