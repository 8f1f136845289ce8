"""The public names, and where each is written: those of the root, of public modules, and the members of classes."""

from __future__ import annotations

from collections.abc import Iterator

import griffe

import streamguard
from tools.python_names import package, target

MODULES = ("batch", "testing", "viability", "replay", "relay", "view", "events", "sync")
"""Packages and modules whose names README and docs use beside those of the root."""


def public() -> Iterator[tuple[str, griffe.Object]]:
    """Each public name with what it is; a class is followed by its own public members."""
    root = package()
    seen: set[str] = set()
    for name in streamguard.__all__:
        yield from _with_members(name, root[name], seen)
    for module in MODULES:
        exported = root[module].exports or [name for name in root[module].members if not name.startswith("_")]
        for name in map(str, exported):
            member = root[module].members.get(name)
            if member is not None and (root[module].exports or not member.is_alias):
                yield from _with_members(f"{module}.{name}", member, seen)


def _with_members(
    name: str, found: griffe.Object | griffe.Alias, seen: set[str]
) -> Iterator[tuple[str, griffe.Object]]:
    try:
        one = target(found)
    except griffe.GriffeError:  # of another package
        return
    if one.path in seen or not one.path.startswith("streamguard"):
        return
    seen.add(one.path)
    yield name, one
    if isinstance(one, griffe.Class):
        for key, member in one.members.items():
            if not key.startswith("_") and not member.is_alias:
                yield f"{name}.{key}", target(member)
