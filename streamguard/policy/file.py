"""Policy files: YAML → `Policy`, with every mistake at once, each as `file:line:column: /pointer: what`.

In charge of files: which one extends which, what is merged into what, which schema file is read, and from which file
each value came. It does not know what a section means: the models say that, `files.mistakes` finds the words for it,
and `policy_checks` looks across sections. Nothing is fetched, no environment variable is read, nothing is imported
unless the caller allows it.

Merging: mappings are merged key by key, everything else (lists, JSON Schemas, values) replaces. A key with nothing
behind it changes nothing. `off` (or `null`) removes a section; inside one it is a value, such as `alive: off` for no
such clock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from streamguard.errors import ConfigError, PolicyError, Problem
from streamguard.files.json_pointer import pointer
from streamguard.files.mistakes import Mistake, mistakes, shown
from streamguard.files.python_names import NotImported, import_name, is_python_name
from streamguard.files.reading import identity, read_bytes, shipped_policies
from streamguard.files.schema_file import read_schema
from streamguard.files.suggest import did_you_mean
from streamguard.files.yaml import MAX_BYTES, Loaded, Position, Positions, Span, load
from streamguard.files.yaml import Path as At
from streamguard.guards.checks.spec import compiled
from streamguard.models.model import OutputType
from streamguard.policy.checks import check_policy, unknown_reasons
from streamguard.policy.json_schema import SWITCHED, policy_schema
from streamguard.policy.merging import OPAQUE, merged, read_off, value_at, value_of, without_empty, without_nulls
from streamguard.policy.model import Policy

__all__ = [
    "PolicyFile",
    "check_policy",
    "load_policy",
    "loads_policy",
    "policy_schema",
    "read_policy",
    "shipped_policies",
]

MAX_CHAIN = 8
"""Most files in one chain of `extends`, the first included. Nobody reviews what they cannot hold in their head."""

SHIPPED = "streamguard:"
"""How `extends` names a policy that comes with this package."""


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and what is known about the files it came from."""

    policy: Policy
    files: tuple[str, ...]
    """The file itself, then what it extends, nearest first."""
    warnings: tuple[Problem, ...]
    """What is allowed and probably not meant; see `check_policy`."""
    positions: Mapping[At, Span]
    """Where each value came from."""
    removed: tuple[Problem, ...] = ()
    """What a file takes away from those that it extends, by `off` or `null`."""


def load_policy(path: str | os.PathLike[str], *, allow_imports: bool = False) -> Policy:
    """Read a policy file and what it extends.

    ```python
    policy = streamguard.load_policy("policies/invoices.yaml")
    ```

    :param path: a YAML file, or `streamguard:NAME` for a shipped policy.
    :param allow_imports: whether `guards: ["module:name"]` may import Python code. The file then runs code: allow it
        for files of your own only.
    :raises PolicyError: every mistake at once, in order of position.
    """
    return read_policy(path, allow_imports=allow_imports).policy


def loads_policy(
    text: str | bytes,
    file: str = "<string>",
    base: str | os.PathLike[str] | None = None,
    *,
    allow_imports: bool = False,
) -> Policy:
    """The same from a text.

    :param file: the name that positions carry.
    :param base: the folder that relative paths in the text start from; `None` refuses relative paths.
    """
    folder = None if base is None else Path(base)
    return _Reading(allow_imports).finish(text, file, folder, identity=None).policy


def read_policy(path: str | os.PathLike[str], *, allow_imports: bool = False) -> PolicyFile:
    """Like `load_policy`, with the warnings and the positions."""
    reading = _Reading(allow_imports)
    name = os.fspath(path)
    if name.startswith(SHIPPED):
        found = _shipped(name)
        if isinstance(found, str):
            raise PolicyError(Problem(file=name, problem=found))
        return reading.finish(found.read_bytes(), name, None, identity=name)
    text = read_bytes(Path(name), MAX_BYTES)
    if isinstance(text, str):
        raise PolicyError(Problem(file=name, problem=text + reading.shipped_instead(name)))
    return reading.finish(text, name, Path(name).parent, identity=identity(Path(name)))


def _shipped(name: str) -> resources.abc.Traversable | str:
    """A shipped policy by its full name, or what is wrong with the name."""
    known = shipped_policies()
    wanted = name.removeprefix(SHIPPED)
    if wanted in known:
        return known[wanted]
    return f'no shipped policy "{wanted}"' + (
        did_you_mean(wanted, known) or f"; there are {', '.join(known) or 'none'}"
    )


@cache
def _schema() -> dict[str, Any]:
    return policy_schema(describe=False)


class _Reading:
    """One policy being read: the chain of files, and every mistake so far."""

    def __init__(self, allow_imports: bool) -> None:
        self.allow_imports = allow_imports
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.removed: list[Problem] = []
        self.files: list[str] = []
        self.identities: list[str | None] = []

    def finish(self, text: str | bytes, file: str, folder: Path | None, *, identity: str | None) -> PolicyFile:
        merged = self.chain(text, file, folder, identity)
        policy = self.model(merged) if merged is not None else None
        if policy is not None and merged is not None:
            for finding in check_policy(policy):
                problem = self.placed(
                    Mistake(finding.path, finding.problem, offset=finding.offset), merged.positions, merged.data
                )
                (self.problems if finding.level == "error" else self.warnings).append(problem)
        if self.problems or policy is None or merged is None:
            raise PolicyError(self.in_order(self.problems))
        return PolicyFile(
            policy=policy,
            files=tuple(self.files),
            warnings=tuple(self.in_order(self.warnings)),
            positions=merged.positions,
            removed=tuple(self.in_order(self.removed)),
        )

    # Files

    def chain(self, text: str | bytes, file: str, folder: Path | None, identity: str | None) -> Loaded | None:
        """The file merged over what it extends; `None` if a file of the chain is no YAML."""
        self.files.append(file)
        self.identities.append(identity)
        try:
            own = load(text, file)
        except PolicyError as mistake:
            self.problems += mistake.problems
            return None
        self.take_schema_file(own, folder)
        self.take_guards(own)
        self.take_type(own)
        empty = without_empty(own)
        read_off(own.data, ())
        if "extends" not in own.data:
            self.warn_of_nothing(own, empty, {})
            return without_nulls(own)
        parent, at = own.data.pop("extends"), own.positions.pop(("extends",))
        below, problem = self.parent(parent, folder)
        if problem is not None:
            self.problem(problem, at.value, ("extends",))
            return without_nulls(own)
        if below is None:
            return None
        self.warn_of_nothing(own, empty, below.data)
        self.note_removed(own, below.data)
        return without_nulls(merged(below, own))

    def warn_of_nothing(self, own: Loaded, empty: Sequence[At], below: Mapping[str, Any]) -> None:
        """Tell of keys with nothing behind them, and of `null` for a section that no file below has."""
        for path in empty:
            if len(path) == 1 and path[0] not in below:
                what = _EMPTY_SECTION
            elif value_of(below, path) is not None:
                what = f"empty, so it stays as {self.files[-1]} has it; to take it away write off"
            else:
                what = "empty, so it stays as it is by default; write a value, or off for none"
            self.warnings.append(self.placed(Mistake(path, what, at_key=True), own.positions))
        for key, value in own.data.items():
            if value is None and key not in below and key not in SWITCHED:
                self.warnings.append(self.placed(Mistake((key,), _EMPTY_SECTION, at_key=True), own.positions))

    def note_removed(self, own: Loaded, below: Mapping[str, Any]) -> None:
        """Note what a file takes away from the ones below."""
        todo: list[At] = [(key,) for key in own.data]
        while todo:
            path = todo.pop()
            value, before = value_of(own.data, path), value_of(below, path)
            if value is None and before is not None:
                what = f"off: {self.files[-1]} has it, and this file takes it away"
                self.removed.append(self.placed(Mistake(path, what, at_key=True), own.positions))
            elif isinstance(value, dict) and isinstance(before, dict) and path not in OPAQUE:
                todo += [(*path, key) for key in value]

    def parent(self, name: Any, folder: Path | None) -> tuple[Loaded | None, str | None]:
        """What `extends: name` stands for, or what is wrong with it."""
        if not isinstance(name, str) or not name:
            return None, f"must be streamguard:NAME or the path of a policy file, got {shown(name)}"
        if len(self.files) >= MAX_CHAIN:
            return None, f"more than {MAX_CHAIN} files in a chain: {self.chain_with(name)}"
        if name.startswith(SHIPPED):
            if name in self.identities:
                return None, f"extends itself: {self.chain_with(name)}"
            found = _shipped(name)
            return (None, found) if isinstance(found, str) else (self.chain(found.read_bytes(), name, None, name), None)
        path = self.beside(name, folder)
        if isinstance(path, str):
            return None, path
        text = read_bytes(path, MAX_BYTES)
        if isinstance(text, str):
            return None, f"{path}: {text}" + self.shipped_instead(name)
        if identity(path) in self.identities:
            return None, f"extends itself: {self.chain_with(str(path))}"
        return self.chain(text, str(path), path.parent, identity(path)), None

    def chain_with(self, name: str) -> str:
        return " → ".join([*self.files, name])

    @staticmethod
    def shipped_instead(name: str) -> str:
        return f"; did you mean {SHIPPED}{name}?" if name in shipped_policies() else ""

    @staticmethod
    def beside(name: str, folder: Path | None) -> Path | str:
        """A path relative to the file that names it, or what is wrong with it."""
        if not name.isprintable():
            return f"{shown(name)[9:]} is no file's name"
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name):
            return f"{shown(name)[9:]} is no relative path; nothing is fetched from a URL"
        if Path(name).is_absolute() or name.startswith("~"):
            return "must be relative to this file, so that it means the same on every machine"
        if folder is None:
            return f"{name} is relative to a file, and this text has none; give base="
        return Path(os.path.normpath(folder / name))

    def take_schema_file(self, own: Loaded, folder: Path | None) -> None:
        """Put the schema that `json.schema_file` names in its place."""
        section = own.data.get("json")
        if not isinstance(section, dict) or "schema_file" not in section:
            return
        at: At = ("json", "schema_file")
        name, span = section.pop("schema_file"), own.positions.pop(at)
        if section.get("schema") is not None:
            self.problem("give either schema or schema_file", span.key, at)
        elif not isinstance(name, str) or not name:
            self.problem(f"must be the path of a JSON file, got {shown(name)}", span.value, at)
        elif isinstance(path := self.beside(name, folder), str):
            self.problem(path, span.value, at)
        elif not isinstance(schema := read_schema(path), Problem):
            section["schema"] = schema
            own.positions["json", "schema"] = span
        elif schema.line is None:
            self.problem(f"{schema.file}: {schema.problem}", span.value, at)
        else:
            self.problems.append(schema)

    def take_type(self, own: Loaded) -> None:
        """Import the type that `json.schema` names, if the caller allows it."""
        section = own.data.get("json")
        name = section.get("schema") if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(name, str) or not is_python_name(name):
            return
        at: At = ("json", "schema")
        found = output_type(name, self.imported(name))
        if isinstance(found, OutputType):
            section["schema"] = found
        else:
            del section["schema"]
            self.problem(found, own.positions[at].value, at)

    def imported(self, name: str) -> Any:
        """What a name stands for, or why it is refused."""
        if not self.allow_imports:
            return NotImported(
                f"{name} is Python code, and this caller does not let policies import any (allow_imports)"
            )
        return import_name(name)

    def take_guards(self, own: Loaded) -> None:
        """Import what `guards` names, if the caller allows it."""
        named = own.data.get("guards")
        if not isinstance(named, list):
            return
        guards = []
        for index, name in enumerate(named):
            at: At = ("guards", index)
            found = self.guard(name)
            if isinstance(found, _Refused):
                self.problem(found.why, own.positions[at].value, at)
            else:
                guards.append(found)
        own.data["guards"] = guards

    def guard(self, name: Any) -> Any:
        if not isinstance(name, str) or not is_python_name(name):
            return _Refused(f'must be "module:name", got {shown(name)}')
        found = self.imported(name)
        if isinstance(found, NotImported):
            return _Refused(found.why)
        if not callable(getattr(found, "watch", None)):
            return _Refused(f"{name} is no guard: it has no watch(ctx, now); wrap a function with @streamguard.guard")
        return found

    # The model

    def model(self, merged: Loaded) -> Policy | None:
        """The policy that the merged data is, as far as its model can tell."""
        try:
            return Policy.model_validate(merged.data)
        except ValidationError as mistake:
            in_checks = list(_in_checks(merged.data))
            found = mistakes(mistake.errors(include_url=False), merged.data, _schema())
            # Of expressions it knows less than `in_checks`, which sees the schema.
            known = [one for one in found if one.offset is None or one.path[0] != "checks"]
            for one in [*known, *in_checks]:
                self.problems.append(self.placed(one, merged.positions, merged.data))
            for finding in unknown_reasons(_patterns(merged.data), _own_reasons(merged.data)):
                self.add(Mistake(finding.path, finding.problem), merged.positions)
        return None

    # Problems

    def add(self, mistake: Mistake, positions: Positions) -> None:
        self.problems.append(self.placed(mistake, positions))

    @staticmethod
    def placed(mistake: Mistake, positions: Positions, data: Any = None) -> Problem:
        """The mistake with the nearest place that is known."""
        path = mistake.path
        while path and path not in positions:
            path = path[:-1]
        span = positions[path]
        at = span.key if mistake.at_key else span.value
        if mistake.offset is not None and isinstance(value := value_at(data, path), str):
            at = span.inside(value, mistake.offset)
        return Problem(
            problem=mistake.problem, file=at.file, line=at.line, column=at.column, pointer=pointer(mistake.path) or None
        )

    def problem(self, what: str, at: Position, path: At) -> None:
        self.problems.append(Problem(problem=what, file=at.file, line=at.line, column=at.column, pointer=pointer(path)))

    def in_order(self, problems: Sequence[Problem]) -> list[Problem]:
        """By file, this one first, then by place."""
        rank = {file: index for index, file in enumerate(self.files)}
        return sorted(
            dict.fromkeys(problems),
            key=lambda problem: (rank.get(problem.file or "", MAX_CHAIN), problem.line or 0, problem.column or 0),
        )


def output_type(name: str, found: Any) -> OutputType | str:
    """The type that a name stands for, or what is wrong with it."""
    if isinstance(found, NotImported):
        return found.why
    try:
        output = OutputType.of(found)
        output.plan()
    except ConfigError as mistake:
        return mistake.problem
    except ValueError:
        return f"{name} is no type that Pydantic validates"
    return output


def _patterns(data: Any) -> Iterator[tuple[At, str]]:
    """Every `retry.rules[].when[]` of data that is no policy yet, with its path."""
    nodes: list[tuple[At, Any]] = [((), data)]
    for step in ("retry", "rules", None, "when", None):
        below: list[tuple[At, Any]] = []
        for path, node in nodes:
            if step is None and isinstance(node, list):
                below += [((*path, index), item) for index, item in enumerate(node)]
            elif step is not None and isinstance(node, dict) and step in node:
                below.append(((*path, step), node[step]))
        nodes = below
    return ((path, node) for path, node in nodes if isinstance(node, str))


def _own_reasons(data: Mapping[str, Any]) -> list[str]:
    sections = (data.get("checks"), data.get("content"))
    items = [item for section in sections if isinstance(section, list) for item in section]
    return [item["reason"] for item in items if isinstance(item, dict) and isinstance(item.get("reason"), str)]


def _in_checks(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with the expressions of data that is no policy yet, as far as its schema tells."""
    section, checks = data.get("json"), data.get("checks")
    schema = section.get("schema") if isinstance(section, dict) else None
    for index, check in enumerate(checks if isinstance(checks, list) else ()):
        texts = [check.get(key) for key in ("that", "at", "say")] if isinstance(check, dict) else [None]
        if isinstance(texts[0], str) and all(isinstance(text, str | None) for text in texts):
            _, found = compiled(texts[0], texts[1], texts[2], schema if isinstance(schema, dict) else True)
            yield from (Mistake(("checks", index, one.key), one.problem, offset=one.at) for one in found)


class _Refused(msgspec.Struct, frozen=True):
    why: str


_EMPTY_SECTION = "empty, which is the same as leaving it out; for a section with its defaults write {}"
