"""Keys that must be nowhere, patterns and files that are traps, references and paths that lead elsewhere (I10)."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from streamguard.engine.telemetry_structlog import structlog_hook
from streamguard.errors import ConfigError, JobError, PolicyError, SchemaError, StreamguardError
from streamguard.events import BlockStarted, Delta, Started, Stopped
from streamguard.guards.base import AttemptContext
from streamguard.guards.content import Content
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.panel import Panel
from streamguard.jobs.input.rows import Row, lines, parse
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.policy.file import loads_policy
from streamguard.request import Request
from streamguard.testing import Script, answer, faults, rst, run_virtual, script, status, wire
from tests.jobs.jobs import Provider, batch_line, run_job, write_job
from tests.matrix import corpora
from tests.matrix.cells import CANARY, Question
from tests.matrix.configs import configs
from tests.matrix.edges import PROXY, PROXY_LIVE
from tests.matrix.surfaces import GUARDED, MIDDLEWARE, MIDDLEWARE_LIVE, SDK, SDK_LIVE

SAYS = f"invalid x-api-key: {CANARY}"
TELLTALES: dict[str, Any] = {
    "in the body of an error": [status(401, None, wire.error_body("authentication_error", SAYS))],
    "in a page": [status(502, {"content-type": "text/html"}, f"<p>authorization: Bearer {CANARY}</p>".encode())],
    "in a page with status 200": [status(200, {"content-type": "text/html"}, f"<p>{SAYS}</p>".encode())],
    "in an error inside the stream": [*faults.Say().half(), wire.error("api_error", SAYS)],
    "in an error that is no JSON": [*faults.Say().half(), wire.frame("error", SAYS.encode())],
    "in an event that is no JSON": [*faults.Say().half(), wire.frame("message_delta", SAYS.encode())],
    "nowhere, and the connection breaks": [*faults.Say().half(), rst()],
    "nowhere, and there is no answer": [rst()],
}
DOORS = (SDK, SDK_LIVE, GUARDED, MIDDLEWARE, MIDDLEWARE_LIVE, PROXY, PROXY_LIVE)


@pytest.mark.parametrize("where", TELLTALES)
@pytest.mark.parametrize("surface", DOORS, ids=lambda surface: surface.name)
def test_the_key_is_nowhere(where: str, surface: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that says the client's key aloud: it is in no error, record, telemetry or log, at DEBUG too."""
    caplog.set_level(logging.DEBUG)
    config = configs()["completion"]
    question = Question(Script.of(TELLTALES[where]), surface.adapt(config.policy), config.request)
    seen = run_virtual(surface.ask, question, grace=0.002)
    assert seen is None or seen.error is not None
    if seen is None:
        return
    told: list[str] = [str(seen.telemetry), str(seen.error), repr(seen.error), str(seen.leaks)]
    told += traceback.format_exception(seen.error)
    told += [record.getMessage() for record in caplog.records if record.name.startswith("streamguard")]
    told += [str(getattr(seen.error, name, "")) for name in ("record", "sdk_error")][:1]
    hook = structlog_hook()
    for record in seen.telemetry:
        hook(record)
    told += [record.getMessage() for record in caplog.records if record.name.startswith("streamguard")]
    assert [text for text in told if CANARY in text] == []


@pytest.mark.parametrize("pattern", corpora.REDOS, ids=lambda case: case[0][:24])
def test_patterns_that_backtrack_end(pattern: tuple[str, str]) -> None:
    """A pattern of a policy or a schema that would run for ever is given up in time, and never taken for a pass."""
    source, text = pattern
    guards: list[Any] = []
    if re.search(source, "") is None:  # else it is refused, since every answer would trip
        guards.append(Content(reason="content.x", pattern=source))
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": source}}}
    guards.append(JsonDocument(schema=schema))
    began = time.process_time()
    for guard in guards:
        panel = Panel([guard], AttemptContext(request=Request(faults.request())), 0.0)
        document = json.dumps({"a": text})
        verdict = panel.feed(Started(), 0.0) or panel.feed(BlockStarted(0, "text"), 0.0)
        for at in range(0, len(document), 16):
            verdict = verdict or panel.feed(Delta(0, "text", document[at : at + 16]), 0.0)
        verdict = verdict or panel.feed(Stopped(), 0.0)
        assert verdict is None or verdict.reason in ("guard.failed", "content.x", "json.schema"), verdict
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize("name", corpora.bombs())
def test_policy_files_that_are_traps(name: str) -> None:
    """Each is refused with a typed error, soon, and in little memory."""
    text = corpora.bombs()[name]
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(PolicyError) as caught:
            loads_policy(text, file="trap.yaml")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5.0
    assert most < 32 << 20
    assert "trap.yaml" in str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that somebody tries to reach."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError(address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return tried


@pytest.mark.parametrize("schema", corpora.REMOTE_SCHEMAS, ids=str)
def test_schemas_never_reach_out(schema: dict[str, Any], offline: list[Any]) -> None:
    """A reference to another machine or file is refused when the schema is read, and nothing is fetched."""
    context = AttemptContext(request=Request(faults.request()))
    if "$schema" in schema:
        # A dialect that nobody knows is a name, and is not fetched either.
        JsonDocument(schema=schema).watch(context, 0.0)
    else:
        with pytest.raises(SchemaError):
            JsonDocument(schema=schema).watch(context, 0.0)
    assert offline == []


@pytest.mark.parametrize("schema", [corpora.expanding(), corpora.RECURSIVE], ids=["expanding", "recursive"])
def test_schemas_that_grow(schema: dict[str, Any]) -> None:
    """A schema whose references multiply, or lead to itself, is compiled or refused, soon."""
    began = time.process_time()
    try:
        guard = JsonDocument(schema=schema)
        panel = Panel([guard], AttemptContext(request=Request(faults.request())), 0.0)
        for event in (Started(), BlockStarted(0, "text"), Delta(0, "text", '{"n": 1}'), Stopped()):
            panel.feed(event, 0.0)
    except ConfigError:
        pass
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("name", corpora.PATHS, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("what", ["input", "out", "policy", "schema", "template"])
def test_files_that_are_none(name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path to a folder, a device or nowhere is a typed error that names it, before anything is sent or written."""
    monkeypatch.chdir(tmp_path)
    spec = write_job(tmp_path, "row")
    before = sorted(os.listdir(tmp_path))
    values = {"input": spec.input, "out": spec.out, "policy": spec.policy, what: name}
    if what == "out" and name.startswith(("/etc", "../")):
        # A file that is somebody else's: it is no output of a job, and is not touched.
        target = tmp_path / "passwd"
        target.write_text("root:x:0:0\n")
        values["out"] = str(target)
    with pytest.raises(JobError):
        Job.open(JobSpec(**values)).close()
    assert [one for one in sorted(os.listdir(tmp_path)) if one not in before] in ([], ["passwd"])
    if (tmp_path / "passwd").exists():
        assert (tmp_path / "passwd").read_text() == "root:x:0:0\n"


def test_keys_of_rows_are_only_keys(tmp_path: Path) -> None:
    """Ids that look like paths, line ends or commands stand in the output as they are, once, on a line of their own,
    and make no file."""
    keys = [key for key in corpora.ids() if key]
    spec = write_job(tmp_path, *[batch_line(key, "any") for key in keys])
    before = set(os.listdir(tmp_path))
    run_virtual(run_job, spec, Provider(any=[answer('{"n": 1}')]))
    written = Path(spec.out).read_bytes()
    assert [json.loads(line)["custom_id"] for line in written.splitlines()] == keys
    assert len(written.decode().splitlines()) == len(keys)
    made = set(os.listdir(tmp_path)) - before
    assert all(name.startswith((Path(spec.out).name, ".")) for name in made), made


@pytest.mark.parametrize("line", corpora.jobs_lines(), ids=lambda line: line[:24])
def test_lines_that_are_no_rows(line: str, tmp_path: Path) -> None:
    """Each is a problem with its line, or a row; never an exception."""
    file = tmp_path / "in.jsonl"
    file.write_text(line + "\n")
    with file.open("rb") as opened:
        found = [parse(one, "in.jsonl") for one in lines(opened) if not one.blank]
    assert all(isinstance(one, Row) or "in.jsonl:1" in str(one) for one in found)


def test_a_guard_of_ones_own_cannot_leak_by_raising() -> None:
    """What a guard raises is a typed trip with the guard's name; the call's error has no foreign cause."""
    from streamguard import api, guard
    from streamguard.policy.model import Policy

    @guard(reason="content.careless", every="delta")
    def careless(view: Any) -> None:
        raise RuntimeError("boom")

    async def main() -> BaseException:
        with pytest.raises(StreamguardError) as caught:
            await api.run(script(answer("hello")), policy=Policy(guards=(careless,)))
        return caught.value

    error = run_virtual(main)
    assert getattr(error, "reason", None) == "guard.failed"
