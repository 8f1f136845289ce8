"""The command line: what each command says of good and bad input, and its exit codes. Nothing is sent here."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from streamguard.adapters.anthropic.environment import checked_url, is_loopback, make_client
from streamguard.cli import main
from streamguard.cli.commands import run as run_command
from streamguard.cli.commands.exits import guarded
from streamguard.cli.commands.run import threshold
from streamguard.errors import JobError
from streamguard.jobs.amount import Amount
from streamguard.jobs.opening import TOTAL
from streamguard.terminal import printable

POLICY = "version: 1\ntimeouts: {total: 9}\n"
ROW = '{"custom_id": "a", "params": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}}\n'


@pytest.fixture
def sg(tmp_path, monkeypatch, capsys):
    """Runs the command line in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **files: str) -> tuple[int, str, str]:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        with pytest.raises(SystemExit) as caught:
            main.main(list(arguments))
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


RUN = ("run", "in.jsonl", "--policy", "p.yaml", "--out", "out.jsonl")

FOREIGN = (
    "out.jsonl:1: not a result line of a job, so nothing is added to this file; name another --out "
    "(JSON is malformed: invalid character (byte 0))"
)
BAD_JOBS = [
    pytest.param(
        {"in_jsonl": "{,}\n"}, (), ["in.jsonl:1:2: not JSON: expecting property name enclosed in double quotes"]
    ),
    pytest.param({"in_jsonl": ROW + "\n" + ROW}, (), ['in.jsonl:3: the id "a" is already on line 1']),
    pytest.param(
        {"in_jsonl": '{"x": 1}\n'},
        (),
        ["in.jsonl:1: data, no request: name the --template that makes requests of rows, or send batch lines (params)"],
    ),
    pytest.param(
        {"in_jsonl": '{"id": 1}\n', "t_j2": "---\nmodel: m\nmax_tokens: 1\n---\nHi {{ name }}"},
        ("--template", "t.j2"),
        ["in.jsonl:1: t.j2:5: name is undefined: the row has no such field"],
    ),
    pytest.param(
        {"in_jsonl": ROW.replace('"model": "m", ', "")},
        (),
        ["in.jsonl:1: /params/model: no model: name it here, or for all rows with --model"],
    ),
    pytest.param(
        {"p_yaml": "version: 1\ntimeout: 3\n"}, (), ['p.yaml:2:1: /timeout: unknown key; did you mean "timeouts"?']
    ),
    pytest.param(
        {"p_yaml": "version: 1\n"},
        (),
        ["p.yaml: /timeouts/total: " + TOTAL],
    ),
    pytest.param({}, ("--policy", "none.yaml"), ["none.yaml: no such file"]),
    pytest.param({}, ("--out", "no/out.jsonl"), ["no/out.jsonl: cannot be written: there is no folder no"]),
    pytest.param({}, ("--out", "in.jsonl"), ["in.jsonl: is the input; results go to a file of their own"]),
    pytest.param({}, ("--schema", "none.json"), ["none.json: no such file"]),
    pytest.param({"s_json": '{"enum": []}'}, ("--schema", "s.json"), ["s.json: no document can satisfy this schema"]),
    pytest.param(
        {"out_jsonl": "my notes\n"},
        (),
        [FOREIGN],
    ),
    pytest.param(
        {},
        ("--fail-on", "some"),
        ["--fail-on must be a number of records from 1 (10) or a share of them (1%), got 'some'"],
    ),
    pytest.param({}, ("--concurrency", "0"), ["--concurrency must be auto, or from 1 to 1000, got 0"]),
    pytest.param(
        {},
        ("--base-url", "api.example.com"),
        ["--base-url begins with neither http:// nor https://: it must be like https://api.example.com"],
    ),
    pytest.param(
        {},
        ("--base-url", "https://me:secret@api.example.com"),
        ["--base-url must have no user, password or query: they would end up in logs"],
    ),
    pytest.param({}, (), ["no credentials: set ANTHROPIC_API_KEY (a --base-url on this machine can do without)"]),
]


@pytest.mark.parametrize(("files", "arguments", "said"), BAD_JOBS)
def test_a_bad_job_exits_with_2_and_says_why(sg, tmp_path, files, arguments, said) -> None:
    """Every mistake has its file, line and column where it has them; there is no traceback, and no output file."""
    files = {"in_jsonl": ROW, "p_yaml": POLICY, **files}
    code, out, err = sg(*RUN, *arguments, **files)
    assert (code, out) == (2, "")
    assert err.splitlines() == said
    if "out_jsonl" in files:
        assert (tmp_path / "out.jsonl").read_text() == files["out_jsonl"]
    else:
        assert not (tmp_path / "out.jsonl.journal").exists()
        assert not (tmp_path / "out.jsonl").exists()


USAGE = [
    ((), 2, "Usage: streamguard"),
    (("run",), 2, "Usage: streamguard run"),
    (("rum",), 2, "No such command 'rum'"),
    (("run", "in.jsonl", "-p", "p", "-o", "o", "--nope"), 2, "No such option: --nope"),
    (("run", "in.jsonl", "-p", "p", "-o", "o", "--max-tokens", "0"), 2, "--max-tokens"),
    (("check",), 2, "Usage: streamguard check"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), USAGE)
def test_usage(sg, arguments, code, said) -> None:
    """Mistakes of usage are 2, as everywhere."""
    found, out, err = sg(*arguments)
    assert (found, said in out + err) == (code, True)


LATE = (
    "  judged only when its value ends: /properties/x/pattern "
    '(it does not begin with "^", so that a match may still come)'
)


def test_check_looks_at_every_file(sg) -> None:
    """Good files are fine, bad ones do not hide each other, and one bad file makes it 2."""
    good = {
        "p_yaml": POLICY,
        "s_json": '{"properties": {"x": {"pattern": "b$"}}}',
        "t_j2": "Hi {{ a }}",
        "in_jsonl": '{"id": 1, "a": 2}\n',
    }
    names = ("p.yaml", "s.json", "t.j2", "in.jsonl")
    assert sg("check", *names, "--template", "t.j2", "--model", "m", "--max-tokens", "5", **good) == (
        0,
        f"p.yaml: fine\ns.json: fine\n{LATE}\nt.j2: fine\nin.jsonl: fine, 1 rows (m 1)\n",
        "",
    )
    bad = {"p_yaml": "version: 2\n", "s_json": "[]", "t_j2": "{{", "in_jsonl": '{"id": 1}\n{"id": 1}\n'}
    code, out, err = sg("check", *names, "notes.txt", **bad)
    assert (code, out) == (2, "")
    assert [line.split(": ")[0] for line in err.splitlines()] == [
        "p.yaml:1:10",
        "s.json:1:1",
        "t.j2:1",
        "in.jsonl:1",
        "in.jsonl:2",
        "notes.txt",
    ]


def test_check_explains_a_policy(sg) -> None:
    """Every knob with its value and where it is from, and what follows from each reason."""
    policy = POLICY + "caps: {cost_usd: '0.04'}\nretry: {attempts: 2, rules: [{when: [json.*], wait: none}]}\n"
    code, out, _ = sg("check", "p.yaml", "--explain", p_yaml=policy)
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["timeouts.total", "9", "s"] in rows
    assert ["caps.cost_usd", "$0.04"] in rows
    assert ["timeouts.connect", "10", "s", "(default)"] in rows
    assert ["timeout.total", "give", "up", "never", "retried"] in rows


def test_shipped_policies_pass(sg) -> None:
    """By the name that `extends` and `--policy` take."""
    assert sg("check", "streamguard:extraction") == (0, "streamguard:extraction: fine\n", "")


def test_schema_is_the_policys(sg) -> None:
    """What editors read."""
    from streamguard.policy.json_schema import policy_schema

    code, out, err = sg("schema")
    assert (code, json.loads(out), err) == (0, policy_schema(), "")


def test_the_schema_of_job_files(sg) -> None:
    """`streamguard schema --job` prints it."""
    from streamguard.jobs.jobfile import job_schema

    code, out, err = sg("schema", "--job")
    assert (code, json.loads(out), err) == (0, job_schema(), "")


def test_a_job_file_is_checked_with_all_that_it_names(sg, tmp_path) -> None:
    """Rows, template, policy: as a run would, but nothing is created; what is wrong is said with its place."""
    (tmp_path / "job.yaml").write_text("input: in.jsonl\noutput: out.jsonl\npolicy: streamguard:extraction\n")
    (tmp_path / "in.jsonl").write_text(
        json.dumps(
            {
                "custom_id": "a",
                "params": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
            }
        )
        + "\n"
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    assert sg("check", "job.yaml") == (0, "job.yaml: fine, 1 rows, 1 to ask\n", "")
    (tmp_path / "in.jsonl").write_text("{}\n[\n")
    code, out, err = sg("check", "job.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines()[1].startswith("in.jsonl:2:2: not JSON")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_version(sg) -> None:
    """One line."""
    code, out, _ = sg("--version")
    assert (code, out.startswith("streamguard"), out.count("\n")) == (0, True, 1)


@pytest.mark.parametrize("place", [0, 1, 6])
def test_unexpected_errors_are_one_line(sg, monkeypatch, place) -> None:
    """Exit code 1, what it was, and how to see more; `--debug`, anywhere, is how."""

    def broken(*args):
        raise ZeroDivisionError("a bug \x1b[2J")

    monkeypatch.setattr(run_command, "main", broken)
    assert sg(*RUN) == (
        1,
        "",
        "streamguard: unexpected ZeroDivisionError: a bug \\e[2J (streamguard --debug … shows where)\n",
    )
    with pytest.raises(ZeroDivisionError):
        main.main([*RUN[:place], "--debug", *RUN[place:]])


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (ExceptionGroup("g", [JobError("x")]), 2), (OSError(28, "No space left"), 1)],
)
def test_how_a_command_ends(capsys, raised, code) -> None:
    """Interrupts, mistakes inside of task groups, and what the machine refuses."""

    def body() -> int:
        raise raised

    assert guarded(body, debug=False) == code
    assert "Traceback" not in capsys.readouterr().err


def test_mistakes_of_others_do_not_reach_the_terminal(sg) -> None:
    """Ids, names and values from files are spelled out, escape sequences and line ends included."""
    line = ROW.replace('"a"', '"\\u001b[31m\\n\\u202e"', 1)
    code, _, err = sg(*RUN, in_jsonl=line * 2, p_yaml=POLICY)
    assert (code, err.splitlines()) == (2, ['in.jsonl:2: the id "\\u001b[31m\\n\\u202e" is already on line 1'])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 日本 😀", "plain ä 日本 😀"),
        ("\x1b[2J\x07\r\n\t\x00\x9b", "\\e[2J\\x07\\r\\n\\t\\x00\\x9b"),
        ("\u202e\u2028\u200b\ufeff\ud800", "\\u202e\\u2028\\u200b\\ufeff\\ud800"),
    ],
)
def test_what_may_be_shown(text: str, shown: str) -> None:
    """Letters of every script as they are, everything that moves, hides or turns spelled out."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "failed", "rows", "reached"),
    [
        (None, 0, 10, False),
        (None, 1, 10, True),
        ("3", 2, 10, False),
        ("3", 3, 10, True),
        ("10%", 9, 100, False),
        ("10%", 10, 100, True),
        ("0.5%", 1, 200, True),
        ("100%", 99, 100, False),
        ("1%", 0, 0, False),
    ],
)
def test_how_many_failures_are_too_many(text, failed, rows, reached) -> None:
    """A number or a share; from there on the exit code is 3."""
    assert threshold(text).reached(failed, rows) is reached


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "101%", "-1", "1.5", "nan%", "ten"])
def test_thresholds_that_are_none(text: str) -> None:
    """Neither a number of records nor a share."""
    with pytest.raises(JobError, match="--fail-on must be"):
        threshold(text)
    assert threshold("1%") == Amount(percent=1.0)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost", True),
        ("https://localhost.example.com", False),
        ("https://127.0.0.1.example.com", False),
        ("https://api.anthropic.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_only_this_machine_needs_no_key(url: str, loopback: bool) -> None:
    """By address, not by what a name begins with."""
    assert (checked_url(url), is_loopback(url)) == (url, loopback)


def test_a_client_never_retries_and_gets_a_key_only_where_there_is_one(sg, monkeypatch) -> None:
    """A placeholder on loopback; elsewhere what the environment has."""
    client = make_client("http://127.0.0.1:1")
    assert (client.max_retries, client.api_key) == (0, "none-needed-on-loopback")
    with pytest.raises(JobError, match="set ANTHROPIC_API_KEY"):
        make_client("https://example.com")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert [make_client(url).api_key for url in ("http://127.0.0.1:1", "https://example.com", None)] == ["k"] * 3


def test_a_reader_that_leaves_ends_a_command_quietly() -> None:
    """As in `streamguard schema | head -1`: no traceback, and the code of a broken pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=10), err) == (128 + 13, b"")


def test_help_is_quick_and_loads_little() -> None:
    """Under 300 ms on an idle machine; the SDK, rich and the policy's models are not imported."""
    code = (
        "import sys, streamguard.cli.main as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'anthropic', 'rich', 'pydantic', 'jinja2', 'anyio', 'asyncio'}\n"
        "print(*(heavy & set(sys.modules)), file=sys.stderr)"
    )
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True)
        times.append(time.perf_counter() - began)
        assert "extraction job" in done.stdout
        assert done.stderr.strip() == ""
    # Four times the promise: the machine that runs this may be busy.
    assert min(times) < 1.2
