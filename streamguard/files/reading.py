"""Read the small files that configure the package: bounded, regular files only.

The one place that opens policies, schemas and the policies that come with the package. It does not know what stands in
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path


def read_bytes(path: Path, limit: int) -> bytes | str:
    """Read a regular file.

    :param limit: bytes; one more is read, so that the caller sees that a file is too large.
    :returns: the bytes, or one sentence that says why the file cannot be read.
    """
    try:
        if not path.is_file():  # also keeps away from devices and pipes
            return "no such file" if not path.exists() else "not a file"
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as mistake:
        return f"cannot be read: {mistake.strerror or mistake}"
    except ValueError:  # a NUL byte in the name
        return "no file can have such a name"


def identity(path: Path) -> str:
    """Return the file's real path: two names of one file have one identity."""
    return os.path.realpath(path)


def shipped_policies() -> dict[str, resources.abc.Traversable]:
    """Return the policies that come with this package, by name."""
    return {name: item for folder in _shipped_folders() for name, item in _policies_in(folder)}


def shipped_page(name: str) -> str:
    """Return the text of a page of the documentation that comes with this package.

    :param name: such as `reasons.md`.
    """
    package = resources.files("streamguard")
    page = package / "pages" / name
    if not page.is_file() and isinstance(package, Path):
        page = package.parent / "docs" / name
    return page.read_text("utf-8")


def _shipped_folders() -> Iterator[resources.abc.Traversable]:
    """In a wheel the folder is inside the package, in a checkout beside it."""
    package = resources.files("streamguard")
    if (package / "policies").is_dir():
        yield package / "policies"
    elif isinstance(package, Path) and (package.parent / "pyproject.toml").is_file():
        yield package.parent / "policies"  # not somebody else's folder beside an installed package


def _policies_in(folder: resources.abc.Traversable) -> Iterator[tuple[str, resources.abc.Traversable]]:
    if folder.is_dir():
        for item in sorted(folder.iterdir(), key=lambda item: item.name):
            if item.name.endswith(".yaml"):
                yield item.name.removesuffix(".yaml"), item
