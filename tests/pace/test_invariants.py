"""What a pace, its breaker, its second requests and its warm-up never break: sixteen rules, and the tests that hold each."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from streamguard.engine.clock import CallClock
from streamguard.engine.pacing.local import LocalPacer, Pacer
from streamguard.engine.pacing.shared import SharedPacer
from streamguard.pace.limits import Limit, Limits
from streamguard.pace.reports import Seen, Settled
from streamguard.pace.sharing import Ask
from streamguard.pace.spec import PaceSpec
from streamguard.pace.stores.memory import MemoryPaceStore
from streamguard.testing.clock import BACKENDS, run_virtual

ROOT: Final = Path(__file__).parent.parent.parent

RULES: Final = {
    "1 pure, and no turn twice": (
        "tests/pace/test_pace.py::test_the_pace_is_pure",
        "tests/pace/test_pace.py::test_a_clock_that_stands_still_or_goes_back_gives_no_turn_twice",
    ),
    "2 any window stays within the limit": ("tests/pace/test_pace.py::test_any_window_stays_within_the_limit",),
    "3 charged is settled or given back": (
        "tests/pace/test_pace.py::test_nothing_is_owed_in_the_end",
        "tests/engine/pacing/test_call_pace.py::test_every_turn_is_reported_once",
    ),
    "4 a turn is used once, or given back": (
        "tests/engine/pacing/test_call_pace.py::test_an_interrupt_gives_the_turn_back",
        "tests/engine/pacing/test_call_pace.py::test_a_cancelled_wait_gives_the_turn_back",
        "tests/engine/pacing/test_call_pace.py::test_a_denied_budget_gives_the_turn_back",
        "tests/matrix/test_cancellation.py::test_cancelled_at_every_step",
    ),
    "5 nobody starves": ("tests/pace/test_invariants.py::test_each_gets_a_turn_within_as_many_turns_as_ask",),
    "6 nothing is sent before its turn": (
        "tests/engine/pacing/test_call_pace.py::test_nothing_is_sent_while_somebody_paused_or_all_cool_down",
        "tests/engine/pacing/test_call_breaker.py::test_calls_wait_and_one_looks",
        "tests/jobs/test_pace.py::test_rows_begin_only_when_their_turns_are_near",
    ),
    "7 headers change their own limit only": (
        "tests/pace/test_pace.py::test_headers_change_nothing_but_their_own_limit",
        "tests/adapters/anthropic/test_limits.py::test_headers_that_are_rubbish_never_raise",
    ),
    "8 a refusal is no baseline, and each does its own": (
        "tests/pace/test_pace.py::test_each_refusal_does_its_own",
        "tests/engine/streams/test_race.py::test_first_tokens_are_measured_of_first_requests",
    ),
    "9 stores agree with the model": (
        "tests/pace/test_sharing.py::test_every_store_does_what_the_model_does",
        "tests/pace/test_sharing.py::test_a_program_that_dies_leaves_nothing_in_flight",
        "tests/engine/pacing/test_shared_breaker.py::test_stores_agree",
    ),
    "10 a store that is away holds nobody up": (
        "tests/pace/test_sharing.py::test_a_store_that_is_away_holds_nobody_up",
        "tests/pace/test_sharing.py::test_a_store_that_hangs_delays_no_attempt",
        "tests/pace/test_sharing.py::test_a_store_that_was_emptied_is_no_error",
        "tests/engine/pacing/test_shared_breaker.py::test_a_store_that_is_away_holds_nobody_up",
        "tests/engine/pacing/test_shared_breaker.py::test_a_hanging_store_is_left",
    ),
    "11 one looks, and a held job begins no row": (
        "tests/retry/test_breaker.py::test_at_most_one_look_is_under_way",
        "tests/retry/test_breaker.py::test_what_ends_say",
        "tests/engine/pacing/test_shared_breaker.py::test_one_looks_over_all_programs",
        "tests/jobs/test_outage.py::test_a_job_holds_its_rows_while_the_endpoint_is_down",
        "tests/jobs/test_outage.py::test_rows_begin_to_look_alone",
        "tests/jobs/test_outage.py::test_a_held_job_ends_at_once_on_a_signal",
    ),
    "12 one of two requests is delivered, both are settled": (
        "tests/engine/streams/test_race.py::test_one_of_two_is_delivered_and_both_are_on_the_record",
        "tests/engine/streams/test_race.py::test_nothing_of_the_loser_reaches_the_consumer",
        "tests/engine/streams/test_race.py::test_never",
        "tests/pace/test_hedge.py::test_any_200_calls_have_no_more_than_their_share",
        "tests/matrix/test_races.py::test_sample",
    ),
    "13 one writes a prefix, and a failure releases the others": (
        "tests/pace/test_warmup.py::test_every_order_of_four_rows_ends",
        "tests/engine/pacing/test_call_warmup.py::test_as_many_writes_as_prefixes",
        "tests/engine/pacing/test_call_warmup.py::test_a_failed_row_lets_the_next_one_lead",
        "tests/engine/pacing/test_call_warmup.py::test_a_cancelled_row_releases_the_others",
    ),
    "14 a budget's own holds end no job": ("tests/jobs/test_pace.py::test_a_budgets_own_holds_end_no_job",),
    "15 without a pace all is as it was": (
        "tests/engine/pacing/test_call_pace.py::test_without_a_pace_calls_go_as_they_come",
        "tests/engine/pacing/test_call_breaker.py::test_without_a_breaker_every_call_finds_out_by_itself",
    ),
    "16 each mechanism that is switched off is noticed": (
        "tests/matrix/test_mutants.py::test_mutants_can_be_applied",
        "tests/matrix/test_mutants.py::test_the_tests_that_must_notice_a_mutant_exist",
    ),
}
"""The rules of `docs/pace.md`, and the tests that hold each."""


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_tests(rule: str) -> None:
    """Each test that stands in the table is there."""
    for test in RULES[rule]:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


MECHANISMS: Final = {
    "left": "pace: what is left does not count",
    "lead": "pace: no lead",
    "ramp": "pace: the ramp begins at the top",
    "give-back": "pace: turns are not given back",
    "correction": "pace: corrections are lost",
    "cut": "pace: a refusal cuts nothing",
    "raise": "pace: a raised limit looks used",
    "hold": "hold: rows begin while it is open",
    "breaker": "breaker: calls wait for nothing",
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_has_a_mutant(mechanism: str) -> None:
    """A mechanism that is switched off has a name in the table of mutants, beside the tests that must notice it."""
    assert f'"{MECHANISMS[mechanism]}"' in (ROOT / "bench/mutants/pace.py").read_text(encoding="utf-8")


ASK: Final = Ask(input_tokens=10.0, max_tokens=100.0, patient=True)
KNOWN: Final = Limits(requests=Limit(600, 600))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("programs", [1, 4])
@pytest.mark.parametrize("workers", [4, 16])
def test_each_gets_a_turn_within_as_many_turns_as_ask(workers: int, programs: int, backend: Any) -> None:
    """Of so many workers that always ask, in one program or in several with a store, each has one of any `n` turns."""
    turns: list[int] = []

    async def main() -> None:
        clock, spec = CallClock(None), PaceSpec(ramp=0)
        store = MemoryPaceStore(anyio.current_time)
        pacers: list[Pacer] = [LocalPacer(spec.knobs())]
        if programs > 1:
            pacers = [SharedPacer(store, "k", spec) for _ in range(programs)]
        for pacer in pacers:
            pacer.report(Seen(at=clock.now(), limits=KNOWN))

        async def work(number: int) -> None:
            pacer = pacers[number % programs]
            while len(turns) < 20 * workers:
                turn = await pacer.turn(clock, ASK)
                turns.append(number)
                pacer.report(Settled(at=clock.now(), cost=turn.cost, output=10.0, seconds=0.1), alone=turn.alone)

        async with anyio.create_task_group() as group:
            for number in range(workers):
                group.start_soon(work, number)

    run_virtual(main, backend=backend)
    later = turns[2 * workers :]  # after the burst, and the places before the first head
    for at in range(len(later) - 2 * workers):
        assert set(later[at : at + workers]) == set(range(workers)) or programs > 1
        assert set(later[at : at + 2 * workers]) == set(range(workers))
