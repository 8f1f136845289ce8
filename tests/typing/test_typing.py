"""The public API as type checkers see it: user code that mypy in strict mode and pyright find no mistake in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import streamguard
from streamguard import BudgetSpec, Caps, JsonDocument, Policy
from tests.data import ROOT

API = ROOT / "tests" / "typing" / "api.py"


@pytest.mark.timeout(300)
def test_mypy_finds_no_mistake(tmp_path: Path) -> None:
    """`mypy --strict` without any plugin, with every error that must be one marked as such."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nwarn_unused_ignores = True\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(ROOT / ".mypy_cache" / "users"),
    ]
    done = subprocess.run([*command, str(API)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None, reason="pyright is not installed (pip install .[test])"
)
def test_pyright_finds_no_mistake() -> None:
    """pyright agrees."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(API)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 errors, 0 warnings" in done.stdout


@pytest.mark.parametrize("kind", [Policy, JsonDocument, Caps, BudgetSpec])
def test_what_type_checkers_see_is_what_there_is(kind: type[Policy]) -> None:
    """A constructor that is written out for type checkers has the model's fields, by the names that a file has."""
    import ast
    import inspect
    import textwrap

    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    (given,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    names = [field.alias or name for name, field in kind.model_fields.items()]
    assert [argument.arg for argument in given.args.kwonlyargs] == names


def test_documented_modules_need_no_import() -> None:
    """After a bare `import streamguard` every documented module is there."""
    code = "import streamguard; print(*(getattr(streamguard, name).__name__ for name in streamguard._SUBMODULES))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == [f"streamguard.{name}" for name in streamguard._SUBMODULES]
