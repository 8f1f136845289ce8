"""The streams recorded from a real model, served over sockets as they came and read through `messages()` and `run`."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import anthropic
import pytest

import streamguard
from streamguard import Completion, GaveUp, JsonDocument, Outcome, Policy
from streamguard.testing import ScriptedServer, send
from tests.data import path
from tests.recorded import recorded

POLICY = Policy(json=JsonDocument(), completion=Completion(accept=("end_turn", "max_tokens")))
"""Only the syntax decides: an answer that was cut is not refused for that, but for the document it cuts."""


def served() -> dict[str, list[Any]]:
    """Each stream in the writes it came in."""
    scripts = {}
    with zipfile.ZipFile(path("real_sse", "gemma270m-advisories.zip")) as archive:
        for stream in recorded():
            raw = archive.read(f"{stream.name}.sse")
            sizes = [size for _, size in json.loads(archive.read(f"{stream.name}.json"))["chunks"]]
            assert sum(sizes) == len(raw)
            starts = [sum(sizes[:place]) for place in range(len(sizes))]
            scripts[stream.name] = [
                send(raw[start : start + size]) for start, size in zip(starts, sizes, strict=True) if size
            ]
    return scripts


@pytest.fixture(scope="module")
def scripts() -> dict[str, list[Any]]:
    return served()


async def called(scripts: dict[str, list[Any]]) -> dict[str, Outcome | GaveUp]:
    """What becomes of a call, for each stream. One client, so that good answers share a connection."""
    results: dict[str, Outcome | GaveUp] = {}
    async with ScriptedServer(scripts) as server, anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:
        for name in scripts:
            source = streamguard.messages(
                client,
                model="gemma-3-270m",
                max_tokens=400,
                messages=[{"role": "user", "content": "Extract."}],
                extra_headers={"x-script": name},
            )
            try:
                results[name] = await streamguard.run(source, policy=POLICY)
            except GaveUp as error:
                results[name] = error
        assert server.errors == []
    return results


def test_the_verdicts_are_those_of_an_independent_judge(run_real, scripts) -> None:
    """All 60: ok, dead or truncated as `analysis.json` has it; dead at its character, with the event that holds it."""
    results = run_real(called, scripts)
    streams = {stream.name: stream for stream in recorded()}
    found: dict[str, tuple[Any, ...]] = {}
    expected: dict[str, tuple[Any, ...]] = {}
    for row in json.loads(path("real_sse", "analysis.json").read_text()):
        name, result, deltas = row["name"], results[row["name"]], streams[row["name"]].deltas
        if isinstance(result, Outcome):
            found[name] = ("ok", result.completed, result.value, result.usage.high.output_tokens)
        else:
            (attempt,) = result.attempts
            verdict = {"json.malformed": "dead", "json.incomplete": "truncated"}.get(result.reason, result.reason)
            found[name] = (verdict, attempt.ended.where.char, attempt.ended.where.event, attempt.text)
            # What the same read of the socket brought is on the record too: it has been paid for.
            if row["syntax"] == "dead" and "".join(deltas).startswith(attempt.text):
                found[name] = (*found[name][:3], attempt.text[: len("".join(deltas[: row["syntax_dead_delta"]]))])
        if row["syntax"] == "ok":
            expected[name] = ("ok", "whole", json.loads("".join(deltas)), row["output_tokens"])
        elif row["syntax"] == "dead":
            # The judge counts deltas from 1; before them come the message's and the block's start, counted from 0.
            last = row["syntax_dead_delta"]
            expected[name] = ("dead", row["syntax_dead_char"], last + 1, "".join(deltas[:last]))
        else:
            # Only the end of the message decides, which comes after the block's end and the usage.
            expected[name] = ("truncated", None, 1 + len(deltas) + 3, "".join(deltas))
    assert len(expected) == 60
    assert found == expected
