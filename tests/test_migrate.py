"""`docs/migrate.md` and `migrate-jobs.md`: what the pages cannot run by themselves, and how long their blocks are."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from streamguard.demo.provider import Order, provider
from tests.test_docs import blocks, hidden, language, reason_to_skip

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / "build" / "migrate" / "bin" / "python"
PAGES = ("docs/migrate.md", "docs/migrate-jobs.md")
SHOWN = [one for page in PAGES for one in blocks(page) if language(one) == "python" and not hidden(one)]
SKIPPED = {
    name: str(next(one for one in SHOWN if reason_to_skip(one) and word in one.parsed).parsed)
    for name, word in {
        "instructor": "import anthropic, instructor",
        "litellm": "import litellm",
        "batches": "batches",
    }.items()
}


@pytest.fixture
def url() -> Iterator[str]:
    """The simulated provider, which makes no mistakes here."""
    with provider(Order(bad_answers=0, speed=200)).in_thread() as server:
        yield server.url


def test_each_block_is_short() -> None:
    """At most 20 lines, before and after."""
    assert len(SHOWN) >= 11
    assert [one.line for one in SHOWN if len(str(one.parsed).strip().splitlines()) > 20] == []
    assert sum(reason_to_skip(one) is not None for one in SHOWN) == len(SKIPPED)


@pytest.mark.skipif(not PYTHON.exists(), reason="instructor and LiteLLM are not installed: `make real` installs them")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["instructor", "litellm"])
def test_before_runs_with_the_library_itself(name: str, url: str, tmp_path: Path) -> None:
    """The code that people come from works, against the simulated provider."""
    variables = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_BASE": url, "ANTHROPIC_API_KEY": "none-needed"}
    done = subprocess.run(
        [PYTHON, "-c", SKIPPED[name]],
        cwd=tmp_path,
        env={**os.environ, **variables, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_batches_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Against a scripted endpoint: the batch is made, polled until it has ended, and its results are read."""
    asked: list[str] = []
    batch = {
        "id": "b1",
        "type": "message_batch",
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
        "archived_at": None,
        "cancel_initiated_at": None,
        "ended_at": None,
        "results_url": "http://batches/results",
        "request_counts": {"canceled": 0, "errored": 0, "expired": 0, "processing": 1, "succeeded": 0},
    }

    def answered(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url.path}")
        if request.url.path.endswith("results"):
            line = {"custom_id": "a", "result": {"type": "expired"}}
            return httpx2.Response(200, text=json.dumps(line) + "\n", headers={"content-type": "application/binary"})
        status = "ended" if asked.count("GET /v1/messages/batches/b1") > 1 else "in_progress"
        return httpx2.Response(200, json={**batch, "processing_status": status})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: asked.append(f"sleep {seconds}"))
    row = {"model": "claude-haiku-4-5", "max_tokens": 200, "messages": [{"role": "user", "content": "…"}]}
    Path("batch.jsonl").write_text(json.dumps({"custom_id": "a", "params": row}) + "\n")
    http = httpx2.Client(transport=httpx2.MockTransport(answered))
    with anthropic.Anthropic(api_key="x", base_url="http://batches", http_client=http) as plain:
        names: dict[str, Any] = {"plain": plain}
        exec(SKIPPED["batches"], names)
    assert asked[:4] == [
        "POST /v1/messages/batches",
        "GET /v1/messages/batches/b1",
        "sleep 60",
        "GET /v1/messages/batches/b1",
    ]
    assert capsys.readouterr().out == "a expired\n"
