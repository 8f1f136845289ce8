"""Every pattern of the package takes time that grows with the text and no faster: most texts are somebody else's."""

from __future__ import annotations

import ast
import importlib
import re
import time
from typing import Any

import pytest
import regex

from tests.data import ROOT

PACKAGE = ROOT / "streamguard"


ANCHORED = {"match", "fullmatch"}
"""Uses of a pattern that begin at one place only."""


def compiled() -> dict[str, Any]:
    """Patterns in the modules' globals and in their classes, by name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1] in ("__main__", "pytest_plugin"):
            continue
        try:
            module = importlib.import_module(".".join(parts))
        except ImportError:
            continue
        source = file.read_text(encoding="utf-8")
        for holder in (module, *(one for one in vars(module).values() if isinstance(one, type))):
            if getattr(holder, "__module__", module.__name__) != module.__name__:
                continue
            for name, value in vars(holder).items():
                if isinstance(value, re.Pattern | regex.Pattern):
                    used = set(re.findall(rf"\b{name}\.(\w+)\(", source))
                    found[f"{'.'.join(parts[1:])}:{name}"] = (value, used <= ANCHORED and bool(used))
    return found


def inline() -> dict[str, Any]:
    """Patterns that are handed to `re` where they are used."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr != "compile"
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str | bytes)
            ):
                found[f"{file.relative_to(PACKAGE)}:{node.lineno}"] = (
                    re.compile(node.args[0].value),
                    node.func.attr in ANCHORED,
                )
    return found


PATTERNS = {**inline(), **compiled()}


def letters(pattern: Any) -> set[str]:
    """What a pattern's own characters are, for texts that go far into it."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return set(re.findall(r"[A-Za-z]{2,12}", text)) | set(re.findall(r"[^\w\s]", text))


PUMPS = ("a", "0", " ", "\n", "-", ".", "/", '"', "\\", "a ", "a.", "a-", "a:", "1,", "\r\n", "://a:b", "@", "é")


def seconds(pattern: Any, anchored: bool, text: Any) -> float:
    best = 1e9
    for _ in range(2):
        began = time.thread_time()
        if anchored:
            pattern.fullmatch(text)
            pattern.match(text)
        else:
            for _ in pattern.finditer(text):
                pass
        best = min(best, time.thread_time() - began)
        if best < 0.002:
            break
    return best


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_linear(name: str) -> None:
    """Eight times the text takes about eight times as long, for texts of everything that the pattern speaks of."""
    pattern, anchored = PATTERNS[name]
    wrong = []
    for pump in {*PUMPS, *letters(pattern)}:
        for text in (pump, f"{pump} "):
            short, long = text * (512 // len(text)), text * (4096 // len(text))
            if isinstance(pattern.pattern, bytes):
                short, long = short.encode("latin-1"), long.encode("latin-1")
            took = seconds(pattern, anchored, long)
            if took > 0.004 and took > 24 * seconds(pattern, anchored, short):
                wrong.append((text, round(took, 3)))
    assert wrong == []


def test_patterns_were_found() -> None:
    """The collection collects."""
    assert len(PATTERNS) > 40
    assert "redaction:_SECRET" in PATTERNS
