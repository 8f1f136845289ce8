# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of hints: each rule switched off, with the tests that must notice it."""

from __future__ import annotations

from bench.mutants.billing import value
from bench.mutants.registry import off
from streamguard.engine import deciding
from streamguard.replay import rerun
from streamguard.request import Request
from streamguard.retry import hints, rules

_WORDS = "tests/retry/test_hints.py"
SENT = ("tests/engine/test_hints.py::test_the_next_request_says_why",)
OURS = (f"{_WORDS}::test_nothing_of_the_answer_is_in_it",)


def _first(self: Request, text: str) -> Request:
    block = {"type": "text", "text": text}
    return self.with_body({**self.body, "messages": [{"role": "user", "content": [block]}, *self.body["messages"]]})


off("hints: nothing is sent", Request, "with_note", by=SENT)
value("hints: before everything else", Request, "with_note", _first, by=SENT)
value("hints: nothing is decided", deciding, "next_hint", lambda *about: None, by=SENT)
value(
    "hints: names of the model's own",
    hints,
    "_place",
    lambda trip, known: (trip.where and trip.where.pointer) or "the document",
    by=OURS,
)
value("hints: the trip's own sentence", hints, "_message", lambda trip: trip.message, by=OURS)
value("hints: as long as they come", hints, "_cut", lambda text, most: text, by=(f"{_WORDS}::test_it_is_short",))
value(
    "hints: about clocks, too",
    rules,
    "not_the_answers",
    lambda patterns: [],
    by=(f"{_WORDS}::test_reasons_that_are_not_the_answers",),
)
value(
    "hints: any placeholder",
    rules,
    "mistakes",
    lambda template: iter(()),
    by=(f"{_WORDS}::test_a_mistake_has_its_line_and_column",),
)
value(
    "hints: replay is silent",
    rerun,
    "next_hint",
    lambda *about: None,
    by=("tests/engine/test_hints.py::test_replay_shows_it",),
)
