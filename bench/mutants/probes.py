"""Look for a mutant: each probe says what it noticed, or nothing."""

from __future__ import annotations

import contextlib
import importlib
import io
import random
from collections.abc import Callable
from typing import Any

import pytest

FEW = 2500
"""Cells that are tried before the other probes; as many more come last."""


def _cells(begin: int, end: int | None) -> str | None:
    from tests.matrix.cells import CHUNKS
    from tests.matrix.grid import grid, run_cells
    from tests.matrix.surfaces import COMMITTED, LIVE, RESTARTING, RUN, SDK, SDK_LIVE

    doors = (RUN, COMMITTED, LIVE, RESTARTING)
    cells = [cell for cell in grid(doors) if cell.chunk == CHUNKS[0]]
    cells += [cell for cell in grid((SDK, SDK_LIVE)) if cell.chunk == CHUNKS[0]][::9]
    random.Random(5).shuffle(cells)
    cells = cells[begin:end]
    for at in range(0, len(cells), 50):
        _, found = run_cells(cells[at : at + 50])
        if found:
            return found[0]
    return None


def _asserting(module: str, function: str, *cases: tuple[Any, ...]) -> Callable[[], str | None]:
    # Looked up here: a test that was renamed must not pass for one that failed.
    test = getattr(importlib.import_module(f"tests.matrix.{module}"), function)

    def probe() -> str | None:
        for case in cases or ((),):
            try:
                test(*case)
            except BaseException as error:  # a probe that fails in any way has noticed
                return f"{function}{case}: {type(error).__name__}: {str(error)[:200]}"
        return None

    return probe


def _compositions() -> str | None:
    from bench.compositions import _run

    found = _run(0)
    return found[0] if found else None


def _keys_probe() -> str | None:
    from streamguard.testing import run_virtual
    from streamguard.testing.scripted import Script
    from tests.matrix.cells import CANARY, Question
    from tests.matrix.configs import configs
    from tests.matrix.surfaces import SDK
    from tests.matrix.test_security import TELLTALES

    config = configs()["completion"]
    for where, items in TELLTALES.items():
        seen = run_virtual(SDK.ask, Question(Script.of(items), config.policy, config.request), grace=0.002)
        if CANARY in str(seen.error) + str(seen.telemetry):
            return f"the key was seen: {where}"
    return None


PROBES: dict[str, Callable[[], str | None]] = {
    "cells": lambda: _cells(0, FEW),
    "cancellation": _asserting(
        "test_cancellation",
        "test_cancelled_at_every_step",
        ("a good answer", False),
        ("a dead document, then a good answer", True),
        ("silence", False),
    ),
    "cancellation on sockets": _asserting("test_cancellation", "test_cancelled_at_every_step_on_sockets"),
    "leaving": _asserting("test_cancellation", "test_left_at_every_event", ("live", "break"), ("restarting", "raise")),
    "truncation": _asserting("test_truncation", "test_every_cut_of_the_catalogue"),
    "amplification": _asserting(
        "test_amplification", "test_an_outage_costs_little_more_than_its_calls", ("F29-outage",), ("F14-no-answer",)
    ),
    "keys": _keys_probe,
    "fuzz": _asserting("test_fuzz", "test_mutations", ("sse",), ("wire",), ("schema",)),
    "regressions": _asserting("test_regressions", "test_an_answer_is_final_at_its_end_whoever_acts"),
    "compositions": _compositions,
    "cool-down": _asserting("test_amplification", "test_calls_stop_together"),
    "more cells": lambda: _cells(FEW, 2 * FEW),
}


class Unusable(BaseException):
    """A probe cannot be run: that says nothing about the mutant. No kind that a probe's own `except` takes."""


def named_tests(nodes: tuple[str, ...]) -> str | None:
    """Run the tests that must notice a mutant, in this process, where its patch stands.

    Raises:
        Unusable: pytest found no such test, or could not run it.
    """
    failed: list[str] = []

    class Listener:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    # The package is imported already, so its assertions cannot be rewritten; no test needs that.
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    screen = io.StringIO()
    try:
        with contextlib.redirect_stdout(screen):
            code = pytest.main([*options, *nodes], plugins=[Listener()])
    except Exception as error:
        raise Unusable(f"{nodes}: {error}") from error
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise Unusable(f"{nodes}: {screen.getvalue()[-2000:]}")
    return f"failed: {failed[0]}" if failed else None
