# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of answers that are kept and marked: each rule switched off, with the tests that must notice it."""

from __future__ import annotations

from bench.mutants.billing import value
from bench.mutants.registry import after, off
from streamguard import api
from streamguard.engine.deciding import Deciding
from streamguard.guards.panel import Panel
from streamguard.jobs.store import results
from streamguard.jobs.store.output import Head
from streamguard.retry import rules
from streamguard.retry.rules import Retry
from streamguard.verdict import Decision

_ENGINE = "tests/engine/test_marked.py"
WRONG = (f"{_ENGINE}::test_a_source_that_is_itself_wrong",)
EVERYWHERE = (f"{_ENGINE}::test_another_check_may_still_ask_again",)
LINES = ("tests/jobs/test_marked.py::test_the_result_of_a_marked_row",)

off("marked: nothing is kept", Panel, "_mark", False, by=WRONG)
after(
    "marked: every wrong answer is kept at once",
    Deciding,
    "accepts",
    lambda self, made, delivered: lambda trip: Decision(action="accept", reason=trip.reason, why="", rule=0),
    by=EVERYWHERE,
)
off("marked: a rule's uses are not counted", Deciding, "follow", by=WRONG)
value(
    "marked: anything may be kept",
    rules,
    "_can_be_marked",
    lambda pattern: True,
    by=("tests/retry/test_accept.py::test_what_may_be_kept",),
)
off(
    "marked: a value that stands nowhere ends the document's reader",
    Retry,
    "may_mark",
    False,
    by=(f"{_ENGINE}::test_values_that_stand_nowhere",),
)
value(
    "marked: an open stream keeps nothing",
    api,
    "_once",
    lambda retry: Retry(),
    by=(f"{_ENGINE}::test_a_stream_that_is_open_already",),
)
value("marked: a row does not say so", results, "_marked_with", lambda came: {}, by=LINES)
value(
    "marked: a lost journal forgets it",
    Head,
    "reason",
    None,
    by=("tests/jobs/test_marked.py::test_a_journal_that_was_lost_is_made_of_the_output",),
)
