"""What of a hard budget buys something, and how wide the intervals of aborted attempts are.

Simulated in virtual time, with the true tokens known: `python -m bench.budgets`.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

import streamguard
from bench.documents import objects
from streamguard import BudgetExhausted, GaveUp, JsonDocument, Policy, Runtime
from streamguard.budgets.spec import BudgetSpec
from streamguard.events import BlockStarted, BlockStopped, Delta, Metered, Started, Stopped, Usage
from streamguard.guards.metering import usage_range
from streamguard.guards.transcript import Transcript
from streamguard.pricing.price import PriceSpec, cost
from streamguard.pricing.tokens import Calibration, weigh
from streamguard.request import Request
from streamguard.testing.clock import run_virtual
from streamguard.testing.scripted import script

PRICE = PriceSpec(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_1h="6")
PRICES = {"m": PRICE}
BUDGET_USD = "5.00"
MAX_TOKENS = 4096
ABORTED = 0.3
LAG = 40
"""Tokens that the simulated provider still generates, and bills, after an abort: 200 ms at 200 a second."""
CHARACTERS_A_TOKEN = 3.4
INPUT_CHARACTERS = 6000


def _attempt(text: str, dead: bool) -> tuple[list[Any], int]:
    """The events of an answer, and its true output tokens; a dead one never closes a string."""
    pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
    true = round(len(text) / CHARACTERS_A_TOKEN)
    head = [
        [Started(id="m", model="m", usage=Usage(input_tokens=round(INPUT_CHARACTERS / 4)))],
        [BlockStarted(0, "text")],
    ]
    body = [[Delta(0, "text", piece)] for piece in pieces]
    if dead:
        return [*head, *body, [Delta(0, "text", "\n")], *body[:40]], true
    end = [[BlockStopped(0)], [Metered(Usage(output_tokens=true), stop_reason="end_turn")], [Stopped("end_turn")]]
    return [*head, *body, *end], true


def usable_share(tokens: int, *, stops: bool, seed: int = 1) -> tuple[float, float, int, int]:
    """A budget spent to its end by one job.

    :param tokens: median length of an answer.
    :returns: the share truly spent, the share that bought finished calls, finished calls, aborted calls.
    """

    async def main() -> tuple[float, float, int, int]:
        rng = random.Random(seed)
        runtime = Runtime(job="bench")
        spec = BudgetSpec(name="b", cost_usd=BUDGET_USD, abort_stops_billing=stops)
        policy = Policy(json=JsonDocument(), budgets=[spec], prices=PRICES)
        request = {
            "model": "m",
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": "a word " * (INPUT_CHARACTERS // 7)}],
        }
        price = PRICE.price()
        spent = bought = finished = aborted = 0
        while True:
            length = min(MAX_TOKENS - 100, round(tokens * rng.lognormvariate(0, 0.4)))
            text = objects(round(length * CHARACTERS_A_TOKEN), seed=rng.randrange(10**6))
            dead = rng.random() < ABORTED
            if dead:
                cut = rng.randrange(8, len(text))
                text = text[: text.rfind('"', 0, cut) + 1] + "x" if '"' in text[:cut] else "{"
            events, true = _attempt(text, dead)
            try:
                await streamguard.run(script(events, request=request, chunk="event"), policy=policy, runtime=runtime)
            except BudgetExhausted:
                break
            except GaveUp:
                aborted += 1
                true = min(MAX_TOKENS, true + LAG)
            else:
                finished += 1
            bill = cost(price, Usage(input_tokens=round(INPUT_CHARACTERS / 4), output_tokens=true)) or 0
            spent += bill
            bought += 0 if dead else bill
        total = int(float(BUDGET_USD) * 1_000_000)
        return spent / total, bought / total, finished, aborted

    return run_virtual(main, backend="asyncio")


def interval_widths(seed: int = 1) -> tuple[int, int, int]:
    """Cut one answer at each event: how often the truth lies outside, and the median width in output tokens."""
    text = objects(6000, seed=seed)
    pieces = [text[i : i + 4] for i in range(0, len(text), 4)]
    calibration = Calibration()
    for lesson in range(16):
        answer = objects(2000, seed=100 + lesson)
        calibration.observe("m", weigh(answer), round(len(answer) / CHARACTERS_A_TOKEN))
    request = Request({"model": "m", "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": "x" * 400}]})
    transcript, outside, widths = Transcript(), 0, []
    transcript.feed(Started(usage=Usage(input_tokens=100)), 0)
    transcript.feed(BlockStarted(0, "text"), 0)
    characters = 0
    for piece in pieces:
        characters += len(piece)
        transcript.feed(Delta(0, "text", piece), 0)
        found = usage_range(transcript, request, calibration)
        low, high = found.low.output_tokens or 0, found.high.output_tokens or 0
        true = characters / CHARACTERS_A_TOKEN
        outside += not low <= true + LAG <= high
        widths.append(high - low)
    return len(pieces), outside, round(statistics.median(widths))


def main() -> None:
    print(f"a hard budget of ${BUDGET_USD}, max_tokens {MAX_TOKENS}, {ABORTED:.0%} of the calls aborted part way")
    print(f"{'answer':>8} {'abort_stops_billing':>20} {'truly spent':>12} {'bought':>8} {'finished':>9} {'aborted':>8}")
    for tokens in (300, 800, 1500):
        for stops in (True, False):
            spent, bought, finished, aborted = usable_share(tokens, stops=stops)
            print(f"{tokens:>8} {stops!s:>20} {spent:>12.1%} {bought:>8.1%} {finished:>9} {aborted:>8}")
    cuts, outside, width = interval_widths()
    print(
        f"\nan answer cut at each of {cuts} deltas: the truth is outside [low, high] {outside} times; "
        f"median width {width} tokens"
    )


if __name__ == "__main__":
    main()
