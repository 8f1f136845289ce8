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
from itertools import takewhile
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from streamguard.errors import PolicyError, Problem, SchemaError
from streamguard.events import BlockStarted, BlockStopped, Delta, Event, Stopped
from streamguard.files.frozen_json import FrozenJson
from streamguard.files.json_pointer import Path, parse_pointer
from streamguard.guards.base import AttemptContext, BaseWatch, Document, Mode, Spec
from streamguard.guards.document.lookahead import Ahead
from streamguard.guards.document.reader import GUARD, DocumentReader, Plan
from streamguard.guards.document.surroundings import Expect
from streamguard.guards.knobs import Items
from streamguard.models.model import MAX_DEPTH, OutputType, is_type
from streamguard.request import Request
from streamguard.verdict import Enough, Trip, Where
from streamguard.viability.schema.subschema import subschema
from streamguard.viability.syntax.values import MOST_DIGITS

TOOL: Final = "tool:"
NOTHING: Final = "{}"
"""The input of a call without arguments. The adapter says it, too, of a call whose input never came."""


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
    """Where `schema` was read from. Whoever loads the policy reads the file; on its own the name does nothing."""
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
        """The state for one attempt.

        :raises PolicyError: `schema: request` without a request or without a schema in it; a `schema_file` nobody read.
        :raises SchemaError: a schema that cannot be used.
        """
        if self.schema_file is not None and self.schema_ is None:
            problem = f"{self.schema_file} was not read: load the policy from a file, or give its content as schema"
            raise PolicyError(Problem(pointer="/json/schema_file", problem=problem))
        if self.where == "text":
            return TextWatch(self.plan(_output_schema(self, ctx.request)), ctx.request)
        return ToolWatch(self, ctx.request)

    def plan(self, schema: Mapping[str, Any] | None) -> Plan:
        """How to read a document of this section by `schema`, or by the syntax alone.

        :raises SchemaError: a schema that cannot be used.
        """
        if self.output is not None or schema is self.own_schema():
            return _own_plan(self)
        return _plan(self, None if schema is None else json.dumps(_json_schema(schema)))

    def own_schema(self) -> Mapping[str, Any] | None:
        """The schema given in the policy; of a type, the one that kills while an answer streams.

        :raises SchemaError: Pydantic cannot use the type.
        """
        if isinstance(self.schema_, OutputType):
            plan = self.schema_.plan()
            wire = plan.wire if self.model == "contract" else None
            if self.model == "contract" and wire is None:
                raise SchemaError(Problem(pointer="/json/model", problem=_no_contract(self.schema_)))
            return plan.accepts if wire is None else wire
        return self.schema_ if isinstance(self.schema_, FrozenJson) else None

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


def _choice(request: Request) -> Mapping[str, Any]:
    choice = request.body.get("tool_choice")
    return choice if isinstance(choice, Mapping) else {}


class TextWatch(BaseWatch):
    """The text blocks of one attempt as one document."""

    wants = (Delta, BlockStarted, Stopped)

    def __init__(self, plan: Plan, request: Request | None) -> None:
        may_end = request is None or not request.body.get("tools") or _choice(request).get("type") == "none"
        self._reader = DocumentReader(plan, may_end=may_end)
        self._ahead = Ahead(self._reader)
        # What the request put in the model's mouth is the beginning of the document.
        self._early = self._reader.feed(request.prefill) if request is not None and request.prefill else None
        self.hopeless = self._early if isinstance(self._early, Trip) else None

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        verdict: Trip | Enough | None = None
        if type(event) is Delta:
            if event.kind == "text":
                verdict = self._ahead.take(event.text) if self._ahead.left else self._reader.feed(event.text)
            if verdict is None and self._early is None:
                return None
        elif type(event) is Stopped:
            verdict = self._reader.finish()
        elif type(event) is BlockStarted and event.kind == "tool_input":
            self._reader.may_end = False
        if self._early is not None:
            verdict, self._early = self._early, None
        return _placed(verdict, getattr(event, "index", None), now) if isinstance(verdict, Trip) else verdict

    def ahead(self, deltas: Sequence[Delta]) -> None:
        """Read what will come next, all from one read."""
        pieces = [event.text for event in takewhile(lambda event: event.kind == "text", deltas)]
        if len(pieces) > 1 and self._early is None:
            self._ahead.read(pieces)

    def document(self) -> Document:
        """The document so far."""
        return self._ahead.document()


class ToolWatch(BaseWatch):
    """The inputs of tool calls of one attempt, each as a document."""

    wants = (Delta, BlockStarted, BlockStopped, Stopped)

    def __init__(self, spec: JsonDocument, request: Request | None) -> None:
        self._spec = spec
        self._name = None if spec.where == "tools" else spec.where.removeprefix(TOOL)
        self._own = spec.schema_ == "request"
        self._schemas = _tool_schemas(spec, request) if self._own else {}
        self._only = request is not None and _choice(request).get("disable_parallel_tool_use") is True
        self._forced = request is not None and _choice(request).get("type") in ("any", "tool")
        self._blocks: dict[int, BlockStarted] = {}
        self._readers: dict[int, DocumentReader] = {}
        self._aheads: dict[int, Ahead] = {}
        self._accepted = False
        self._closed: set[int] = set()
        self._pending: dict[int, Trip] = {}  # of documents that may only have been cut off: see the module
        if self._name is not None:
            self._plan_for(self._name)  # what is wrong with the schema is said before the attempt

    def feed(self, event: Event, now: float) -> Trip | Enough | None:
        if type(event) is Delta:
            ahead = self._aheads.get(event.index)
            if ahead is None or event.kind != "tool_input":
                return None
            reader = self._readers[event.index]
            if event.text == NOTHING and reader.empty:
                verdict = reader.feed(event.text)  # all there is, perhaps, of an input cut before its first character
                if isinstance(verdict, Trip):
                    self._pending[event.index] = self._blamed(verdict, event.index, now)
                    verdict = None
                return None if verdict is None else self._named(verdict, event.index, now)
            if (trip := self._pending.get(event.index)) is not None:
                return trip
            verdict = ahead.take(event.text) if ahead.left else self._readers[event.index].feed(event.text)
            return None if verdict is None else self._named(verdict, event.index, now)
        if type(event) is BlockStarted:
            if self._pending and (trip := self._settled()) is not None:
                return trip
            self._opened(event)
        elif type(event) is BlockStopped:
            trip = self._close(event.index, now)
            if trip is None or trip.reason != "json.incomplete":
                return trip
            self._pending.setdefault(event.index, trip)
        elif type(event) is Stopped:
            return self._stopped(now)
        return None

    def ahead(self, deltas: Sequence[Delta]) -> None:
        """Read what will come next, all from one read."""
        block = deltas[0].index
        ahead = self._aheads.get(block)
        pieces = [one.text for one in takewhile(lambda one: one.index == block and one.kind == "tool_input", deltas)]
        if len(pieces) > 1 and ahead is not None:
            ahead.read(pieces)

    def document(self) -> Document:
        """The document so far, or all of them."""
        found = [(index, ahead.document()) for index, ahead in sorted(self._aheads.items())]
        if self._name is None:
            calls = [
                ({"id": self._blocks[index].id, "name": self._blocks[index].name}, document)
                for index, document in found
            ]
            return Document(
                text="\n".join(document.text for _, document in calls),
                value=[{**call, "input": document.value} for call, document in calls],
                complete=self._accepted,
                instance=[{**call, "input": document.result} for call, document in calls]
                if self._spec.output is not None and self._accepted
                else msgspec.UNSET,
            )
        if not found:
            return Document(text="")
        first = found[0][1]
        complete = all(document.complete for _, document in found)
        return Document(text=first.text, value=first.value, complete=complete, instance=first.instance)

    def _plan_for(self, name: str | None) -> Plan:
        return self._spec.plan(self._schemas.get(name or "") if self._own else self._spec.own_schema())

    def _opened(self, block: BlockStarted) -> None:
        if block.kind != "tool_input":
            return
        may_end = self._only and not self._blocks
        for reader in self._readers.values():
            reader.may_end = False
        self._blocks[block.index] = block
        if self._name in (None, block.name):
            reader = self._readers[block.index] = DocumentReader(self._plan_for(block.name), may_end=may_end)
            self._aheads[block.index] = Ahead(reader)

    def _settled(self) -> Trip | None:
        """The first document that was closed and was not whole, now that the message goes on or has ended."""
        return next((trip for index, trip in sorted(self._pending.items()) if index in self._closed), None)

    def _close(self, index: int, now: float) -> Trip | None:
        reader = self._readers.get(index)
        self._closed.add(index)
        if reader is None or index in self._pending:
            return None
        verdict = reader.feed("{}") if reader.empty else None
        trip = verdict if isinstance(verdict, Trip) else reader.finish()
        return None if trip is None else self._blamed(trip, index, now)

    def _stopped(self, now: float) -> Trip | None:
        if self._pending:
            return self._settled() or next(iter(self._pending.values()))
        for index, reader in self._readers.items():
            if not reader.complete and (trip := self._close(index, now)) is not None:
                return trip
        if not self._readers and (self._name is not None or self._forced):
            what = "no tool" if self._name is None else f"the tool {self._name!r} never"
            called = ", ".join(sorted({repr(block.name) for block in self._blocks.values()})) or "nothing"
            problem = f"{what} was called, so there is no document: the answer called {called}"
            return Trip(
                reason="json.incomplete",
                message=problem,
                knob="json.where",
                where=Where(offset="eof"),
                at=now,
                guard=GUARD,
            )
        self._accepted = all(reader.complete for reader in self._readers.values())
        return None

    def _named(self, verdict: Trip | Enough, index: int, now: float) -> Trip | Enough:
        if isinstance(verdict, Enough):
            self._accepted = self._readers[index].complete
            return verdict
        return self._blamed(verdict, index, now)

    def _blamed(self, trip: Trip, index: int, now: float) -> Trip:
        message = f"input of the tool {self._blocks[index].name!r}: {trip.message}"
        return msgspec.structs.replace(_placed(trip, index, now), message=message)


def _placed(trip: Trip, block: int | None, now: float) -> Trip:
    """The trip with its block and time."""
    where = msgspec.structs.replace(trip.where or Where(), block=block)
    return msgspec.structs.replace(trip, where=where, at=now)
