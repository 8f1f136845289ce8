"""Where the shared test data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def path(*parts: str) -> Path:
    """A file of the shared test data; skips the calling test where there is none."""
    base = Path(os.environ.get("STREAMGUARD_DATA") or ROOT.parent / "shared" / "data")
    found = base.joinpath(*parts)
    if not found.exists():
        pytest.skip(f"no test data at {found.name}: set STREAMGUARD_DATA to its folder")
    return found
