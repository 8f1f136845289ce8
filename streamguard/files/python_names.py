"""Import what a file names as `module:name`. The one place that imports code by its name."""

from __future__ import annotations

import importlib
import re
from typing import Any

import msgspec


class NotImported(msgspec.Struct, frozen=True):
    """Why a name could not be imported."""

    why: str


def is_python_name(text: str) -> bool:
    """Whether a text has the form `module:name`."""
    return re.fullmatch(r"[\w.]+:[\w.]+", text) is not None


def import_name(name: str) -> Any:
    """Import the object that `module:name` names. This runs the module's code.

    :returns: the object, or `NotImported` with the reason.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as mistake:  # whatever a module does when it is imported
        return NotImported(f"cannot be imported: {type(mistake).__name__}: {mistake}")
    return found
