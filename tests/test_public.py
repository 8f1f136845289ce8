"""The package's front door: names that exist, each where it is said to be, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import streamguard
import streamguard.testing
from tests.data import ROOT

MODULES = [streamguard, streamguard.testing]
EACH = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


def table(module: ModuleType) -> dict[str, str]:
    """Public name → the module it comes from, as the lazy table has it; modules themselves come from nowhere else."""
    homes = {
        "streamguard": lambda: module._HOME,
        "streamguard.testing": lambda: {f"streamguard.testing.{home}": names for home, names in module._HOMES.items()},
    }[module.__name__]()
    return {name: home for home, names in homes.items() for name in names}


def promised(module: ModuleType) -> dict[str, str]:
    """The same, as type checkers see it."""
    tree = ast.parse(inspect.getsource(module))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@EACH
def test_what_is_public_is_what_is_there(module: ModuleType) -> None:
    """`__all__`, the lazy table and the imports for type checkers are the same names from the same places."""
    modules = {name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
    assert len(module.__all__) == len(set(module.__all__))
    assert {name: home for name, home in promised(module).items() if name not in modules} == table(module)
    assert set(module.__all__) == set(table(module)) | modules
    assert {promised(module)[name] for name in modules} <= {module.__name__}


@EACH
def test_each_name_resolves(module: ModuleType) -> None:
    """Every name is what its home has under it, at the first use and at the second."""
    for name, home in table(module).items():
        first = getattr(module, name)
        assert first is getattr(importlib.import_module(home), name)
        assert getattr(module, name) is first
    for name in set(module.__all__) - set(table(module)):
        assert getattr(module, name) is importlib.import_module(f"{module.__name__}.{name}")


@EACH
def test_dir_knows_them(module: ModuleType) -> None:
    """Completion in a shell finds the public names before they are used."""
    code = f"import {module.__name__} as m; print(*dir(m))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(module.__all__) <= set(listed.stdout.split())


@EACH
@pytest.mark.parametrize("name", ["Gaurd", "runs", "_secret", "__wrapped__", "zulu.time"])
def test_a_name_that_is_not_there(module: ModuleType, name: str) -> None:
    """A wrong name is an AttributeError that says which module lacks what, so that `hasattr` works."""
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute '{name}'"):
        getattr(module, name)
    assert not hasattr(module, name)


@EACH
def test_import_star(module: ModuleType) -> None:
    """`from … import *` gives exactly the public names."""
    code = f"before = set(globals()); from {module.__name__} import *; print(*sorted(set(globals()) - before - {{'before'}}))"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert got.stdout.split() == sorted(module.__all__)


@EACH
def test_public_names_are_documented(module: ModuleType) -> None:
    """Whatever is public says what it is."""
    undocumented = [
        name
        for name in module.__all__
        if (inspect.isclass(value := getattr(module, name)) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ]
    assert undocumented == []


def test_errors_are_public() -> None:
    """Whoever catches what this package raises can name it."""
    from streamguard import errors

    raised = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert raised <= set(streamguard.__all__)


def test_documented_modules_need_no_import_of_their_own() -> None:
    """`import streamguard` is enough to use the modules that README and the pages name."""
    code = (
        "import streamguard\n"
        "for name in streamguard._SUBMODULES:\n"
        "    assert getattr(streamguard, name).__name__ == 'streamguard.' + name, name\n"
        "print(streamguard.events.Delta.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "Delta\n"
