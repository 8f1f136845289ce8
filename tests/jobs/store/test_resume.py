"""What a run does with a row of which something is known."""

from __future__ import annotations

import pytest

from streamguard.jobs.store.journal_records import Known
from streamguard.jobs.store.resume import Rules, Selection, fate, own_fault
from streamguard.verdict import REASONS

GOOD = Known("succeeded", None, "f", 0)
CUT = Known("canceled", None, "f", 0)


def bad(failures: int, reason: str = "json.schema") -> Known:
    return Known("errored", reason, "f", failures)


KEEP = Rules(retry_failed=False)


@pytest.mark.parametrize(
    ("known", "crashes", "rules", "expected"),
    [
        (None, 0, Rules(), ("new", 0)),
        (GOOD, 0, Rules(), ("kept", None)),
        (GOOD, 9, Rules(), ("kept", None)),
        (CUT, 0, Rules(), ("again", 0)),
        (CUT, 0, KEEP, ("again", 0)),
        (bad(1), 0, Rules(), ("again", 0)),
        (bad(2), 0, Rules(), ("again", 0)),
        (bad(3), 0, Rules(), ("dead", None)),
        (bad(3), 0, Rules(max_row_failures=4), ("again", 0)),
        (bad(1), 0, KEEP, ("failed", None)),
        (None, 1, Rules(), ("new", 1)),
        (None, 2, Rules(), ("new", 2)),
        (None, 3, Rules(), ("dead", None)),
        (bad(1), 2, Rules(), ("again", 2)),
    ],
)
def test_the_fate_of_a_row(known, crashes, rules, expected) -> None:
    """Successes stay, failures come again until they are dead, suspects come last."""
    assert fate("a", known, crashes, rules) == expected


@pytest.mark.parametrize(
    ("known", "only", "expected"),
    [
        (bad(9), Selection(), "again"),
        (bad(1), Selection(reasons=("json.*",)), "again"),
        (bad(1), Selection(reasons=("timeout.*", "json.schema")), "again"),
        (bad(1), Selection(reasons=("timeout.*",)), "unselected"),
        (CUT, Selection(), "again"),
        (CUT, Selection(reasons=("operator.*",)), "again"),
        (CUT, Selection(reasons=("json.*",)), "unselected"),
        (GOOD, Selection(), "unselected"),
        (GOOD, Selection(ids=("a",)), "again"),
        (GOOD, Selection(ids=("a",), reasons=("json.*",)), "unselected"),
        (bad(1), Selection(ids=("b",)), "unselected"),
        (bad(1), Selection(ids=("a",), reasons=("json.*",)), "again"),
        (None, Selection(), "unselected"),
        (None, Selection(ids=("a",)), "unselected"),
    ],
)
def test_a_retry_asks_what_it_names_and_nothing_else(known, only, expected) -> None:
    """Dead rows and suspects too; a success only by its id."""
    assert fate("a", known, 5, Rules(only=only))[0] == expected


def test_outages_are_no_rows_fault() -> None:
    """What says something about the row counts towards its end; what the provider, the line or a person did does not."""
    assert {reason.partition(".")[0] for reason in REASONS if own_fault(reason)} == {
        *("timeout", "cap", "json", "stop", "provider", "repetition", "guard", "source"),
    }
    assert [reason for reason in REASONS if reason.startswith("provider.") and own_fault(reason)] == [
        "provider.invalid_request",
        "provider.request_too_large",
        "provider.unknown",
    ]
    assert own_fault("job.poison")
