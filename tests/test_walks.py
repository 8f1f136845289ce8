"""The walks of `docs/architecture.md` name files that exist, and each step is reached by the imports of the one above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.data import ROOT
from tests.test_layers import inside, modules

STEP = re.compile(r"^(?P<indent> *)\* `(?P<file>[a-z_/]+\.py)`", re.MULTILINE)
WALKS = ["One event", "One policy", "One budget hold", "One job row", "One row of an engine", "One proxy request"]


@cache
def walks() -> dict[str, str]:
    """The text of each walk, by its heading."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("\n## Walks\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.+)\n", section, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def steps(text: str) -> Iterator[tuple[int, str]]:
    """The steps of a walk: how deep each is, and its module."""
    for step in STEP.finditer(text):
        parts = step["file"].removesuffix(".py").split("/")
        yield len(step["indent"]) // 2, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def below(module: str) -> frozenset[str]:
    """Every module that a module reaches by imports."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        for there in inside(ahead.pop()) - found:
            found.add(there)
            ahead.append(there)
    return frozenset(found)


def upward(taken: list[tuple[int, str]]) -> list[str]:
    """The steps that are not reached from the step they stand under.

    A walk has one first step. A later step at its left edge is handed in: it must import a step that stands before it.
    """
    wrong: list[str] = []
    path: list[str] = []
    seen: set[str] = set()
    for depth, module in taken:
        del path[depth:]
        if module not in modules():
            wrong.append(f"{module} does not exist")
        elif depth > len(path):
            wrong.append(f"{module} stands under nothing")
        elif path and module not in below(path[-1]):
            wrong.append(f"{path[-1]} does not reach {module}")
        elif not path and seen and not below(module) & seen:
            wrong.append(f"{module} imports nothing of the walk")
        path.append(module)
        seen.add(module)
    return wrong


def test_every_walk_is_there() -> None:
    """The page has the six walks, in order."""
    assert list(walks()) == WALKS


@pytest.mark.parametrize("walk", WALKS)
def test_walks_go_down(walk: str) -> None:
    """Each step of a walk is a file that the step above it reaches by imports; imports go down only."""
    taken = list(steps(walks()[walk]))
    assert len(taken) >= 8
    assert upward(taken) == []


@pytest.mark.parametrize(
    ("taken", "wrong"),
    [
        ([(0, "api"), (1, "engine.call"), (2, "guards.panel")], []),
        ([(0, "engine.call"), (1, "api")], ["engine.call does not reach api"]),
        ([(0, "api"), (1, "engine.gone")], ["engine.gone does not exist"]),
        ([(0, "api"), (2, "engine.call")], ["engine.call stands under nothing"]),
        ([(0, "source"), (0, "adapters.anthropic.stream")], []),
        ([(0, "source"), (0, "terminal")], ["terminal imports nothing of the walk"]),
    ],
)
def test_steps_upwards_are_found(taken: list[tuple[int, str]], wrong: list[str]) -> None:
    """The check finds a step that goes up, a file that is gone and a step under nothing."""
    assert upward(taken) == wrong
