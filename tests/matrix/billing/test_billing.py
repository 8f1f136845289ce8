"""A seeded sample of the bills: what is truly owed, against what is held and charged. The whole is `make matrix`."""

from __future__ import annotations

import ast
import math
from fractions import Fraction
from pathlib import Path

import pytest

from tests.matrix.billing.cells import violations
from tests.matrix.billing.rates import Owed, Sampling
from tests.matrix.billing.requests import STRANGE
from tests.matrix.billing.reserved import reserved

FOLDER = Path(__file__).parent
BATCHES, CELLS, REQUESTS = 8, 40, 40
JUDGES = ("rates.py", "parts.py", "requests.py", "answers.py")
"""What says what is owed. `cells` and `reserved` ask the package, and compare."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_sample_of_cells(batch: int) -> None:
    """Every true bill is within its hold and its charge, all of them within the cap, and records are true."""
    found = [wrong for seed in range(batch * CELLS, (batch + 1) * CELLS) for wrong in violations(seed)[0]]
    assert found == []


@pytest.mark.parametrize("seed", range(BATCHES))
def test_a_sample_of_requests(seed: int) -> None:
    """What the dearest answer would cost is held; what no documented rule covers is refused, and nothing else is."""
    found = reserved(seed, REQUESTS)
    assert found.violations == []
    assert found.bounded + found.refused.total() == REQUESTS


def test_every_strange_part_is_refused() -> None:
    """The sample has each kind of what has no bound."""
    refused = sum((reserved(seed, REQUESTS).refused for seed in range(100, 104)), start=type(reserved(0, 0).refused)())
    assert len(refused) >= len(STRANGE)


def test_judges_share_no_code_with_what_they_judge() -> None:
    """They import the kit that plays scripts, and nothing else of the package."""
    for name in JUDGES:
        tree = ast.parse((FOLDER / name).read_text())
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        own = {module for module in imported if module.startswith("streamguard")}
        assert {module for module in own if not module.startswith("streamguard.testing")} == set(), name


@pytest.mark.parametrize(
    ("owed", "micro_usd"),
    [
        (Owed((Sampling("claude-opus-5-5", plain=1000, output=1000),)), 24_000),
        (Owed((Sampling("claude-opus-5-5", plain=1000, output=1000),), geo="us"), 26_400),
        (Owed((Sampling("claude-opus-5-5", plain=1000, output=1000),), speed="fast"), 48_000),
        (Owed((Sampling("claude-opus-5-5", read=1000, written_5m=1000, written_1h=1000),)), 200 + 5000 + 8000),
        (Owed((Sampling("claude-haiku-5-5", plain=100_000, output=10),)), 10_005),
        (Owed((Sampling("claude-haiku-5-5", plain=100_001, output=10),)), Fraction(100_001, 2) + 25),
        (Owed((Sampling("claude-opus-5"), Sampling("claude-opus-5-5", output=1)), searches=2), 20_020),
    ],
)
def test_the_documented_rules(owed: Owed, micro_usd: Fraction | int) -> None:
    """The judge's own sums are right."""
    assert owed.micro_usd == micro_usd
    assert math.ceil(owed.micro_usd) >= owed.micro_usd
