"""Build the site: `python -m tools.site`. Strict: a link to a page or an anchor that does not exist fails.

`docs/` is copied to `build/docs`, with the pages of the root beside them, and words of the glossary become links. After
the build each page gets its Markdown twin (`start/index.md` beside `start/index.html`). `llms.txt` lists the twins for
programs, and `llms-full.txt` has all of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.glossary import linked

ROOT = Path(__file__).parent.parent
COPY = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
ROOT_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
LONG = ("reference/", "CHANGELOG.md")
"""Pages that `llms-full.txt` leaves out: tables to look something up in."""


def project() -> dict[str, Any]:
    """The site's configuration."""
    return dict(tomllib.loads((ROOT / "zensical.toml").read_text())["project"])


def copied() -> None:
    """Put all pages in one folder, with links that hold there."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT / "docs", COPY)
    for name in ROOT_PAGES:
        (COPY / name).write_text((ROOT / name).read_text().replace("](docs/", "]("))
    for page in COPY.rglob("*.md"):
        page.write_text(re.sub(rf"\]\(\.\./({'|'.join(ROOT_PAGES)})", r"](\1", page.read_text()))


def with_glossary() -> None:
    """Link the words of the glossary, in pages that people read from top to bottom."""
    for page in COPY.glob("*.md"):
        if page.name not in (*ROOT_PAGES, "glossary.md", "index.md"):
            page.write_text(linked(page.read_text(), "glossary.md"))


def listed(nav: list[dict[str, Any]], section: str = "") -> Iterator[tuple[str, str, str]]:
    """Each page of the navigation: its section, title and file."""
    for entry in nav:
        for title, value in entry.items():
            if isinstance(value, str):
                yield section, title, value
            else:
                yield from listed(value, title)


def address(file: str) -> str:
    """Where a page stands on the site, without what comes behind the last slash."""
    bare = file.removesuffix(".md").removesuffix("index")
    return bare if not bare or bare.endswith("/") else f"{bare}/"


def first_sentence(text: str) -> str:
    """What a page says it is for."""
    prose = next(part for part in text.split("\n\n") if not part.startswith(("#", "<!--")))
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.split(r"(?<=[.:])\s", " ".join(prose.split()))[0])


def texts_for_programs(texts: Mapping[str, str]) -> None:
    """The twins, `llms.txt` and `llms-full.txt`."""
    about = project()
    lines, everything, last = [f"# {about['site_name']}", "", f"> {about['site_description']}"], [], ""
    for section, title, file in listed(about["nav"]):
        text = texts[file]
        twin = SITE / address(file) / "index.md"
        twin.parent.mkdir(parents=True, exist_ok=True)
        twin.write_text(text)
        if section != last:
            lines += ["", f"## {section}", ""]
            last = section
        lines.append(f"- [{title}]({address(file)}index.md): {first_sentence(text)}")
        if not file.startswith(LONG):
            everything.append(text)
    (SITE / "llms.txt").write_text("\n".join(lines) + "\n")
    (SITE / "llms-full.txt").write_text("\n\n".join(everything))


def main() -> int:
    """Build; the exit code is the builder's."""
    copied()
    plain = {page: page.read_text() for page in COPY.rglob("*.md")}
    with_glossary()
    program = Path(sys.executable).with_name("zensical")
    done = subprocess.run([program, "build", "--strict", "--clean"], cwd=ROOT, check=False)
    if done.returncode == 0:
        texts_for_programs({str(page.relative_to(COPY)): text for page, text in plain.items()})
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
