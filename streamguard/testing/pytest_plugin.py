"""Fixtures for pytest; registered as the plugin `streamguard`.

* `backend`: `asyncio` and `trio`, a test run each (trio only where it is installed).
* `run_virtual(async_fn, *args)`: run it on that backend in virtual time; see `streamguard.testing.run_virtual`.
* `run_real(async_fn, *args)`: run it on that backend in real time.
* `scripted_server(*attempts, **options)`: start a `ScriptedServer` in a thread, for synchronous code; as many as are
  called for, closed when the test ends. Inside of async code, use `async with ScriptedServer(...)` instead: it shares
  the loop's clock.

Nothing of the kit is imported before a test asks for it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from streamguard.testing import Backend, ScriptedServer


@pytest.fixture(params=("asyncio", "trio"))
def backend(request: pytest.FixtureRequest) -> Backend:
    """The name of an anyio backend; a test that asks for it runs once on each."""
    name: Backend = request.param
    if name == "trio" and importlib.util.find_spec("trio") is None:
        pytest.skip("trio is not installed")
    return name


@pytest.fixture
def run_virtual(backend: Backend) -> Callable[..., Any]:
    """`run_virtual(async_fn, *args, grace=…, patience=…, within=…)` on the test's backend."""
    from streamguard.testing import clock

    return functools.partial(clock.run_virtual, backend=backend)


@pytest.fixture
def run_real(backend: Backend) -> Callable[..., Any]:
    """`run_real(async_fn, *args)` on the test's backend, by the real clock."""
    import anyio

    return functools.partial(anyio.run, backend=backend)


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    """`scripted_server(*attempts, **options)`: a server that runs in a thread until the test ends."""
    from streamguard.testing import server

    with ExitStack() as stack:

        def start(*attempts: Any, **options: Any) -> ScriptedServer:
            return stack.enter_context(server.ScriptedServer(*attempts, **options).in_thread())

        yield start
