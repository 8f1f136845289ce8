"""The policy format as data: a JSON Schema (2020-12) for editors, completion and review.

In charge of what pydantic's schema lacks: descriptions (from the docstrings under each field), the keys that only files
have (`extends`, `json.schema_file`), and money that must be quoted.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from streamguard.policy.model import Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"

OFF = "off"
"""In a file, the word for no such section and no such limit; `null` does as well."""
NO_SECTIONS = frozenset({"version", "extends", "mode", "deliver"})
"""Keys whose values are words: there, `off` is a mistake like any other."""
SWITCHED = frozenset({"pace", "breaker"})
"""Sections that are on by default, and that `off` turns off: for them, it is a value."""

EXTENDS = {
    "description": "What this policy adds to: a shipped policy (streamguard:NAME) or the path of a file, relative to "
    "this one. Mappings are merged, lists replace, off removes a section, and nothing changes nothing.",
    "type": "string",
    "examples": ["streamguard:extraction", "../base.yaml"],
}
SCHEMA_FILE = {
    "description": "The path of a JSON Schema, a JSON file, relative to this one. Instead of schema.",
    "type": "string",
}
GUARDS = {
    "description": "Guards of your own, as module:name. Only where the program that reads the policy allows imports.",
    "type": "array",
    "items": {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"},
}


def policy_schema(*, describe: bool = True) -> dict[str, Any]:
    """The JSON Schema of policy files.

    :param describe: whether to put the docstrings in, for which the package's source is read.
    """
    plain = model_schema(Policy, describe=describe)
    properties = plain["properties"]
    plain["properties"] = {"version": properties.pop("version"), "extends": EXTENDS, **properties, "guards": GUARDS}
    for node in plain.get("$defs", {}).values():
        if "schema" in node.get("properties", {}):
            node["properties"] = {"schema_file": SCHEMA_FILE, **node["properties"]}
    plain["properties"] = {name: _section(node, plain["$defs"]) for name, node in plain["properties"].items()}
    if describe:
        for node in (plain, *plain["$defs"].values()):
            for name, one in node.get("properties", {}).items():
                if name not in NO_SECTIONS and {"type": "null"} in one.get("anyOf", ()):
                    one["anyOf"].append({"const": OFF})
    plain["title"] = "streamguard policy"
    return {"$schema": DIALECT, **plain}


def model_schema(model: type[BaseModel], *, describe: bool = True) -> dict[str, Any]:
    """The JSON Schema of a file that is one model: with the docstrings, and with money that must be quoted."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    models = {one.__name__: one for one in _models(model)}
    for name, node in [(model.__name__, schema), *schema.get("$defs", {}).items()]:
        if describe and name in models:
            _describe(node, models[name])
    plain: dict[str, Any] = _without_titles(schema)
    return plain


def _section(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A key of the top: with its model's description, and `null` to remove what a parent says."""
    options = node.get("anyOf", [node])
    model = definitions.get(str(options[0].get("$ref", "")).rpartition("/")[2], {})
    about: dict[str, Any] = {key: node[key] for key in ("description", "default") if key in node}
    if "description" in model:
        about.setdefault("description", model["description"])
    bare = [{key: value for key, value in option.items() if key not in about} for option in options]
    return {**about, "anyOf": [*bare, *([] if {"type": "null"} in bare else [{"type": "null"}])]}


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and every model that its fields can hold."""
    seen: list[type[BaseModel]] = []
    queue: list[Any] = [model]
    while queue:
        kind = queue.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in seen:
                seen.append(kind)
                queue += [field.annotation for field in kind.model_fields.values()]
        else:
            queue += getattr(kind, "__args__", ())
    yield from seen


def _describe(node: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the docstrings under a model's fields, its bases' included, into its schema."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            texts |= dict(_docstrings(base))
    for name, field in model.model_fields.items():
        prop = node.get("properties", {}).get(field.alias or name)
        if prop is not None and name in texts:
            prop["description"] = texts[name]
    if model.__doc__:
        node["description"] = _flowing(model.__doc__)


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # bundled without sources, or made at run time
        return
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                yield name, _flowing(said)


def _flowing(text: str) -> str:
    """A docstring's prose without the line breaks of its source. Examples of Python help nobody who writes YAML."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if not paragraph.startswith("```"))


_AMOUNT = {"type": "string", "pattern": r"^\s*\d*\.?\d+\s*$", "examples": ["0.04"]}


def _without_titles(node: Any) -> Any:
    """Without titles that repeat the key, and with money as a quoted amount only."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        named = key in ("properties", "$defs")  # where every key is a name, "title" too
        plain[key] = {name: _without_titles(item) for name, item in value.items()} if named else _without_titles(value)
    options = plain.get("anyOf", [])
    kinds = [option.get("type") for option in options]
    if kinds[:2] == ["number", "string"]:  # what pydantic makes of Decimal
        rest = options[2:]
        plain.pop("anyOf")
        return {**plain, "anyOf": [_AMOUNT, *rest]} if rest else {**plain, **_AMOUNT}
    return plain


def schema_text() -> str:
    """The same as the text of `policy.schema.json`."""
    return json.dumps(policy_schema(), indent=1, ensure_ascii=False) + "\n"
