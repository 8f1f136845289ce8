"""Job files: what they say, where their mistakes stand, and the format as data."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest

from streamguard.errors import JobError
from streamguard.files.yaml import load
from streamguard.jobs.jobfile import JobBudget, JobFile, is_job, job_schema, parse_job, read_job, schema_text
from tests.data import ROOT

FULL = """
# yaml-language-server: $schema=job.schema.json
version: 1
name: invoices-nightly
input: rows/in.csv
output: ../out/results.jsonl
template: invoice.j2
schema: invoice.schema.json
policy: streamguard:extraction
model: claude-haiku-4-5
max_tokens: 800
budget: "25.00"
concurrency: 16
base_url: http://127.0.0.1:8080
retry_failed: false
max_row_failures: 5
fail_on: 1%
drain: 30
partials: keep
"""


def test_a_whole_file(tmp_path) -> None:
    """Paths are relative to the file, shipped policies are not paths, money is exact."""
    (tmp_path / "job.yaml").write_text(FULL)
    job = read_job(tmp_path / "job.yaml").job
    assert (job.input, job.output) == (str(tmp_path / "rows/in.csv"), str(tmp_path.parent / "out/results.jsonl"))
    assert (job.template, job.schema_) == (str(tmp_path / "invoice.j2"), str(tmp_path / "invoice.schema.json"))
    assert job.policy == "streamguard:extraction"
    assert job.budgets == (JobBudget(cost_usd=Decimal("25.00")),)
    assert (job.fail_on, job.drain, job.partials, job.retry_failed, job.max_row_failures) == (
        "1%",
        30.0,
        "keep",
        False,
        5,
    )


def test_a_file_says_the_least(tmp_path) -> None:
    """Three lines are a job."""
    job = parse_job("input: '-'\noutput: o\npolicy: p.yaml", folder=Path("/x"))
    assert job == JobFile(input="-", output="/x/o", policy="/x/p.yaml")
    assert job.budgets == ()


def test_a_budget_may_be_a_policys() -> None:
    """With all that a policy's budget can say."""
    text = 'input: i\noutput: o\npolicy: p\nbudget: {cost_usd: "3", window: day, ledger: "sqlite:b.db"}'
    assert parse_job(text).budgets == (JobBudget(cost_usd=Decimal(3), window="day", ledger="sqlite:b.db"),)


NEEDED = "input: i\noutput: o\npolicy: p\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input: 3\n", ['1:1: the key "output" is missing', '1:1: the key "policy" is missing', '1:8: /input: must be text, got 3; write "3" in quotes']),
        (NEEDED + "concurency: 3", ['4:1: /concurency: unknown key; did you mean "concurrency"?']),
        (NEEDED + "concurrency: 0", ["4:14: /concurrency: must be at least 1, got 0"]),
        (NEEDED + "concurrency: 1001", ["4:14: /concurrency: must be at most 1000, got 1001"]),
        (NEEDED + "budget: 25", ['4:9: /budget: must be quoted, so that no digit is lost: "25"']),
        (NEEDED + 'budget: {cost: "1"}', ['4:10: /budget/cost: unknown key; did you mean "cost_usd"?']),
        (NEEDED + "budget: {tokens: 5, per: call}", ["4:9: /budget: per: call is for a policy; what a job may spend is shared by its rows"]),
        (NEEDED + "fail_on: half", ['4:10: /fail_on: must be a number of rows from 1, or a share of them such as "1%", not \'half\'']),
        (NEEDED + "fail_on: 0", ["4:10: /fail_on: must be at least 1, got 0"]),
        (NEEDED + "fail_on: 0%", ['4:10: /fail_on: must be a number of rows from 1, or a share of them such as "1%", not \'0%\'']),
        (NEEDED + "drain: 10s", ["4:8: /drain: must be a number, got the text \"10s\"; times are in seconds, without a unit: write 10"]),
        (NEEDED + "base_url: http://me:secret@host", ["4:11: /base_url: must match ^https?://[^\\s/@?]+[^\\s@?]*$, got the text \"http://me:secret@host\""]),
        (NEEDED + "version: 2", ["4:10: /version: must be 1, got 2"]),
        ('input: "a\\0"\noutput: o\npolicy: p', ["1:8: /input: no file can have such a name"]),
        ("- 1", ["1:1: a list; the top of the file has to be a mapping, lines of `key: value`"]),
        ("input: [", ["1:9: not YAML"]),
    ],
)  # fmt: skip
def test_every_mistake_has_its_place(text: str, said) -> None:
    """`file:line:column: /pointer: what`, all at once."""
    with pytest.raises(JobError) as caught:
        parse_job(text, "job.yaml")
    found = [str(problem) for problem in caught.value.problems]
    assert [one[: len(f"job.yaml:{end}")] for one, end in zip(found, said, strict=True)] == [
        f"job.yaml:{one}" for one in said
    ]


@pytest.mark.parametrize(("make", "said"), [(lambda path: None, "no such file"), (Path.mkdir, "not a file")])
def test_files_that_cannot_be_read(tmp_path, make, said: str) -> None:
    """With the file's name."""
    make(tmp_path / "job.yaml")
    with pytest.raises(JobError) as caught:
        read_job(tmp_path / "job.yaml")
    assert str(caught.value) == f"{tmp_path / 'job.yaml'}: {said}"


def test_jobs_are_told_from_policies(tmp_path) -> None:
    """By what only a job says."""
    (tmp_path / "job.yaml").write_text(NEEDED)
    (tmp_path / "policy.yaml").write_text("version: 1\ntimeouts: {total: 3}\n")
    (tmp_path / "broken.yaml").write_text("[")
    assert [is_job(tmp_path / name) for name in ("job.yaml", "policy.yaml", "broken.yaml", "none.yaml")] == [
        True,
        False,
        False,
        False,
    ]


AGAIN = (
    "streamguard/job.schema.json is not what the model says; write it anew: python -c 'from streamguard.jobs.jobfile "
    'import schema_text; print(schema_text(), end="")\' > streamguard/job.schema.json'
)


def test_the_shipped_schema_is_the_models() -> None:
    """The file in the package is what the model says today, and describes every key."""
    assert (ROOT / "streamguard" / "job.schema.json").read_text(encoding="utf-8") == schema_text(), AGAIN
    schema = job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    assert [name for name in properties if not properties[name].get("description")] == ["version", "max_tokens"]


@pytest.mark.parametrize(
    ("more", "fine"),
    [
        ("", True),
        ('budget: "3"', True),
        ('budget: {cost_usd: "3"}', True),
        ("fail_on: 1%", True),
        ("budget: 3", False),
        ("nonsense: 1", False),
        ("concurrency: 0", False),
        ("partials: maybe", False),
    ],
)
def test_editors_and_the_reader_agree(more: str, fine: bool) -> None:
    """What is fine here is fine by the schema, and mistakes of shape are mistakes there."""
    data = load(NEEDED + more).data
    assert jsonschema.Draft202012Validator(job_schema()).is_valid(data) == fine
    try:
        parse_job(NEEDED + more)
    except JobError:
        assert not fine
    else:
        assert fine
