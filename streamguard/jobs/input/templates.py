"""Read templates where Jinja2 is installed: it comes with an extra, and rows that are requests need none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.files.extras import needs

if TYPE_CHECKING:
    from streamguard.jobs.input.template import Template


def open_template(path: Path) -> Template:
    """Read the template in a file.

    :raises JobError: it cannot be read, or is no template.
    :raises ConfigError: Jinja2 is not installed.
    """
    with needs("a template", "cli"):
        from streamguard.jobs.input.template import read_template
    return read_template(path)


def make_template(text: str, file: str) -> Template:
    """Make a template of its text.

    :param file: what mistakes call it.
    :raises JobError: it is no template.
    :raises ConfigError: Jinja2 is not installed.
    """
    with needs("a template", "cli"):
        from streamguard.jobs.input.template import Template
    return Template(text, file)
