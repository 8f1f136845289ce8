"""Everything that README and docs show: every Python, YAML, JSON and console block runs against the simulated provider.

The blocks of a page run in order, in an empty folder, with one namespace. What they need and the page does not show
stands in a comment that Markdown hides (`<!-- invisible-code-block: python`). A block that cannot run says why
(`<!-- skip: next "REASON" -->`).
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from ruamel.yaml import YAML
from sybil.document import Document
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser

from streamguard.demo.provider import Order, provider

ROOT = Path(__file__).parent.parent
PAGES = [str(page.relative_to(ROOT)) for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
RUN = ("python", "yaml", "json", "console")
"""Languages that are run. The others are looked at by people (text), or tested where they are used (js, jsx, ts)."""
OTHERS = ("text", "jinja", "js", "jsx", "ts")
BIN = Path(sys.executable).parent
SKIP = re.compile(r'<!-- skip: next "([^"\n]+)" -->\n\n?\Z')


def blocks(page: str) -> list[Example]:
    """The blocks of a page that are run, hidden ones included, in order."""
    parsers = [CodeBlockParser(language, lambda example: None) for language in RUN]
    return list(Document.parse(str(ROOT / page), *parsers))


def reason_to_skip(example: Example) -> str | None:
    """Why a block is not run, as the page says."""
    found = SKIP.search(example.document.text[: example.region.start])
    return None if found is None else found[1]


def language(example: Example) -> str:
    """What a block is written in."""
    return str(example.region.lexemes["arguments"])


class Folder:
    """Where a page's blocks run: an empty folder, the simulated provider, and what runs beside them."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self.ports: dict[str, str] = {}
        self.beside: list[subprocess.Popen[str]] = []
        self.loop = asyncio.Runner()
        self.clients: list[anthropic.AsyncAnthropic] = []
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "COV_"))},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none-needed",
            "COLUMNS": "120",
        }

    def close(self) -> None:
        """End what runs beside, and close the clients that the page made."""

        async def closed() -> None:
            for client in self.clients:
                await client.close()

        self.loop.run(closed())
        for one in self.beside:
            one.terminate()
            one.wait(10)
            if one.stdout is not None:
                one.stdout.close()
        self.loop.close()

    def placed(self, text: str) -> str:
        """The text with ports that are free here."""

        def port(match: re.Match[str]) -> str:
            if match[0] not in self.ports:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    self.ports[match[0]] = str(free.getsockname()[1])
            return self.ports[match[0]]

        return re.sub(r"\b8(?:765|787|788)\b", port, text)

    def python(self, example: Example) -> None:
        """Run Python, with `await` at the top as in a notebook."""
        name = f"{example.path}:{example.line}"
        source = "\n" * (example.line + example.parsed.line_offset) + self.placed(example.parsed)
        code = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self.loop.run(eval(code, example.namespace))
        else:
            exec(code, example.namespace)

    def yaml(self, example: Example) -> None:
        """Check a policy, a job or a proxy's configuration, whole or a section of it."""
        text = example.parsed
        keys = YAML(typ="safe").load(text)
        whole = text if "version" in keys else f"version: 1\n{text}"
        kind = "proxy.yaml" if "listen" in keys else "job.yaml" if "input" in keys else "policy.yaml"
        file = self.path / f"shown-{kind}"
        file.write_text(whole)
        done = self._run(f"streamguard check {file.name}")
        assert done.returncode == 0, done.stdout

    def json(self, example: Example) -> None:
        """Read JSON."""
        json.loads(example.parsed)

    def console(self, example: Example) -> None:
        """Run each command, and find what the page shows of its output, in order; `…` stands for anything."""
        for command, shown in commands(example.parsed):
            if command.startswith(("pip install", "python3 -m venv", ".venv/bin/", "make ")):
                continue  # see test_the_install_lines
            if command.endswith("&") or command.startswith("streamguard proxy"):
                said = self._start(self.placed(command.removesuffix("&")))
            else:
                done = self._run(self.placed(command))
                said = done.stdout
                assert shown or done.returncode == 0, f"{command}: {done.returncode}: {said}"
            for line in shown:
                pattern = ".*".join(re.escape(part.strip()) for part in self.placed(line).split("…"))
                found = re.search(re.sub(r"(\\ )+", r"\\s+", pattern), said)
                assert found is not None, f"{command}: {line!r} is not in\n{said}"
                said = said[found.end() :]

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.variables[name] = value
            return subprocess.CompletedProcess(command, 0, "")
        if command.startswith("cd "):
            self.path = self.path / command.removeprefix("cd ")
            return subprocess.CompletedProcess(command, 0, "")
        return subprocess.run(
            command, cwd=self.path, env=self.variables, shell=True, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _start(self, command: str) -> str:
        """Run a server beside; what it says first."""
        if "demo --serve" in command:
            command += " --speed 100 --bad-answers 0"
        command = command.replace("https://api.anthropic.com", self.url)
        one = subprocess.Popen(
            f"exec {command}", cwd=self.path, env=self.variables, shell=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.beside.append(one)
        assert one.stdout is not None
        first = one.stdout.readline()
        return first.replace(self.url, "https://api.anthropic.com")


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command after a `$`, its continued lines joined, and the lines of output below it."""
    found: list[tuple[str, list[str]]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1].rstrip() + " " + next(lines).strip()
            found.append((re.sub(r"\s+#.*", "", command).strip(), []))
        elif line.strip():
            assert found, f"output without a command: {line!r}"
            found[-1][1].append(line)
    yield from found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The simulated provider, which makes no mistakes here."""
    with provider(Order(bad_answers=0, speed=200)).in_thread() as server:
        yield server.url


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_everything_that_a_page_shows_runs(page: str, url: str, tmp_path, monkeypatch) -> None:
    """Every block of a page, in order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    folder = Folder(tmp_path, url)
    make = anthropic.AsyncAnthropic.__init__

    def made(client: anthropic.AsyncAnthropic, **options: Any) -> None:
        folder.clients.append(client)
        make(client, **options)

    monkeypatch.setattr(anthropic.AsyncAnthropic, "__init__", made)
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, folder.variables[name])
    try:
        for example in blocks(page):
            if reason_to_skip(example) is None:
                try:
                    getattr(folder, language(example))(example)
                except Exception as error:
                    pytest.fail(f"{page}:{example.line}: {type(error).__name__}: {error}")
    finally:
        folder.close()


def test_every_block_says_what_it_is() -> None:
    """No block without a language, and none of a language that nobody runs or has a reason not to run."""
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {*RUN, *OTHERS}, page
        assert set(fences[1::2]) <= {""}, page


def test_what_is_not_run_has_a_reason() -> None:
    """How many blocks are shown, how many are run, and why the others are not."""
    shown = [example for page in PAGES for example in blocks(page) if not hidden(example)]
    skipped = {
        f"{Path(one.path).name}:{language(one)}": reason for one in shown if (reason := reason_to_skip(one)) is not None
    }
    assert len(shown) >= 45
    pages = [
        "demo.md:console",
        "migrate-jobs.md:python",
        "migrate.md:python",
        "models.md:yaml",
        "relay.md:python",
        "view.md:console",
    ]
    assert sorted(skipped) == pages
    marks = sum((ROOT / page).read_text().count("<!-- skip:") for page in PAGES)
    assert marks == sum(reason_to_skip(one) is not None for one in shown)


def hidden(example: Example) -> bool:
    """Whether Markdown hides a block."""
    return example.document.text.startswith("<!--", example.region.start)


def test_the_install_lines() -> None:
    """Extras that pages name exist; the lines for a checkout install what `make` does; its targets exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        text = (ROOT / page).read_text()
        for extras in re.findall(rf"{project['name']}\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), page
        for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)
        for line in re.findall(r"pip install (-c constraints.txt -e \S+)", text):
            assert line in makefile


def module(page: str) -> str:
    """The Python of a page as one module for type checkers: in an async function, since pages use `await` anywhere."""
    lines = ["from __future__ import annotations", "", "", "async def page() -> None:"]
    for example in blocks(page):
        if language(example) == "python" and reason_to_skip(example) is None:
            lines += ["", f"    # {page}:{example.line}", textwrap.indent(example.parsed.rstrip(), "    ")]
    return "\n".join(lines) + "\n"


@pytest.fixture
def modules(tmp_path: Path) -> list[str]:
    """A module for each page that shows Python."""
    paths = []
    for page in PAGES:
        if (text := module(page)).count("\n") > 5:
            path = tmp_path / f"page_{Path(page).stem.lower()}.py"
            path.write_text(text)
            paths.append(str(path))
    return paths


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "checker",
    [
        ["mypy", "--config-file", "TMP/mypy.ini", "--cache-dir", ".mypy_cache/users", "--no-error-summary"],
        ["pyright", "--pythonpath", sys.executable],
    ],
    ids=["mypy", "pyright"],
)
def test_type_checkers_find_nothing_in_what_is_shown(tmp_path: Path, modules: list[str], checker: list[str]) -> None:
    """mypy in strict mode without a plugin, and pyright, over the Python of every page."""
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    program = BIN / checker[0]
    if not program.exists():
        pytest.skip(f"{checker[0]} is not installed")
    done = subprocess.run(
        [str(program), *(one.replace("TMP", str(tmp_path)) for one in checker[1:]), *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if checker[0] == "pyright" and "error" in done.stdout + done.stderr and "nodeenv" in done.stderr:
        pytest.skip("pyright needs Node.js, which could not be had")
    assert done.returncode == 0, done.stdout + done.stderr
