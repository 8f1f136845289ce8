"""The fixtures, used as others use them, and what loading the plugin costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request

import anyio
import anyio.lowlevel

from streamguard.testing import answer
from tests.data import ROOT


def test_backends(backend, run_virtual, run_real):
    """Both runners run on the test's backend."""

    async def library():
        await anyio.lowlevel.checkpoint()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return "trio", anyio.current_time()
        return "asyncio", anyio.current_time()

    assert run_virtual(library) == (backend, 0.0)
    name, now = run_real(library)
    assert name == backend
    assert now > 0
    assert run_virtual.keywords == {"backend": backend}


def test_scripted_server(scripted_server):
    """As many servers as are called for, each at a port of its own."""
    servers = [scripted_server(answer("one")), scripted_server(answer("two"))]
    for server, text in zip(servers, (b"one", b"two"), strict=True):
        with urllib.request.urlopen(server.url + "/v1/messages", b"{}", timeout=10) as response:
            assert text in response.read()
    assert len({server.url for server in servers}) == 2


def test_loading_is_light():
    """The plugin loads nothing of the kit, no anyio and no SDK, before a fixture is used."""
    code = (
        "import sys; before = set(sys.modules); import streamguard.testing.pytest_plugin;"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('streamguard.testing')));"
        "print([name for name in ('anthropic', 'trio', 'httpx2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['streamguard.testing', 'streamguard.testing.pytest_plugin']", "[]"]
