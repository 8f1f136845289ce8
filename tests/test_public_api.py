"""The public API as a text, so that no change of it goes unseen: names, signatures, fields, bases.

After a change that is meant: `python -P tests/test_public_api.py` writes the text anew, and `git diff` shows the change.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

import streamguard

ROOT = Path(__file__).parent.parent
SNAPSHOT = Path(__file__).parent / "public_api.txt"
MODULES = ("batch", "testing", "viability", "replay", "relay", "view", "events")
"""Packages and modules whose names README and docs use beside those of the root."""


def described(path: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Lines for one public name."""
    if isinstance(found, griffe.Alias):
        try:
            found = found.final_target
        except griffe.GriffeError:  # of another package
            yield f"{path}: imported"
            return
    if found.is_function:
        assert isinstance(found, griffe.Function)
        yield f"{path}{signature(found)}"
    elif found.is_class:
        assert isinstance(found, griffe.Class)
        bases = ", ".join(str(base) for base in found.bases)
        yield f"class {path}({bases})"
        for name, member in sorted(found.members.items()):
            if (name == "__init__" or not name.startswith("_")) and not member.is_alias:
                yield from described(f"  {path}.{name}", member)
    elif found.is_module:
        yield f"module {path}"
    else:
        assert isinstance(found, griffe.Attribute)
        yield f"{path}: {found.annotation}"


def signature(function: griffe.Function) -> str:
    """Parameters with their types and defaults, and what comes back."""
    shown = []
    for parameter in function.parameters:
        mark = {"variadic positional": "*", "variadic keyword": "**"}.get(
            parameter.kind.value if parameter.kind else "", ""
        )
        default = "" if mark or parameter.default is None else f" = {parameter.default}"
        only = " [keyword]" if parameter.kind is griffe.ParameterKind.keyword_only else ""
        typed = f": {parameter.annotation}" if parameter.annotation is not None else ""
        shown.append(f"{mark}{parameter.name}{typed}{default}{only}")
    return f"({', '.join(shown)}) -> {function.returns}"


def api() -> str:
    """The public API, one name a line."""
    root = griffe.load("streamguard", search_paths=[ROOT], resolve_aliases=True)
    lines: list[str] = []
    for name in sorted(streamguard.__all__):
        lines += described(name, root[name])
    for module in MODULES:
        exported = root[module].exports or [name for name in root[module].members if not name.startswith("_")]
        own = [name for name in map(str, exported) if name in root[module].members]
        for name in sorted(own):
            member = root[module].members[name]
            if root[module].exports or not member.is_alias:
                lines += described(f"{module}.{name}", member)
    return "\n".join(lines) + "\n"


def test_the_public_api_is_as_it_was() -> None:
    """Whatever is changed here is changed for users, and belongs into the changelog."""
    # In a process of its own: what other tests leave to the garbage collector can disturb the parser (Python 3.11).
    done = subprocess.run([sys.executable, "-P", __file__, "--print"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == SNAPSHOT.read_text().splitlines(), "if it is meant, write the text anew"


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write(api())
    else:
        SNAPSHOT.write_text(api())
