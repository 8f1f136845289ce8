# ruff: noqa: ARG005  a patch takes what the original takes
"""Mutants of grounded values: each rule switched off, with the tests that must notice it."""

from __future__ import annotations

from bench.mutants.billing import value
from bench.mutants.registry import off
from streamguard.guards.grounding import normal_form, numbers, source
from streamguard.guards.grounding.follower import GroundingFollower
from streamguard.guards.grounding.search import Search
from streamguard.guards.grounding.source import SourceText, SourceTexts

_HERE = "tests/guards/grounding"
FORM = (f"{_HERE}/test_normal_form.py::test_pieces_give_the_form_of_the_whole",)
PIECES = (f"{_HERE}/test_normal_form.py::test_pieces_of_markup",)
SAME = (f"{_HERE}/test_normal_form.py::test_what_counts_as_the_same",)
DEATHS = (f"{_HERE}/test_follower.py::test_where_a_document_dies",)
EDGES = (f"{_HERE}/test_search.py::test_edges",)
READINGS = (f"{_HERE}/test_numbers.py::test_readings",)
UNKNOWN = (f"{_HERE}/test_source.py::test_where_nobody_knows_the_source",)

off("grounding: every value stands", GroundingFollower, "_fail", by=DEATHS)
off("grounding: numbers are not counted", GroundingFollower, "_count", by=DEATHS)
off("grounding: dates are not compared", GroundingFollower, "_date", by=DEATHS)
off("grounding: a value ends anywhere", Search, "_fits", True, by=EDGES)
off("grounding: only finished values are looked for", GroundingFollower, "_look", by=DEATHS)
value("grounding: marks do not wait", normal_form, "combining", lambda char: 0, by=FORM)
value("grounding: markup does not wait", normal_form, "held_back", lambda text: 0, by=PIECES)
value("grounding: markup is text", normal_form, "plain", lambda text: text, by=SAME)
value("grounding: any separator groups", numbers, "_groups", lambda separator, groups: True, by=READINGS)
value("grounding: no separator groups", numbers, "_groups", lambda separator, groups: False, by=READINGS)
value("grounding: no sign", numbers, "_signed", lambda values, *about: values, by=READINGS)
value("grounding: server tools bring nothing", source, "_server_tools", lambda request: iter(()), by=UNKNOWN)
off(
    "grounding: what is given does not count",
    SourceTexts,
    "_given_text",
    by=(f"{_HERE}/test_doors.py::test_what_is_given_beats_the_request",),
)
off(
    "grounding: the beginning of the source is shown",
    SourceText,
    "_place",
    0,
    by=(f"{_HERE}/test_source.py::test_the_place_of_a_part",),
)
