"""The format as data, for editors."""

from __future__ import annotations

import json

import jsonschema

from streamguard.policy.json_schema import policy_schema, schema_text
from tests.data import ROOT

AGAIN = (
    "streamguard/policy.schema.json is not what the models say; write it anew: "
    "python -c 'from streamguard.policy.json_schema import schema_text; print(schema_text(), end=\"\")' > streamguard/policy.schema.json"
)  # fmt: skip


def test_the_shipped_schema_is_the_models() -> None:
    """The file in the package is what the models say today."""
    shipped = (ROOT / "streamguard" / "policy.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == policy_schema(), AGAIN
    assert shipped == schema_text(), AGAIN


def test_it_is_a_schema() -> None:
    """It is valid by its own dialect, 2020-12, and every reference in it leads somewhere."""
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"])[:3] == ["version", "extends", "mode"]


def test_descriptions_are_the_docstrings() -> None:
    """Editors show what stands under each field in the code, without its line breaks."""
    clocks = policy_schema()["$defs"]["Timeouts"]["properties"]
    assert clocks["progress"]["description"] == "Between output deltas, whatever else arrives."
    undescribed = {
        name: [key for key, value in node["properties"].items() if "description" not in value]
        for name, node in policy_schema()["$defs"].items()
        if name in ("Timeouts", "Rule", "JsonDocument", "Completion")
    }
    assert undescribed == {
        "Timeouts": ["min_rate", "mode"],
        "Rule": [],
        "JsonDocument": ["mode"],
        "Completion": ["mode"],
    }
