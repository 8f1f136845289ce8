"""What is different about a job's last run: what has changed is said, with the test, and chance is not."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations
from typing import Any

import pytest

from streamguard.jobs.report.drift import Side, differences, drift, rank_test
from streamguard.jobs.report.status import look, status_text
from streamguard.jobs.store.journal import open_journal


def line(key: str, *, tokens: int, first: float, items: int, model: str = "m-1", retried: tuple[str, ...] = ()) -> Any:
    """A result line."""
    bad = [{"number": at, "reason": reason, "output_tokens": [3, 9]} for at, reason in enumerate(retried, 1)]
    good = {
        "number": len(retried) + 1,
        "reason": None,
        "output_tokens": [tokens, tokens],
        "first_token_seconds": first,
    }
    return {
        "custom_id": key,
        "result": {"type": "succeeded", "message": {"model": model}},
        "streamguard": {"output": {"lines": [{"n": 1}] * items, "note": None}, "attempts": [*bad, good]},
    }


def rows(
    count: int, seed: int, *, thin: float = 1.0, late: float = 1.0, bad: float = 0.02, **options: Any
) -> list[Any]:
    """Rows of a run."""
    dice = random.Random(seed)
    return [
        line(
            f"{seed}-{at}",
            tokens=max(1, round(dice.lognormvariate(5, 0.4) * thin)),
            first=dice.lognormvariate(-0.3, 0.4) * late,
            items=max(0, round(dice.randint(2, 9) * thin)),
            retried=("json.schema",) if dice.random() < bad else (),
            **options,
        )
        for at in range(count)
    ]


def side(some: list[Any]) -> Side:
    """These rows together."""
    found = Side()
    for one in some:
        found.take(one)
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"thin": 0.5}, ["output tokens of an answer: median", "values in an answer: median"]),
        ({"late": 2.0}, ["first token: median"]),
        ({"bad": 0.25}, ["json.schema: 2"]),
        ({"model": "m-2"}, ["another model answers: m-2; in earlier runs m-1"]),
        ({}, []),
    ],
)
def test_what_has_changed_is_said(change, said) -> None:
    """Each with its test and the numbers of answers; what has not is not."""
    found = list(differences(side(rows(400, 1)), side(rows(200, 2, **change))))
    assert [sentence[: len(start)] for sentence, start in zip(found, said, strict=True)] == said
    assert all("test, p" in one or "proportions, p" in one or "another model" in one for one in found)


def test_chance_is_not_said() -> None:
    """Of 300 pairs of runs that are alike at most one differs."""
    noise = sum(bool(list(differences(side(rows(120, seed)), side(rows(60, seed + 10_000))))) for seed in range(300))
    assert noise <= 1


@pytest.mark.parametrize("count", [0, 1, 29])
def test_a_few_answers_say_nothing(count) -> None:
    """However different they are."""
    assert list(differences(side(rows(400, 1)), side(rows(count, 2, thin=0.1, late=9.0, bad=0.9)))) == []


def test_the_rank_test_is_the_exact_one_nearly() -> None:
    """Beside all ways to choose eight of sixteen ranks."""
    ranks = range(16)
    sums = [sum(chosen) for chosen in combinations(ranks, 8)]
    middle = sum(ranks) / 2
    for some in (
        (0, 1, 2, 3, 4, 5, 6, 7),
        (0, 1, 2, 3, 4, 5, 9, 10),
        (0, 2, 4, 6, 8, 10, 12, 14),
        (1, 3, 5, 7, 8, 10, 12, 14),
    ):
        others = [rank for rank in ranks if rank not in some]
        exact = sum(abs(total - middle) >= abs(sum(some) - middle) for total in sums) / len(sums)
        assert math.isclose(
            rank_test([float(one) for one in some], [float(one) for one in others]), exact, abs_tol=0.02
        )
    assert rank_test([1.0] * 5, [1.0] * 7) == 1.0


def test_status_says_how_the_last_run_differs(tmp_path) -> None:
    """From the journal alone; a first run differs from none."""
    out = str(tmp_path / "out.jsonl")
    with open_journal(out) as journal:
        for number, some in enumerate((rows(200, 1), rows(100, 2, late=3.0))):
            journal.start(300, len(some))
            for one in some:
                key = one["custom_id"]
                journal.begin(key)
                journal.finish(key, json.dumps(one).encode(), type="succeeded", reason=None, fingerprint="f")
            journal.end("finished")
            if number == 0:
                assert drift(journal) == []
        status = look(journal, out)
    assert len(status.drift) == 1
    assert "differs  first token: median 2." in status_text(status)
