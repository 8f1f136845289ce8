"""Find test data: the project's own beside this file, and the suites of others where they were put."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

ELSEWHERE = {
    "json_test_suite.jsonl.xz": "nst/JSONTestSuite, folder test_parsing (MIT)",
    "json_schema_test_suite_2020_12.jsonl.xz": "json-schema-org/JSON-Schema-Test-Suite, draft2020-12 (MIT)",
    "oracle_suite_2020_12.jsonl.xz": "the suite of json-schema-org, with the first dead byte of each invalid instance",
    "api_recordings.zip": "answers of the real API that public projects keep as test cassettes (MIT, Apache-2.0)",
}
"""What is not ours to copy: by name, what it is and where it comes from."""


def folders() -> list[Path]:
    """Return the folders where test data may lie, the first one first: our own, `STREAMGUARD_DATA`, a sibling."""
    named = os.environ.get("STREAMGUARD_DATA")
    return [HERE, Path(named) if named else ROOT.parent / "shared" / "data"]


def find(*parts: str) -> Path | None:
    """Return a file or folder of the test data; `None` where there is none."""
    return next((found for base in folders() if (found := base.joinpath(*parts)).exists()), None)


def path(*parts: str) -> Path:
    """Return a file or folder of the test data; skip the calling test where there is none."""
    found = find(*parts)
    if found is None:
        what = ELSEWHERE.get(parts[0], "the project's own")
        pytest.skip(f"no {parts[-1]} here. It is {what}. Set STREAMGUARD_DATA to the folder that holds it")
    return found
