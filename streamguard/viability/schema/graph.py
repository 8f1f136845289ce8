"""A schema as a graph of nodes: each subschema once per dynamic scope, its references resolved, its keywords as atoms.

In charge of: drafts, `$ref` and its kin, mistakes in a schema, and sorting keywords. Does not know how any of it is
judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import lookup_recursive_ref

from streamguard.errors import Problem, SchemaError
from streamguard.files.json_pointer import escape
from streamguard.viability.patterns.ecma import Dialect
from streamguard.viability.patterns.formats import named
from streamguard.viability.patterns.python_regex import PatternError
from streamguard.viability.patterns.regexes import Pattern, compile_pattern
from streamguard.viability.schema import keywords as kw
from streamguard.viability.schema.nodes import INF, Atom, Group, Node, Op
from streamguard.viability.schema.resources import Resource, combined, copy, pointers, resource
from streamguard.viability.syntax.grammar import ARRAY, FALSE, NULL, NUMBER, OBJECT, STRING, TRUE
from streamguard.viability.syntax.quote import quote


class Graph:
    """All nodes of one schema.

    Raises:
        SchemaError: with every mistake that was found.
    """

    def __init__(
        self,
        schema: Any,
        *,
        registry: Registry[Any] | Mapping[str, Any] | None,
        assert_formats: bool,
        dialect: Dialect = "python",
    ) -> None:
        if not isinstance(schema, (dict, bool)):
            raise SchemaError(Problem(problem="a schema is an object, true or false", pointer=""))
        self.assert_formats = assert_formats
        self.dialect: Dialect = dialect
        self.late: dict[tuple[str, str], str] = {}  # (pointer, keyword) → why it is judged at the end only
        self.hints: list[Problem] = []  # what says nothing here, and probably was to say something
        self.wants_values = False
        self.longest = 0  # characters of the longest string that `enum`, `const` or a name lists
        self._problems: list[Problem] = []
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._keep: list[Any] = []
        self._unfilled: list[Node] = []
        self._scopes: dict[int, tuple[Any, tuple[str, ...]]] = {}
        self._blame: dict[int, tuple[str, str]] = {}  # by node, what stands in the schema for nodes that do not
        self.schema = copy(schema)
        self._pointers: dict[int, str] | None = None
        draft = self._draft(self.schema, kw.D2020, "")
        self.registry = combined(registry)
        self.draft = draft
        self.resolver = self.registry.resolver_with_root(resource(self.schema, draft))
        self.anything = self._node(True, self.resolver, "", draft, enter=False)
        self.root = self._node(self.schema, self.resolver, "", draft, enter=False)
        while self._unfilled:  # a list in place of the stack: a schema may be deep, and its references far
            self._fill(self._unfilled.pop())
        if not self._problems:
            self._find_loops()
        if self._problems:
            raise SchemaError(self._problems)

    # -- making nodes --------------------------------------------------------------------------------------------------

    def _draft(self, schema: Any, default: int, at: str) -> int:
        uri = schema.get("$schema") if isinstance(schema, dict) else None
        if not isinstance(uri, str):
            return default
        if uri.removesuffix("#") in kw.REFUSED:
            self._problem(
                f"{at}/$schema", f"{kw.REFUSED[uri.removesuffix('#')]} is not supported; draft-04 and later are"
            )
        return kw.draft_of(uri) or default

    def _problem(self, at: str, problem: str) -> None:
        entry = Problem(problem=problem, pointer=at or "/")
        if entry not in self._problems:
            self._problems.append(entry)

    def _node(self, schema: Any, resolver: Any, at: str, draft: int, *, enter: bool = True) -> Node:
        if enter and isinstance(schema, dict):
            draft = self._draft(schema, draft, at) if "$schema" in schema else draft
            if "$id" in schema or "id" in schema:
                resolver = resolver.in_subresource(Resource(schema, draft))
        key = (
            schema if isinstance(schema, bool) else id(schema),
            at if isinstance(schema, bool) else resolver._base_uri,  # noqa: SLF001  # the library has no public name for it
            self._scope(resolver),
            draft,
        )
        known = self._nodes.get(key)
        if known is not None:
            return known
        node = Node(len(self._nodes), schema, at, draft, resolver)
        self._nodes[key] = node
        self._keep.append(schema)
        if schema is False:
            node.kinds = 0
            node.kind_atom = Atom("false", None, "false schema", at)
        elif isinstance(schema, dict):
            self._unfilled.append(node)
        return node

    def _scope(self, resolver: Any) -> tuple[str, ...]:
        """The dynamic scope: the documents that led here, each once."""
        known = self._scopes.get(id(resolver))
        if known is None:
            scope = tuple(dict.fromkeys(reversed([uri for uri, _ in resolver.dynamic_scope()])))
            known = self._scopes[id(resolver)] = resolver, scope  # kept, so that no other gets its id
        return known[1]

    def _made(self, schema: dict[str, Any], near: Node, keyword: str, at: str) -> Node:
        """A node for a value that `enum` or `const` lists; to blame is always that keyword."""
        made = self._node(schema, near.resolver, at, kw.D2020, enter=False)
        self._blame[made.id] = self._blame.get(near.id) or (keyword, at)
        return made

    def made_any(self, nodes: list[Node], near: Node) -> Node:
        """A node that accepts what one of these accepts."""
        node = Node(len(self._nodes), {}, near.pointer, near.draft, near.resolver)
        self._nodes["any", *(n.id for n in nodes)] = node
        node.ops.append(Op("any", list(nodes), "unevaluatedItems", near.pointer))
        return node

    def _fill(self, node: Node) -> None:
        draft, schema = node.draft, node.schema
        checks = kw.KEYWORDS[draft]
        if draft <= kw.D7 and isinstance(schema.get("$ref"), str):
            schema = {"$ref": schema["$ref"]}
        if not self.asserts(schema, node.resolver):
            schema = {k: v for k, v in schema.items() if k not in kw.ASSERTIONS}
        good = {}
        for keyword, value in schema.items():
            check = checks.get(keyword)
            if check is None:
                if (hint := kw.ignored(keyword, value, draft)) is not None:
                    self.hints.append(Problem(problem=hint, pointer=f"{node.pointer}/{escape(keyword)}"))
                continue
            if not check[0](value):
                instead = kw.instead(keyword, value, draft)
                self._problem(f"{node.pointer}/{escape(keyword)}", f"{quote(value)} is not {check[1]}{instead}")
            else:
                good[keyword] = value
        self._kinds(node, good)
        if "enum" in good or "const" in good:
            self._values(node, good)
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if keyword in good:
                self._ref(node, keyword, good[keyword])
        if not good.keys().isdisjoint(kw.IN_PLACE):
            self._in_place(node, good)
        if not good.keys().isdisjoint(kw.OF_STRINGS):
            self._strings(node, good)
        if not good.keys().isdisjoint(kw.OF_NUMBERS):
            self._numbers(node, good)
        if not good.keys().isdisjoint(kw.OF_OBJECTS):
            self._objects(node, good)
        if not good.keys().isdisjoint(kw.OF_ARRAYS):
            self._arrays(node, good)
        blame = self._blame.get(node.id)
        if blame is not None:
            for atom in [*(atom for atoms in node.atoms.values() for atom in atoms), node.kind_atom]:
                if atom is not None:
                    atom.keyword, atom.pointer = blame

    def asserts(self, schema: Any, resolver: Any) -> bool:
        """Whether the schema's meta-schema has the validation vocabulary, which is so unless it says otherwise."""
        found = [s.get("$schema") for s in (schema, self.schema) if isinstance(s, dict)]
        uri = next((uri for uri in found if uri), None)
        if not isinstance(uri, str) or kw.draft_of(uri) is not None:
            return True
        try:
            vocabulary = resolver.lookup(uri).contents.get("$vocabulary")
        except (Unresolvable, AttributeError, ValueError):
            return True
        return not isinstance(vocabulary, dict) or kw.VALIDATION in vocabulary

    def _child(self, node: Node, schema: Any, *path: str | int) -> Node:
        at = node.pointer + "".join(f"/{escape(part)}" for part in path)
        made = self._node(schema, node.resolver, at, node.draft)
        if node.id in self._blame:
            self._blame[made.id] = self._blame[node.id]
        return made

    def _ref(self, node: Node, keyword: str, ref: str) -> None:
        at = f"{node.pointer}/{escape(keyword)}"
        try:
            found = lookup_recursive_ref(node.resolver) if keyword == "$recursiveRef" else node.resolver.lookup(ref)
        except (Unresolvable, ValueError) as error:
            reason = "leads nowhere" if ref.startswith("#") else "is neither in the schema nor in the registry"
            if not isinstance(error, Unresolvable):
                reason = f"cannot be read: {error}"
            self._problem(at, f"{quote(ref, 80)} {reason}")
            return
        if not isinstance(found.contents, (dict, bool)):
            self._problem(at, f"{quote(ref, 80)} leads to something that is no schema")
            return
        target_at = self._place(found.contents, ref)
        draft = self._draft(found.contents, node.draft, target_at)
        target = self._node(found.contents, found.resolver, target_at, draft, enter=False)
        node.ops.append(Op("all", [target], keyword, at))

    def _place(self, schema: Any, ref: str) -> str:
        """Where a schema that a reference leads to stands; of another document the reference."""
        if self._pointers is None:
            self._pointers = pointers(self.schema)
        return self._pointers.get(id(schema), ref)

    def _kinds(self, node: Node, schema: dict[str, Any]) -> None:
        if "type" not in schema:
            return
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        node.kinds = 0
        for name in names:
            node.kinds |= kw.TYPES[name]
        node.kind_atom = Atom("type", names, "type", f"{node.pointer}/type")
        if "integer" in names and "number" not in names:
            tag = "strict_integer" if node.draft == kw.D4 else "integer"
            node.atoms[NUMBER].append(Atom(tag, None, "type", node.kind_atom.pointer))

    def _values(self, node: Node, schema: dict[str, Any]) -> None:
        for keyword in ("enum", "const"):
            if keyword not in schema:
                continue
            at = f"{node.pointer}/{keyword}"
            node.lists = True
            values = schema["enum"] if keyword == "enum" else [schema["const"]]
            strings = [v for v in values if isinstance(v, str)]
            self.longest = max([self.longest, *(2 * len(v) for v in strings)])
            numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
            kinds = (
                STRING * bool(strings)
                | NUMBER * bool(numbers)
                | TRUE * any(v is True for v in values)
                | FALSE * any(v is False for v in values)
                | NULL * any(v is None for v in values)
                | OBJECT * any(isinstance(v, dict) for v in values)
                | ARRAY * any(isinstance(v, list) for v in values)
            )
            if kinds & node.kinds != node.kinds:
                node.kinds &= kinds
                node.kind_atom = Atom("values", values, keyword, at)
            if strings:
                node.atoms[STRING].append(Atom("values", strings, keyword, at))
            if numbers:
                node.atoms[NUMBER].append(Atom("values", numbers, keyword, at))
            for kind, cls in ((OBJECT, dict), (ARRAY, list)):
                found = [self._made(_same(v), node, keyword, at) for v in values if isinstance(v, cls)]
                if kind in node.structured:  # both enum and const
                    found = [n for n in found if any(n.schema == m.schema for m in node.structured[kind])]
                node.structured[kind] = found

    def _in_place(self, node: Node, schema: dict[str, Any]) -> None:
        for keyword, op in (("allOf", "all"), ("anyOf", "any"), ("oneOf", "one")):
            if keyword in schema:
                nodes: list[Node | None] = [self._child(node, s, keyword, i) for i, s in enumerate(schema[keyword])]
                node.ops.append(Op(op, nodes, keyword, f"{node.pointer}/{keyword}"))
        if "not" in schema:
            node.ops.append(Op("not", [self._child(node, schema["not"], "not")], "not", f"{node.pointer}/not"))
        if "if" in schema:
            branches = [self._child(node, schema[k], k) if k in schema else None for k in ("if", "then", "else")]
            node.ops.append(Op("if", branches, "if", f"{node.pointer}/if"))
        for keyword in ("dependentSchemas", "dependencies"):
            for name, inner in schema.get(keyword, {}).items():
                if not isinstance(inner, list):
                    at = f"{node.pointer}/{keyword}/{escape(name)}"
                    node.ops.append(Op("dependent", [self._child(node, inner, keyword, name)], keyword, at, name))

    def _pattern(self, source: str, at: str) -> Pattern | None:
        try:
            return compile_pattern(source, self.dialect)
        except PatternError as error:
            self._problem(at, f"the pattern {quote(source)} does not compile: {error}")
        return None

    def _strings(self, node: Node, schema: dict[str, Any]) -> None:
        atoms = node.atoms[STRING]
        if "minLength" in schema:
            atoms.append(Atom("length", (int(schema["minLength"]), INF), "minLength", f"{node.pointer}/minLength"))
        if "maxLength" in schema:
            atoms.append(Atom("length", (0, int(schema["maxLength"])), "maxLength", f"{node.pointer}/maxLength"))
        if "pattern" in schema:
            at = f"{node.pointer}/pattern"
            pattern = self._pattern(schema["pattern"], at)
            if pattern is not None:
                atoms.append(Atom("pattern", pattern, "pattern", at))
                if pattern.late is not None:
                    self.late[at, "pattern"] = pattern.late
        if "format" in schema and self.assert_formats:
            at = f"{node.pointer}/format"
            form = named(schema["format"])
            atoms.append(Atom("format", form, "format", at))
            if form.prefix is None:
                self.late[at, "format"] = "this format is checked on finished strings only"

    def _numbers(self, node: Node, schema: dict[str, Any]) -> None:
        atoms = node.atoms[NUMBER]
        for side, op in (("Minimum", ">"), ("Maximum", "<")):
            keyword = side.lower()
            exclusive = schema.get(f"exclusive{side}")
            if keyword in schema:
                tight = exclusive is True
                atoms.append(
                    Atom("bound", (op if tight else op + "=", schema[keyword]), keyword, f"{node.pointer}/{keyword}")
                )
            if exclusive is not None and not isinstance(exclusive, bool):
                keyword = f"exclusive{side}"
                atoms.append(Atom("bound", (op, exclusive), keyword, f"{node.pointer}/{keyword}"))
        if "multipleOf" in schema:
            at = f"{node.pointer}/multipleOf"
            atoms.append(Atom("multiple", schema["multipleOf"], "multipleOf", at))

    def _objects(self, node: Node, schema: dict[str, Any]) -> None:
        atoms = node.atoms[OBJECT]
        present = [k for k in ("properties", "patternProperties", "additionalProperties") if k in schema]
        if present:
            patterns = []
            for source, inner in schema.get("patternProperties", {}).items():
                at = f"{node.pointer}/patternProperties/{escape(source)}"
                child = self._child(node, inner, "patternProperties", source)
                pattern = self._pattern(source, at)
                if pattern is not None:
                    patterns.append((pattern, child))
            group = Group(
                {n: self._child(node, s, "properties", n) for n, s in schema.get("properties", {}).items()},
                patterns,
                self._child(node, schema["additionalProperties"], "additionalProperties")
                if "additionalProperties" in schema
                else None,
            )
            atoms.append(Atom("group", group, present[-1], f"{node.pointer}/{present[-1]}"))
        if schema.get("required"):
            atoms.append(Atom("required", tuple(schema["required"]), "required", f"{node.pointer}/required"))
        self._sizes(node, atoms, schema, "Properties")
        if "propertyNames" in schema:
            child = self._child(node, schema["propertyNames"], "propertyNames")
            atoms.append(Atom("names", child, "propertyNames", f"{node.pointer}/propertyNames"))
        for keyword in ("dependentRequired", "dependencies"):
            needs = {name: tuple(v) for name, v in schema.get(keyword, {}).items() if isinstance(v, list) and v}
            if needs:
                atoms.append(Atom("needs", needs, keyword, f"{node.pointer}/{keyword}"))
        if "unevaluatedProperties" in schema:
            child = self._child(node, schema["unevaluatedProperties"], "unevaluatedProperties")
            node.unevaluated_properties = child
            self.wants_values = True

    def _arrays(self, node: Node, schema: dict[str, Any]) -> None:
        atoms = node.atoms[ARRAY]
        first, rest, keyword = [], None, "items"
        if node.draft == kw.D2020:
            first = [self._child(node, s, "prefixItems", i) for i, s in enumerate(schema.get("prefixItems", []))]
            rest = self._child(node, schema["items"], "items") if "items" in schema else None
            keyword = "items" if rest is not None else "prefixItems"
        elif isinstance(schema.get("items"), list):
            first = [self._child(node, s, "items", i) for i, s in enumerate(schema["items"])]
            if "additionalItems" in schema:
                rest = self._child(node, schema["additionalItems"], "additionalItems")
                keyword = "additionalItems"
        elif "items" in schema:
            rest = self._child(node, schema["items"], "items")
        if first or rest is not None:
            atoms.append(Atom("items", (first, rest), keyword, f"{node.pointer}/{keyword}"))
        self._sizes(node, atoms, schema, "Items")
        if schema.get("uniqueItems"):
            atoms.append(Atom("unique", None, "uniqueItems", f"{node.pointer}/uniqueItems"))
            self.wants_values = True
        if "contains" in schema:
            child = self._child(node, schema["contains"], "contains")
            least = int(schema.get("minContains", 1))
            most = int(schema["maxContains"]) if "maxContains" in schema else INF
            if least or most < INF or node.draft >= kw.D2019:
                atoms.append(Atom("contains", (child, least, most), "contains", f"{node.pointer}/contains"))
        if "unevaluatedItems" in schema:
            node.unevaluated_items = self._child(node, schema["unevaluatedItems"], "unevaluatedItems")
            self.wants_values = True

    def _sizes(self, node: Node, atoms: list[Atom], schema: dict[str, Any], what: str) -> None:
        for side in ("min", "max"):
            keyword = side + what
            if keyword in schema:
                size = int(schema[keyword])
                span = (size, INF) if side == "min" else (0, size)
                atoms.append(Atom("size", span, keyword, f"{node.pointer}/{keyword}"))

    # -- what cannot work ----------------------------------------------------------------------------------------------

    def _find_loops(self) -> None:
        """A schema that applies itself to the same value has no meaning."""
        done: set[int] = set()
        for start in list(self._nodes.values()):
            path: list[tuple[Node, int]] = [(start, 0)]
            open_: set[int] = {start.id}
            while path:
                node, i = path.pop()
                inner = [n for op in node.ops for n in op.nodes if n is not None]
                if node.id in done or i >= len(inner):
                    done.add(node.id)
                    open_.discard(node.id)
                    continue
                path.append((node, i + 1))
                if inner[i].id in open_:
                    self._problem(inner[i].pointer, "the schema refers to itself on the same value, without end")
                    return
                if inner[i].id not in done:
                    open_.add(inner[i].id)
                    path.append((inner[i], 0))


def _same(value: Any) -> dict[str, Any]:
    """A schema that only this object or array satisfies."""
    if isinstance(value, dict):
        return {
            "type": "object",
            "properties": {name: {"const": inner} for name, inner in value.items()},
            "required": list(value),
            "additionalProperties": False,
        }
    size = len(value)
    inner_schema = {"type": "array", "minItems": size, "maxItems": size}
    return inner_schema | ({"prefixItems": [{"const": inner} for inner in value]} if size else {})
