"""The pages as readers meet them: short, a task first, generated ones as the code is, no link that leads nowhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools import glossary, picture, reference, site, words

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "reference")
"""Pages written by hand."""
MOST = 150
"""Lines of a page. Nobody reads to the end of a longer one."""
LONGER = {"architecture.md"}
"""The map of the code: its walks are one list each."""
TASKS = re.compile(
    r"(Build|Come|End|Find|Get|Guard|Judge|Hand|Keep|Know|Let|Generate|Look|Measure|Pick|Plan|Point|Put|Read|Run|Say|See|Send|Set|Show|Start|Try|Use|Write)\b"
)
"""How a page begins: with what its reader wants to do."""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_short_and_begins_with_a_task(page: Path) -> None:
    """A title, then a sentence that begins with the reader's verb; at most 150 lines."""
    text = page.read_text()
    assert text.startswith("# ")
    assert TASKS.match(site.first_sentence(text)), site.first_sentence(text)
    assert page.name in LONGER or text.count("\n") <= MOST


def test_the_readme_is_short() -> None:
    """What a visitor reads: at most 120 lines."""
    assert (ROOT / "README.md").read_text().count("\n") <= 120


def test_the_reference_says_what_the_code_says() -> None:
    """`make docs` writes these pages: keys of the schemas, options of the commands, names of Python, faults."""
    # In a process of its own: what other tests leave to the garbage collector can disturb the parser (Python 3.11).
    code = "import json; from tools import reference; print(json.dumps(reference.pages()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for name, text in json.loads(done.stdout).items():
        assert (reference.FOLDER / name).read_text() == text, f"{name}: run `make docs`"


def test_the_picture_is_a_real_run() -> None:
    """`make docs` draws it; virtual time makes it the same everywhere."""
    assert picture.FILE.read_text() == picture.drawn()


def anchors(text: str) -> set[str]:
    """Where links into a page may lead: its headings, as renderers name them, and its own anchors."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize(
    "page",
    [*WRITTEN, *(DOCS / "reference").glob("*.md"), *(ROOT / name for name in ("README.md", *site.ROOT_PAGES))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_no_link_leads_nowhere(page: Path) -> None:
    """Every relative link names a file that exists, and an anchor that its target has."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            found = (page.parent / file).resolve() if file else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found.read_text()), target


def test_each_page_has_a_place_in_the_navigation() -> None:
    """No page is left out of the site, and none is named twice."""
    named = [file for _, _, file in site.listed(site.project()["nav"])]
    assert len(named) == len(set(named))
    assert set(named) == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | set(site.ROOT_PAGES)


def test_the_glossary_has_its_words_and_they_become_links() -> None:
    """Twelve words, each with an anchor. On the site a word is a link where it first stands in prose, and only there."""
    assert list(glossary.FORMS) == re.findall(r'<a id="(\w+)">', (DOCS / "glossary.md").read_text())
    assert len(glossary.FORMS) == 12
    shown = glossary.linked(
        "# Dead\n\nA `dead` text. It is dead, and stays dead. [A trip](x.md) trips.\n", "glossary.md"
    )
    assert shown == (
        "# Dead\n\nA `dead` text. It is [dead](glossary.md#dead), and stays dead. [A trip](x.md) [trips](glossary.md#trip).\n"
    )


def test_the_site_builds_without_a_warning() -> None:
    """Strict: a page or an anchor that does not exist fails. Each page has its Markdown twin, listed in llms.txt."""
    pytest.importorskip("zensical", reason="the extra docs is not installed: make site")
    done = subprocess.run([sys.executable, "-m", "tools.site"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    listed = re.findall(r"\]\(([^)]*index\.md)\)", (site.SITE / "llms.txt").read_text())
    assert len(listed) == len(list(site.listed(site.project()["nav"])))
    assert [twin for twin in listed if "# " not in (site.SITE / twin).read_text()] == []


def test_changelog_fragments_are_for_users() -> None:
    """Each has a kind that a release knows, and is told in a section of its own."""
    kinds = [
        kind["directory"] for kind in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
    ]
    fragments = [one for one in (ROOT / "changelog.d").iterdir() if one.name != "README.md"]
    assert [one.name for one in fragments if not re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(kinds)})\.md", one.name)] == []
    assert [one.name for one in fragments if list(words.found(one.read_text()))] == []
    pytest.importorskip("towncrier", reason="the extra docs is not installed: make changelog")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "NEXT"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n- ") == len(fragments)
