"""A job before it starts: every mistake at once, nothing touched; and what is left to do."""

from __future__ import annotations

import io
import json
import os
import threading

import msgspec
import pytest

from streamguard.errors import JobError
from streamguard.jobs.input.input import Input
from streamguard.jobs.input.rows import Row
from streamguard.jobs.input.template import Template
from streamguard.jobs.job import Job
from streamguard.jobs.opening import JobSpec
from streamguard.jobs.problems import Problems
from tests.jobs.jobs import POLICY, batch_line, write_job

REPLACE = msgspec.structs.replace


def mistakes(spec: JobSpec, folder) -> list[str]:
    """What is wrong with a job, with file names as they are in its folder; the output was not touched."""
    before = os.listdir(folder)
    with pytest.raises(JobError) as caught:
        Job.open(spec)
    assert os.listdir(folder) == before
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def todo(job: Job) -> list[str]:
    """The rows that a job would ask, in order; the job is closed."""
    try:
        return [entry.custom_id for entry, _ in job.plan.todo()]
    finally:
        job.close()


def in_folder(folder, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_every_mistake_of_every_file_at_once(tmp_path) -> None:
    """Policy, schema, template, input and output are all looked at, and nothing is begun."""
    spec = write_job(tmp_path, {"id": 1}, policy="version: 1\ntimeouts: {conect: 3}\n")
    in_folder(tmp_path, in_jsonl='{"id": 1}\n{"id": 1}\n{"nope": 2}\n{,}\n', t_j2="{% x %}")
    spec = REPLACE(spec, template=str(tmp_path / "t.j2"), out=str(tmp_path / "no" / "out.jsonl"))
    assert mistakes(spec, tmp_path) == [
        'policy.yaml:2:12: /timeouts/conect: unknown key; did you mean "connect"?',
        "t.j2:1: not a template: Encountered unknown tag 'x'.",
        "no/out.jsonl: cannot be written: there is no folder no",
    ]
    spec = REPLACE(spec, template=None)
    assert mistakes(spec, tmp_path)[1:] == [
        "in.jsonl:1: data, no request: name the --template that makes requests of rows, or send batch lines (params)",
        'in.jsonl:2: the id "1" is already on line 1',
        "in.jsonl:4:2: not JSON: expecting property name enclosed in double quotes",
        "no/out.jsonl: cannot be written: there is no folder no",
    ]


def test_requests_are_checked_before_they_are_sent(tmp_path) -> None:
    """What is missing, what must not be there, and what the input's author must not choose."""
    good = batch_line("a")["params"]
    spec = write_job(
        tmp_path,
        {"custom_id": "a", "params": {}},
        {"custom_id": "b", "params": {**good, "stream": False, "extra_headers": {"x": "y"}, "timeout": 1}},
        {"custom_id": "c", "params": {**good, "model": "", "max_tokens": 0, "messages": "Hi"}},
        {"custom_id": "d", "params": {**good, "messages": [1, {}, {"role": "user"}]}},
        "e",
    )
    assert mistakes(spec, tmp_path) == [
        "in.jsonl:1: /params/model: no model: name it here, or for all rows with --model",
        "in.jsonl:1: /params/max_tokens: no max_tokens: give it here, or for all rows with --max-tokens",
        "in.jsonl:1: /params/messages: needs at least one message",
        "in.jsonl:2: /params/stream: must be left out: every request is sent as a stream",
        "in.jsonl:2: /params/extra_headers: is an argument of the SDK, no part of a request",
        "in.jsonl:2: /params/timeout: is an argument of the SDK, no part of a request",
        "in.jsonl:3: /params/model: must be a model's name, got ''",
        "in.jsonl:3: /params/max_tokens: must be a whole number of tokens from 1, got 0",
        "in.jsonl:3: /params/messages: must be a list of messages",
        "in.jsonl:4: /params/messages/0: must be an object with role and content",
        "in.jsonl:4: /params/messages/1: has no role",
        "in.jsonl:4: /params/messages/2: has no content (a text, or a list of blocks)",
    ]


def test_rows_that_the_template_does_not_fit_are_named(tmp_path) -> None:
    """Which variable, which row, which line of the template; once for a model that nobody named."""
    spec = write_job(tmp_path, {"id": 1, "text": "a"}, {"id": 2, "txt": "b"}, {"id": 3})
    in_folder(tmp_path, t_j2="Read:\n{{ text }}")
    spec = REPLACE(spec, template=str(tmp_path / "t.j2"), max_tokens=5)
    assert mistakes(spec, tmp_path) == [
        "t.j2: /model: no model: name it here, or for all rows with --model",
        'in.jsonl:2: t.j2:2: text is undefined: the row has no such field; did you mean "txt"?',
        "in.jsonl:3: t.j2:2: text is undefined: the row has no such field",
    ]


def test_fifty_mistakes_are_enough(tmp_path) -> None:
    """More are counted."""
    spec = write_job(tmp_path, *({"id": n // 2} for n in range(200)))
    found = mistakes(spec, tmp_path)
    assert (len(found), found[49:]) == (51, ['in.jsonl:98: the id "48" is already on line 97', "and 51 more"])


def test_equal_mistakes_are_one(tmp_path) -> None:
    """The first of them is shown, with the count of its like."""
    spec = write_job(tmp_path, *({"id": 1} for _ in range(51)))
    _, second = mistakes(spec, tmp_path)
    assert second == 'in.jsonl:2: the id "1" is already on line 1 (50 rows, first in line 2)'


NO_TOTAL = "a job needs a limit on the time of each call, waiting and retries included: set timeouts.total, in seconds"


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ("version: 1\n", "policy.yaml: /timeouts/total: "),
        ("version: 1\ntimeouts:\n  attempt: 5\n", "policy.yaml:2:1: /timeouts/total: "),
        ("extends: streamguard:extraction\ntimeouts:\n  total: null\n", "policy.yaml:3:3: /timeouts/total: "),
    ],
)
def test_a_job_needs_a_deadline_for_each_call(tmp_path, policy: str, place: str) -> None:
    """Without one a single row can hold a job for ever; file and knob are named."""
    assert mistakes(write_job(tmp_path, "a", policy=policy), tmp_path) == [place + NO_TOTAL]


@pytest.mark.parametrize("policy", [POLICY, "version: 1\ntimeouts: {total: 9}\n"])
def test_a_schema_of_the_jobs_own(tmp_path, policy: str) -> None:
    """`--schema` goes into the policy's json section, which is made if there is none."""
    spec = REPLACE(write_job(tmp_path, "a", policy=policy), schema=str(tmp_path / "s.json"))
    in_folder(tmp_path, s_json='{"type": "array"}')
    job = Job.open(spec)
    job.close()
    assert job.policy.json_document is not None
    assert job.policy.json_document.own_schema() == {"type": "array"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "s.json:1:2: not JSON: expecting property name enclosed in double quotes"),
        ('{"type": "objet"}', 's.json: /type: "objet" is not one of'),
        ('{"enum": []}', "s.json: no document can satisfy this schema"),
        (None, "s.json: no such file"),
    ],
)
def test_schemas_that_cannot_be_used(tmp_path, schema: str | None, said: str) -> None:
    """With the schema's own file and place."""
    spec = REPLACE(write_job(tmp_path, "a"), schema=str(tmp_path / "s.json"))
    if schema is not None:
        in_folder(tmp_path, s_json=schema)
    (found,) = mistakes(spec, tmp_path)
    assert found.startswith(said)


def test_schemas_of_requests_are_checked_row_by_row(tmp_path) -> None:
    """With `schema: request` a row without a schema, or with one that cannot be used, is a mistake of that row."""
    ok = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}
    bad = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "objet"}}}}
    policy = "version: 1\ntimeouts: {total: 9}\njson: {schema: request}\n"
    spec = write_job(tmp_path, batch_line("a", **ok), batch_line("b"), batch_line("c", **bad), policy=policy)
    found = mistakes(spec, tmp_path)
    assert [one.partition(", but")[0][:60] for one in found] == [
        "in.jsonl:2: /json/schema: schema: request",
        'in.jsonl:3: /type: "objet" is not one of object, array, stri',
    ]


def test_the_output_is_not_the_input(tmp_path) -> None:
    """By whatever name."""
    spec = write_job(tmp_path, "a")
    os.link(spec.input, spec.out)
    assert mistakes(spec, tmp_path) == ["out.jsonl: is the input; results go to a file of their own"]


def test_an_input_that_cannot_be_read(tmp_path) -> None:
    """Is one mistake, and the policy's are still shown."""
    spec = REPLACE(write_job(tmp_path, "a", policy="version: 2\n"), input=str(tmp_path / "none.jsonl"))
    assert mistakes(spec, tmp_path)[-1] == "none.jsonl: cannot be read: No such file or directory"
    assert len(mistakes(REPLACE(spec, input=str(tmp_path)), tmp_path)) == 2


def test_results_of_other_questions_are_not_kept(tmp_path) -> None:
    """If a row, its model or the schema changed since it succeeded, the job says so instead of mixing answers."""
    spec = write_job(tmp_path, "a", "b")

    def line(custom_id: str, fingerprint: str | None) -> str:
        own = {} if fingerprint is None else {"fingerprint": fingerprint}
        return json.dumps({"custom_id": custom_id, "result": {"type": "succeeded"}, "streamguard": own}) + "\n"

    job = Job.open(spec, dry=True)
    first = {entry.custom_id: entry.fingerprint for entry in job.plan.entries()}
    job.close()
    in_folder(tmp_path, out_jsonl=line("a", first["a"]) + line("b", None) + line("stranger", "x"))
    job = Job.open(spec)
    assert (job.kept, todo(job)) == (2, [])
    assert job.notices == [
        f"{spec.out}: 3 results that its journal did not have are kept",
        f"{spec.out}: 1 results of rows that are not in the input; they stay",
    ]
    said = (
        'out.jsonl: the result of "a" answers another request or schema than in.jsonl:1 and the policy now ask for; '
        "name another --out, or ask for all rows again with --fresh"
    )
    assert mistakes(REPLACE(spec, model="other"), tmp_path) == [said]
    (tmp_path / "policy.yaml").write_text(POLICY.replace("integer", "number"))
    assert mistakes(spec, tmp_path) == [said]
    job = Job.open(REPLACE(spec, fresh=True))
    assert (job.kept, todo(job)) == (0, ["a", "b"])
    assert job.notices == [f"{spec.out}: begun anew; the results so far are in {spec.out}.old"]
    assert (tmp_path / "out.jsonl.old").read_text().count("\n") == 3


def test_what_does_not_change_the_question_keeps_results(tmp_path) -> None:
    """Clocks, rules and caps may be changed between runs: that is what one does after failures."""
    spec = write_job(tmp_path, "a")
    prints = []
    for policy in (POLICY, POLICY.replace("total: 60", "total: 90, attempt: 3").replace("attempts: 2", "attempts: 5")):
        (tmp_path / "policy.yaml").write_text(policy)
        job = Job.open(spec)
        prints.append(([entry.fingerprint for entry in job.plan.entries()], job.question.digest))
        job.close()
    assert prints[0] == prints[1]


def test_pipes_and_standard_input_are_read_once(tmp_path, monkeypatch) -> None:
    """What cannot be read twice is copied first."""
    spec = write_job(tmp_path, "a", "b")
    raw = (tmp_path / "in.jsonl").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(raw,))
    writer.start()
    job = Job.open(REPLACE(spec, input=str(tmp_path / "pipe")))
    writer.join()
    assert [request.params["messages"][0]["content"] for request in job.requests()] == ["a", "b"]
    job.close()

    class Stdin:
        buffer = io.BytesIO(raw + b"{\n")

    monkeypatch.setattr("sys.stdin", Stdin())
    assert mistakes(REPLACE(spec, input="-"), tmp_path)[0].startswith("stdin:3:2: not JSON: ")


EMPTY = "empty, which is the same as leaving it out; for a section with its defaults write {}"


def test_what_is_worth_knowing_is_said_before_it_starts(tmp_path) -> None:
    """A policy's warnings, what a budget's promise rests on, and what was found in the output."""
    budget = "budgets: [{name: b, tokens: 9, mode: calibrated}]\ncaps:\n"
    spec = write_job(tmp_path, "a", policy="version: 1\ntimeouts: {total: 9}\n" + budget)
    in_folder(tmp_path, out_jsonl='{"custom_id":"a')
    job = Job.open(spec)
    job.close()
    assert [notice.replace(f"{tmp_path}/", "") for notice in job.notices] == [
        f"warning: policy.yaml:4:1: /caps: {EMPTY}",
        "budget 'b' is calibrated, hence soft: it reserves estimates and may be exceeded",
        "out.jsonl: a torn last line of 15 bytes was cut",
    ]


def test_an_empty_input_is_a_job_with_nothing_to_do(tmp_path) -> None:
    """A nightly job may have an empty night."""
    spec = write_job(tmp_path)
    job = Job.open(spec)
    assert (job.todo, job.rows, todo(job)) == (0, 0, [])


def test_the_second_pass_gives_what_the_first_one_checked() -> None:
    """Overrides win over the row and over the template; a BOM and blank lines do not shift offsets."""
    raw = b'\xef\xbb\xbf{"id": 1, "text": "a"}\n\n{"id": 2, "text": "b"}'
    template = Template("---\nmodel: m\nmax_tokens: 1\n---\n{{ text }}", "t.j2")
    rows, problems = Input(io.BytesIO(raw), "in", template=template, overrides={"max_tokens": 9}), Problems()
    rows.scan(problems)
    assert not problems
    turned = [(entry, 0) for entry in reversed(list(rows.plan.entries()))]
    assert [(request.entry.custom_id, request.params) for request in rows.requests(turned)] == [
        ("2", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "b"}]}),
        ("1", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}),
    ]
    assert rows.models == {"m": 2}
    rows.close()
    assert template.params(Row(custom_id="1", line=1, data={"text": "a"}))["max_tokens"] == 1
