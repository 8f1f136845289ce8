"""The plan: rows, their turns, and which of them are left out. Its memory is a file."""

from __future__ import annotations

from streamguard.jobs.input.plan import PAGE, Entry, Plan


def filled(rows: int) -> Plan:
    """Rows `k1` … on odd lines; every fifth one cannot be asked."""
    plan = Plan()
    for number in range(1, rows + 1):
        assert plan.line_of(f"k{number}") is None
        plan.add(f"k{number}", 2 * number - 1, 10 * number, 10, 7, None if number % 5 == 0 else f"f{number}")
    return plan


def keys(plan: Plan) -> list[str]:
    return [entry.custom_id for entry, _ in plan.todo()]


def test_rows_come_in_the_inputs_order_page_by_page() -> None:
    """Those that can be asked; the keys of the others are taken all the same."""
    with filled(3 * PAGE) as plan:
        entries = list(plan.entries())
        assert entries[0] == Entry("k1", 1, 10, 10, 7, "f1")
        assert [entry.line for entry in entries] == sorted(entry.line for entry in entries)
        assert len(plan) == len(entries) == 12 * PAGE // 5
        assert [len(page) for page in plan.pages()] == [500, 500, 200]
        assert (plan.line_of("k5"), plan.entry("k5"), plan.entry("k6"), plan.entry("x")) == (
            9,
            None,
            Entry("k6", 11, 60, 10, 7, "f6"),
            None,
        )


def test_rows_are_asked_by_turns() -> None:
    """Turn 0 first, each turn in the input's order; who has no turn is not asked."""
    with filled(8) as plan:
        assert (keys(plan), plan.chosen) == ([], 0)
        plan.choose([(1, 2), (3, 0), (5, None), (7, 1), (11, 0)])
        assert [(entry.custom_id, turn) for entry, turn in plan.todo()] == [("k2", 0), ("k6", 0), ("k4", 1), ("k1", 2)]
        assert (plan.chosen, plan.is_chosen("k1"), plan.is_chosen("k3"), plan.is_chosen("x")) == (4, True, False, False)


def test_a_limit_keeps_those_that_come_first() -> None:
    """By turn, then by line."""
    with filled(8) as plan:
        plan.choose([(1, 1), (3, 0), (5, 0), (7, 0)])
        assert (plan.keep_first(2), keys(plan)) == (2, ["k2", "k3"])
        assert (plan.keep_first(9), keys(plan)) == (0, ["k2", "k3"])


def test_a_sample_is_one_of_the_input() -> None:
    """The lowest ranks of all rows, whether they are still to be asked or not, so that a second run goes on with it."""
    with filled(8) as plan:
        plan.choose((entry.line, 0) for entry in list(plan.entries()) if entry.custom_id != "k7")
        assert plan.keep_sample(3, lambda key: -int(key[1:])) == 4
        assert keys(plan) == ["k6", "k8"]


def test_rows_of_equal_content_are_told_apart_by_their_occurrence() -> None:
    """First, second, third; whatever comes in between."""
    with Plan() as plan:
        assert [plan.occurrence(content) for content in "abaab"] == [1, 1, 2, 3, 2]
