"""Virtual time on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamguard.testing.clock import BACKENDS, run_virtual


@pytest.fixture(params=BACKENDS)
def virtual(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run an async function in virtual time on one backend."""
    return lambda fn, *args: run_virtual(fn, *args, backend=request.param)
