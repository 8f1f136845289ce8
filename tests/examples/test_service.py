"""`examples/service`: the FastAPI service on a socket, asked as its clients ask, against scripted and simulated providers."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import uvicorn

from streamguard.testing import ScriptedServer, answer, error
from tests.data import ROOT

pytest.importorskip("fastapi", reason="FastAPI is not installed: the extra test has it")
GOOD = '{"number": "DN-64220", "total": 12.5}'


@contextmanager
def served(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    """The service on a port of its own, in front of a provider."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none-needed")
    spec = importlib.util.spec_from_file_location("example_service", ROOT / "examples" / "service" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "example_service", module)
    spec.loader.exec_module(module)
    server = uvicorn.Server(uvicorn.Config(module.app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)  # uvicorn has no signal for it
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def test_a_bad_answer_is_asked_again_and_the_value_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer has a negative total, the second one is right: status 200 and the checked value."""
    bad = '{"number": "DN-64220", "total": -1}'
    with ScriptedServer(answer(bad), answer(GOOD)).in_thread() as server, served(server.url, monkeypatch) as client:
        got = client.post("/extract", json={"text": "Invoice DN-64220"})
        assert (got.status_code, got.json()) == (200, {"number": "DN-64220", "total": "12.5"})
        assert len(server.requests) == 2


def test_what_cannot_be_had_is_a_status_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that the provider rejects is asked once, and is a 502 that names the reason."""
    with (
        ScriptedServer(error("invalid_request_error")).in_thread() as server,
        served(server.url, monkeypatch) as client,
    ):
        got = client.post("/extract", json={"text": "Invoice DN-64220"})
        assert (got.status_code, got.json()) == (
            502,
            {"detail": {"reason": "provider.invalid_request", "attempts": 1}},
        )
        assert client.post("/extract", json={"no": "text"}).status_code == 422


def test_an_answer_is_streamed_to_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server-sent events: all text in pieces, then `done`."""
    with ScriptedServer(answer("Good morning.")).in_thread() as server, served(server.url, monkeypatch) as client:
        got = client.get("/answer", params={"say": "Good morning?"})
    assert got.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: ")]
    assert "".join(one["text"] for one in told if one["type"] == "text") == "Good morning."
    assert told[-1]["type"] == "done"
