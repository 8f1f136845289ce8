"""What every row journal does, whatever it is kept in."""

from __future__ import annotations

import pytest

from streamguard.batch.journal.contract import Ask, Busy, Done, Failure, Mine, Other, Result
from tests.batch.journal.conftest import Case

A, B = "owner-a", "owner-b"
LEASE = 30.0


def test_a_row_is_asked_by_one_owner_and_its_result_stays(case: Case) -> None:
    """The first claim gets the row, the second waits, and both see one result."""
    first, second = case.open(), case.open()
    assert first.claim([Ask("r", "f"), Ask("s", "f")], A, LEASE) == [Mine(0), Mine(0)]
    (busy,) = second.claim([Ask("r", "f")], B, LEASE)
    assert isinstance(busy, Busy)
    assert 0 < busy.seconds <= LEASE
    assert first.finish([Result("r", "f", b"line 1")]) == [Done(b"line 1")]
    assert second.claim([Ask("r", "f")], B, LEASE) == [Done(b"line 1")]
    assert second.finish([Result("r", "f", b"line 2")]) == [Done(b"line 1")]


def test_verbs_may_run_twice(case: Case) -> None:
    """A verb whose answer was lost is sent again, and says the same."""
    journal = case.open()
    assert [journal.claim([Ask("r", "f")], A, LEASE) for _ in range(2)] == [[Mine(0)]] * 2
    assert [journal.finish([Result("r", "f", b"x")]) for _ in range(2)] == [[Done(b"x")]] * 2
    journal.put_back(["r", "unknown"], A)
    assert journal.claim([Ask("r", "f")], A, LEASE) == [Done(b"x")]


def test_rows_of_a_dead_owner_are_taken_over_and_the_death_counts(case: Case) -> None:
    """The lease decides, a beat renews it, and the late result of a zombie is dropped."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    case.advance(LEASE - 1)
    journal.beat(A, LEASE)
    case.advance(LEASE - 1)
    assert isinstance(journal.claim([Ask("r", "f")], B, LEASE)[0], Busy)
    case.advance(2)
    assert journal.claim([Ask("r", "f")], B, LEASE) == [Mine(1)]
    assert isinstance(journal.claim([Ask("r", "f")], A, LEASE)[0], Busy), "the zombie has lost the row"
    assert journal.finish([Result("r", "f", b"of b")]) == [Done(b"of b")]
    assert journal.finish([Result("r", "f", b"of a, late")]) == [Done(b"of b")]
    assert journal.claim([Ask("r", "f")], A, LEASE) == [Done(b"of b")]


def test_the_first_result_wins_even_a_zombies(case: Case) -> None:
    """A result is paid for, so the first one stays, although another owner has the row by then."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    case.advance(LEASE + 1)
    journal.claim([Ask("r", "f")], B, LEASE)
    assert journal.finish([Result("r", "f", b"of a")]) == [Done(b"of a")]
    assert journal.finish([Result("r", "f", b"of b")]) == [Done(b"of a")]


def test_what_is_put_back_is_free_and_no_death_counts(case: Case) -> None:
    """Only the owner puts a row back."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    journal.put_back(["r"], B)
    assert isinstance(journal.claim([Ask("r", "f")], B, LEASE)[0], Busy)
    journal.put_back(["r"], A)
    assert journal.claim([Ask("r", "f")], B, LEASE) == [Mine(0)]


def test_an_owner_that_left_has_no_lease(case: Case) -> None:
    """Whatever it still had counts as left by a death."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    journal.leave(A)
    assert journal.claim([Ask("r", "f")], B, LEASE) == [Mine(1)]


@pytest.mark.parametrize(
    ("reason", "then"), [(None, Other("f")), ("json.schema", Mine(0))], ids=["a success", "a failure"]
)
def test_another_question(case: Case, reason: str | None, then: object) -> None:
    """A success is never asked again for another question; a failure is."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    journal.finish([Result("r", "f", b"x", reason)])
    assert journal.claim([Ask("r", "f")], B, LEASE) == [Done(b"x")]
    assert journal.claim([Ask("r", "g")], B, LEASE) == [then]
    if isinstance(then, Mine):
        assert journal.finish([Result("r", "f", b"late")]) == [Other("g")]
        assert journal.finish([Result("r", "g", b"y")]) == [Done(b"y")]


def test_deaths_are_counted_for_one_question_only(case: Case) -> None:
    """A row that was changed is not the row that killed."""
    journal = case.open()
    journal.claim([Ask("r", "f")], A, LEASE)
    case.advance(LEASE + 1)
    assert journal.claim([Ask("r", "g")], B, LEASE) == [Mine(0)]


def test_failures_are_listed_and_forgotten(case: Case) -> None:
    """Dead letters: their rows are asked again once somebody says so."""
    journal = case.open()
    for key, reason in (("a", None), ("b", "json.schema"), ("c", "job.poison")):
        journal.claim([Ask(key, "f")], A, LEASE)
        journal.finish([Result(key, "f", key.encode(), reason)])
    assert list(journal.failures()) == [Failure("b", "json.schema", b"b"), Failure("c", "job.poison", b"c")]
    assert (journal.forget(["b", "a", "b"]), journal.forget(), journal.forget()) == (1, 1, 0)
    keys = [Ask("a", "f"), Ask("b", "f"), Ask("c", "f")]
    assert journal.claim(keys, B, LEASE) == [Done(b"a"), Mine(0), Mine(0)]


def test_any_text_and_bytes_are_kept(case: Case) -> None:
    """Keys in every script, lines with every byte."""
    journal = case.open()
    key, line = "ключ ' \" \\ \u2028 \U0001f600", bytes(range(256)) * 100
    assert journal.claim([Ask(key, "f")], A, LEASE) == [Mine(0)]
    assert journal.finish([Result(key, "f", line)]) == [Done(line)]
    assert journal.claim([Ask(key, "f")], B, LEASE) == [Done(line)]
