"""JSON documents in an answer: dead prefixes, malformed and schema-dead, in one scan of each character.

In charge of: the `json:` section of a policy, which parts of a stream are documents, by which schema each is judged,
and whether the call may be ended once a document stands. What happens inside one document is the reader's business
(`document_reader`), what stands around it the frame's (`document_frame`), which prefix is dead `viability`'s.

**Where.** `text`: the attempt's text blocks one after the other, behind the request's assistant prefill, are one
document. `tool:NAME`: the input of each call of that tool is a document; the first call's is the answer's value.
`tools`: the input of each tool call is a document, and the value is the list of `{id, name, input}` in the order of
their blocks; an answer without a tool call is fine, unless the request forces one. What the provider runs itself
(server tools) is no document.

**Around it.** `fence`, `preamble`, `trailing: allow` are about prose and apply to text. A tool's input is the document
and nothing else, and an input without a single character is `{}`, as the provider's SDKs read it.

A tool's input that ends unfinished may have been cut off, and servers close its block before they say so. It is judged
when the message goes on (`json.incomplete`) or ends, and then `completion` speaks first.

**Ending early** (`trailing: cut`, `enough_when`) must not cut off a tool call. So it is done only where none can
follow: for text, if no tool block was opened and the request offers no tools (or `tool_choice: none`); an opaque
request is taken at the policy's word. For a tool's input, if the request has `disable_parallel_tool_use`, and it is the
only call. Anywhere else the document is read to its end, and text after it is let pass as with `allow`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from streamguard.errors import PolicyError, Problem, SchemaError
from streamguard.files.frozen_json import FrozenJson
from streamguard.files.json_pointer import Path, parse_pointer
from streamguard.guards.base import AttemptContext, Mode, Spec
from streamguard.guards.document.reader import GUARD, Plan
from streamguard.guards.document.surroundings import Expect
from streamguard.guards.document.watches import TextWatch, ToolWatch
from streamguard.guards.grounding.follower import Grounding
from streamguard.guards.grounding.source import SourceTexts
from streamguard.guards.grounding.spec import Grounded
from streamguard.guards.knobs import Items
from streamguard.models.model import MAX_DEPTH, OutputType, is_type
from streamguard.request import Request
from streamguard.viability.schema.subschema import subschema
from streamguard.viability.syntax.values import MOST_DIGITS

TOOL: Final = "tool:"


def _as_schema(value: Any) -> Any:
    """A schema as the field holds it: mappings frozen, types wrapped."""
    if isinstance(value, str) and ":" in value:
        raise ValueError(
            f"{value} names a type, which only a policy file can, where imports are allowed: give the type itself"
        )
    return OutputType.of(value) if is_type(value) else value


_OPENS: Final[Mapping[str, Expect]] = {"object": "object", "array": "array"}


class JsonDocument(Spec):
    """The answer is, or holds, JSON: abort at the first byte after which no continuation can be valid.

    Exact: a conforming answer is never aborted, but for `numbers: plain`. Accepted is only what passed a full strict
    parse and the full schema. Hashable and equal by content, the schema included.

    ```python
    JsonDocument(schema={"type": "object", "required": ["total"]}, fence="strip", trailing="cut")
    ```
    """

    where: Annotated[str, Field(pattern=r"^(text|tools|tool:.+)$")] = "text"
    """`text`, `tool:NAME` or `tools`."""
    expect: Expect | None = None
    """What the top value must be. Left out: an object, or where there is a schema whatever that says."""
    schema_: Annotated[
        FrozenJson | OutputType | Literal["request"] | None, Field(alias="schema"), BeforeValidator(_as_schema)
    ] = None
    """A JSON Schema (2020-12 unless its `$schema` says otherwise), or `request`: the request's own, which is the
    structured output format for text and `input_schema` for tools. A tool without one is held to the syntax alone.
    Or a type that Pydantic validates, such as a model class: then the value is an instance of it."""
    model: Literal["accepts", "contract"] = "accepts"
    """What kills while the answer streams, where `schema` is a type. `accepts`: only what the type refuses. `contract`:
    also what its own JSON Schema refuses, up to one value earlier, such as `"12"` for an integer."""
    field_validators: Literal["early", "final"] = "early"
    """Whether the type's validators judge each value as soon as it is complete. They run a second time at the end."""
    schema_file: str | None = None
    """Where `schema` was read from. The loader of the policy reads the file; on its own the name does nothing."""
    assert_formats: bool = False
    """Whether the schema's `format` decides."""
    numbers: Literal["exact", "plain"] = "exact"
    """`plain` assumes that numbers come without exponent, and dies earlier: 1000 is dead for `maximum: 100`, though
    1000e-2 is not. A heuristic."""
    patterns: Literal["python", "ecma"] = "python"
    """How the schema's patterns are read: as Python's `re` does, and jsonschema with it, or as ECMA-262 has it."""
    duplicate_names: Literal["reject", "allow"] = "reject"
    """Whether a name may stand twice in one object. The last one counts."""
    fence: Literal["reject", "strip"] = "reject"
    """What to do with a Markdown code fence around the whole document."""
    preamble: Literal["reject", "skip"] = "reject"
    """What to do with text before the document. `skip` takes the first bracket that can begin it."""
    trailing: Literal["reject", "allow", "cut"] = "reject"
    """What to do with text after the document. `cut`: stop paying as soon as the document is complete."""
    enough_when: Items[str] = ()
    """JSON Pointers: stop paying as soon as all these values are complete, and valid by their own subschemas."""
    grounded: Items[Grounded] = ()
    """Values that must stand in the source text: dead at the first character with which one occurs nowhere in it."""
    max_depth: Annotated[int, Field(ge=1, le=256)] = 64
    """Open objects and arrays, at most 256."""
    max_digits: Annotated[int, Field(ge=1, le=MOST_DIGITS)] = 400
    """Digits in one number. At most 4300, which is what Python converts."""
    max_bytes: Annotated[int, Field(ge=1)] | None = 4_194_304
    """UTF-8 bytes of one document; `None` for no limit. The default is eight times what 128,000 tokens, the longest
    answers there are, come to at four bytes each: no real answer meets it, and it bounds memory and the time of the
    full parse."""
    mode: Mode | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            where: str = "text",
            expect: Expect | None = None,
            schema: Mapping[str, Any] | type[Any] | UnionType | OutputType | Literal["request"] | None = None,
            model: Literal["accepts", "contract"] = "accepts",
            field_validators: Literal["early", "final"] = "early",
            schema_file: str | None = None,
            assert_formats: bool = False,
            numbers: Literal["exact", "plain"] = "exact",
            patterns: Literal["python", "ecma"] = "python",
            duplicate_names: Literal["reject", "allow"] = "reject",
            fence: Literal["reject", "strip"] = "reject",
            preamble: Literal["reject", "skip"] = "reject",
            trailing: Literal["reject", "allow", "cut"] = "reject",
            enough_when: Sequence[str] = (),
            grounded: Sequence[Grounded] = (),
            max_depth: int = 64,
            max_digits: int = 400,
            max_bytes: int | None = 4_194_304,
            mode: Mode | None = None,
        ) -> None: ...

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.schema_, OutputType) and self.enough_when:
            raise ValueError("enough_when gives parts of a document, and a type needs the whole of it")
        if isinstance(self.schema_, OutputType) and self.max_depth > MAX_DEPTH:
            raise ValueError(f"max_depth is at most {MAX_DEPTH} with a type: Pydantic reads no deeper")
        if self.enough_when and self.where == "tools":
            raise ValueError("enough_when needs one document: where: text or tool:NAME")
        for pointer in self.enough_when:
            parse_pointer(pointer)
        return self

    @property
    def name(self) -> str:
        return GUARD

    def watch(self, ctx: AttemptContext, now: float) -> TextWatch | ToolWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop's clock.
        :raises PolicyError: `schema: request` without a request or without a schema in it; a `schema_file` nobody read;
            grounded values without a source.
        :raises SchemaError: a schema that cannot be used.
        """
        return self.watching(ctx, observed=False)

    def watching(self, ctx: AttemptContext, *, observed: bool) -> TextWatch | ToolWatch:
        """Return the state for one attempt, with the grounded values that count or with those that are only observed.

        :param ctx: what is known of the attempt: its request and model.
        :param observed: what a guard in `mode: observe` reports to.
        :raises PolicyError: as `watch`.
        :raises SchemaError: as `watch`.
        """
        if self.schema_file is not None and self.schema_ is None:
            problem = f"{self.schema_file} was not read: load the policy from a file, or give its content as schema"
            raise PolicyError(Problem(pointer="/json/schema_file", problem=problem))
        sources = ctx.sources or SourceTexts(request=ctx.request)
        own_followers = Grounding(self.grounded, sources, observed=observed).followers if self.grounded else tuple
        if self.where == "text":
            return TextWatch(self.plan(_output_schema(self, ctx.request)), ctx.request, own_followers)
        own = self.schema_ == "request"
        schemas = _tool_schemas(self, ctx.request) if own else {}
        name = None if self.where == "tools" else self.where.removeprefix(TOOL)

        def plan_for(tool: str) -> Plan:
            return self.plan(schemas.get(tool) if own else self.own_schema())

        return ToolWatch(name, plan_for, ctx.request, own_followers, typed=self.output is not None)

    def plan(self, schema: Mapping[str, Any] | None) -> Plan:
        """Return how to read a document of this section by `schema`, or by the syntax alone.

        :raises SchemaError: a schema that cannot be used.
        """
        if self.output is not None or schema is self.own_schema():
            return _own_plan(self)
        return _plan(self, None if schema is None else json.dumps(_json_schema(schema)))

    def own_schema(self) -> Mapping[str, Any] | None:
        """Return the schema given in the policy; of a type, the one that kills while an answer streams.

        :raises SchemaError: Pydantic cannot use the type.
        """
        if isinstance(self.schema_, OutputType):
            plan = self.schema_.plan()
            wire = plan.wire if self.model == "contract" else None
            if self.model == "contract" and wire is None:
                raise SchemaError(Problem(pointer="/json/model", problem=_no_contract(self.schema_)))
            return plan.accepts if wire is None else wire
        return self.schema_ if isinstance(self.schema_, FrozenJson) else None

    def told_schema(self) -> Mapping[str, Any] | None:
        """Return the schema given in the policy as the model is told it: of a type, Pydantic's own where it can write
        one.

        :raises SchemaError: Pydantic cannot use the type.
        """
        if isinstance(self.schema_, OutputType):
            plan = self.schema_.plan()
            return plan.accepts if plan.wire is None else plan.wire
        return self.own_schema()

    @property
    def output(self) -> OutputType | None:
        """The type that the document must be, if the policy names one."""
        return self.schema_ if isinstance(self.schema_, OutputType) else None


def _no_contract(output: OutputType) -> str:
    return f"model: contract needs a JSON Schema, and Pydantic can write none for {output.name}: use accepts"


def _refuse(what: str) -> PolicyError:
    return PolicyError(Problem(pointer="/json/schema", problem=f"schema: request, but {what}"))


def _output_schema(spec: JsonDocument, request: Request | None) -> Mapping[str, Any] | None:
    if spec.schema_ != "request":
        return spec.own_schema()
    if request is None:
        raise _refuse("the source's request is unknown; give the schema itself")
    if request.output_schema is None:
        raise _refuse(
            "it has no structured output format (output_config.format); give the schema itself, or leave it out"
        )
    return request.output_schema


def _tool_schemas(spec: JsonDocument, request: Request | None) -> Mapping[str, Mapping[str, Any]]:
    """The schemas of the tools that may be called, where each has its own."""
    if request is None:
        raise _refuse("the source's request is unknown; give the schema itself")
    name = spec.where.removeprefix(TOOL)
    if spec.where != "tools" and name not in request.tools:
        tools = ", ".join(sorted(request.tools)) or "none"
        raise _refuse(f"it has no tool {name!r} with an input_schema (there are: {tools})")
    return request.tools


@lru_cache(maxsize=128)
def _own_plan(spec: JsonDocument) -> Plan:
    """With the schema given in the policy, which need not be written down to be found again."""
    schema = spec.own_schema()
    return _plan(spec, None if schema is None else json.dumps(_json_schema(schema)))


@lru_cache(maxsize=128)
def _plan(spec: JsonDocument, schema: str | None) -> Plan:
    """Pure, and worth remembering: a schema is compiled once for all attempts and calls."""
    compiled = None
    root: Mapping[str, Any] = {}
    if schema is not None:
        root = json.loads(schema)
        compiled = _compile(spec, root)
    declared = _OPENS.get(str(root.get("type")), "any") if schema is not None else "object"
    text = spec.where == "text"
    paths = [parse_pointer(pointer) for pointer in spec.enough_when]
    return Plan(
        expect=spec.expect or ("object" if schema is None else "any"),
        opens=spec.expect or declared,
        schema=compiled,
        parts={path: _part(spec, root, path) for path in paths},
        framed=text,
        fence=spec.fence if text else "reject",
        preamble=spec.preamble if text else "reject",
        trailing=spec.trailing if text or spec.trailing == "cut" else "reject",
        duplicate_names=spec.duplicate_names,
        max_depth=spec.max_depth,
        max_digits=spec.max_digits,
        max_bytes=spec.max_bytes,
        model=None if spec.output is None else spec.output.plan(),
        judged=spec.model == "contract",
        early=spec.field_validators == "early" and spec.duplicate_names == "reject",
    )


def _compile(spec: JsonDocument, schema: Mapping[str, Any], registry: Any = None) -> Any:
    # Where it is used: jsonschema behind it takes a tenth of a second to import, and many policies have no schema.
    from streamguard.viability.compile import compile_schema

    compiled = compile_schema(
        schema,
        registry=registry,
        assert_formats=spec.assert_formats,
        duplicate_names=spec.duplicate_names,
        numbers=spec.numbers,
        patterns="python" if spec.output is not None else spec.patterns,
        max_depth=spec.max_depth,
        max_digits=spec.max_digits,
    )
    if not compiled.satisfiable:
        raise SchemaError("no document can satisfy this schema")
    return compiled


def _part(spec: JsonDocument, root: Mapping[str, Any], path: Path) -> Any:
    """The schema of the value at `path`, in the context of the whole; `None` if the keywords do not lead to one."""
    place = subschema(root, path)
    if place is None:
        return None
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    # Referred to, and not copied out: its own references are relative to the whole.
    uri = str(root.get("$id") or root.get("id") or "urn:streamguard:schema").rstrip("#")
    resource = Resource.from_contents(root, default_specification=DRAFT202012)
    part = {"$ref": f"{uri}#{place}"} | ({"$schema": root["$schema"]} if "$schema" in root else {})
    return _compile(spec, part, Registry().with_resource(uri, resource))


def _json_schema(value: Any) -> Any:
    """A schema as `json` knows it: mappings of any kind as dicts, decimals as floats."""
    if isinstance(value, Mapping):
        return {key: _json_schema(item) for key, item in value.items()}
    if isinstance(value, Decimal):
        return float(value)
    return [_json_schema(item) for item in value] if isinstance(value, list | tuple) else value
