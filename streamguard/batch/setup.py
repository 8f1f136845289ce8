"""What an extractor was configured with, checked once and picklable, and the way from a row to its request.

In charge of every mistake that can be found without a row, and of the key by which a process knows that two
configurations are one. It opens no connection.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from streamguard import api
from streamguard.adapters.anthropic.environment import checked_url
from streamguard.batch.columns import plain, types
from streamguard.errors import ConfigError, Problem
from streamguard.jobs.input.input import RowRequest
from streamguard.jobs.input.params import RenderError, mistakes
from streamguard.jobs.input.plan import Entry
from streamguard.jobs.input.rows import MAX_ID, Row, content_key
from streamguard.jobs.input.templates import make_template, open_template
from streamguard.jobs.opening import TOTAL, check_schema, read_schema_or_type, with_schema
from streamguard.jobs.store.fingerprint import request_fingerprint, salt
from streamguard.policy.model import Policy

if TYPE_CHECKING:
    from streamguard.jobs.input.template import Template

OnBudget = Literal["stop", "rows"]
"""What a shared budget without room does: end the work, or be the result of each row that is left."""

MOST_CONCURRENT = 1000
"""Connections that the SDK's pool has."""


class Unusable(Exception):
    """A row of which no request can be made."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration."""

    policy: Policy
    policy_name: str
    template: tuple[str, str] | None
    """The text and the name of its file."""
    request: Callable[[dict[str, Any]], Mapping[str, Any]] | None
    overrides: Mapping[str, Any]
    key: str | None
    job: str | None
    journal: str | None
    concurrency: int
    base_url: str | None
    client: Callable[[], Any] | None
    on_budget: OnBudget
    keep_message: bool
    lease: float
    folder: str
    """What relative paths of ledgers are relative to."""
    name: str = ""
    """A digest of all of it: two with the same name do the same."""

    @classmethod
    def of(
        cls,
        *,
        policy: api.PolicyLike,
        schema: Any,
        template: str | os.PathLike[str] | None,
        output: Any,
        model: str | None,
        max_tokens: int | None,
        journal: str | None,
        base_url: str | None,
        **options: Any,
    ) -> Self:
        """Check a configuration.

        :raises ConfigError: what cannot be used.
        """
        chosen = _policy(policy, schema, output)
        read = None if template is None else open_template(Path(template))
        overrides = {name: value for name, value in (("model", model), ("max_tokens", max_tokens)) if value is not None}
        _check(read, overrides, options, journal)
        made = cls(
            policy=chosen,
            policy_name=policy if isinstance(policy, str) else "policy",
            template=None if read is None else (read.text, read.file),
            overrides=overrides,
            journal=_absolute(journal),
            base_url=checked_url(base_url, knob="base_url"),
            folder=str(Path.cwd()),
            **options,
        )
        return msgspec.structs.replace(made, name=_digest(made))

    @property
    def added(self) -> dict[str, str]:
        """The columns that results add, with their types."""
        return types(keep_message=self.keep_message)


class Requests:
    """Makes requests of rows.

    :param setup: the configuration.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._template = None if setup.template is None else make_template(*setup.template)
        self._salt = salt(setup.policy)

    def key(self, row: Mapping[str, Any]) -> str:
        """Return the key of a row.

        :raises ConfigError: it has none.
        """
        name = self._setup.key
        if name is None:
            return content_key({str(field): plain(value) for field, value in row.items()})
        if name not in row:
            raise ConfigError(
                f"a row has no column {name!r}, which tells rows apart: it has {', '.join(map(str, row)) or 'none'}; "
                "name the column with key=, or key=None to tell rows apart by all that is in them"
            )
        value = plain(row[name])
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ConfigError(f"the key of a row (column {name!r}) must be a text or a whole number, got {value!r}")
        key = str(value)
        if len(key) > MAX_ID or "\0" in key or not _is_unicode(key):
            raise ConfigError(
                f"the key of a row (column {name!r}) must be Unicode of at most {MAX_ID} characters, got {key[:50]!r}"
            )
        return key

    def request(self, key: str, row: Mapping[str, Any]) -> RowRequest:
        """Return the request of a row.

        :raises Unusable: none can be made of it.
        """
        data = {str(field): plain(value) for field, value in row.items()}
        try:
            params = {**plain(dict(self._params(key, data))), **self._setup.overrides}
            found = list(mistakes(params))
            if found:
                raise Unusable("; ".join(f"{one.pointer}: {one.problem}" for one in found))
            print_ = request_fingerprint(self._salt, params)
        except RenderError as error:
            raise Unusable(f"{error.place}: {error.problem}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise Unusable(f"{type(error).__name__}: {error}") from error
        return RowRequest(Entry(key, 0, 0, 0, 0, print_), params, row=data if self._setup.policy.grounds else None)

    def _params(self, key: str, data: dict[str, Any]) -> Mapping[str, Any]:
        if self._template is not None:
            return self._template.params(Row(custom_id=key, line=0, data=data))
        if self._setup.request is not None:
            try:
                return self._setup.request(data)
            except Exception as error:
                raise Unusable(f"request() raised {type(error).__name__}: {error}") from error
        if not isinstance(data.get("params"), dict):
            raise Unusable("the row has no request (params), and there is neither template= nor request=")
        return dict(data["params"])


def _policy(policy: api.PolicyLike, schema: Any, output: Any) -> Policy:
    if schema is not None and output is not None:
        raise ConfigError("schema= and output= both say what the answer is: give one of them")
    chosen = api.policy_for(policy, output)
    if isinstance(schema, str | os.PathLike):
        schema = read_schema_or_type(os.fspath(schema), allow_imports=True)
        if isinstance(schema, Problem):
            raise ConfigError(schema)
    if schema is not None:
        chosen = with_schema(chosen, schema)
    check_schema(chosen)
    if chosen.timeouts.total is None:
        raise ConfigError(f"policy: /timeouts/total: {TOTAL.replace('a job', 'an extractor')}")
    return chosen


def _check(
    template: Template | None, overrides: Mapping[str, Any], options: Mapping[str, Any], journal: str | None
) -> None:
    problems: list[str] = []
    if template is not None and options["request"] is not None:
        problems.append("template= and request= both make the request: give one of them")
    if template is not None:
        fields = {**template.defaults, **overrides, "messages": [{"role": "user", "content": ""}]}
        problems += [f"{template.file}: {one.pointer}: {one.problem}" for one in mistakes(fields)]
    if not 1 <= options["concurrency"] <= MOST_CONCURRENT:
        problems.append(f"concurrency must be from 1 to {MOST_CONCURRENT}, got {options['concurrency']}")
    if not 1.0 <= options["lease"] <= 86_400:
        problems.append(f"lease must be from 1 to 86400 seconds, got {options['lease']}")
    if options["on_budget"] not in ("stop", "rows"):
        problems.append(f"on_budget must be 'stop' or 'rows', got {options['on_budget']!r}")
    if journal is not None and not options["job"]:
        problems.append("a row journal needs the name of the job: job=, the same in every process and every run")
    job = options["job"]
    if job is not None and (not _is_unicode(job) or "\0" in job or len(job) > MAX_ID):
        problems.append(f"job must be Unicode of at most {MAX_ID} characters, got {job[:50]!r}")
    client = options["client"]
    if client is not None and (not callable(client) or hasattr(client, "messages")):
        problems.append(
            "client must be a function that makes a client (`def client(): return AsyncAnthropic(…)`): connections "
            "belong to one process and one event loop"
        )
    if problems:
        raise ConfigError([Problem(problem=one) for one in problems])


def _is_unicode(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode()


def _absolute(journal: str | None) -> str | None:
    """A journal's address; the path of a file is the same for every process of this machine."""
    if journal is None or not journal.startswith("sqlite:"):
        return journal
    return f"sqlite:{Path(journal.removeprefix('sqlite:')).absolute()}"


def _digest(setup: Setup) -> str:
    """A name that differs where anything does. What cannot be told apart for sure (a lambda) differs by its code."""

    def described(value: Any) -> Any:
        code = getattr(value, "__code__", None)
        if code is not None:
            closure = [repr(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
            about = (value.__module__, value.__qualname__, code.co_code.hex(), repr(code.co_consts), code.co_names)
            return [*map(str, about), *closure, repr(value.__defaults__)]
        kind = type(value)
        return [f"{kind.__module__}.{kind.__qualname__}", repr(value), repr(getattr(value, "__dict__", None))]

    said = {name: getattr(setup, name) for name in setup.__struct_fields__ if name not in ("name", "policy")}
    policy = setup.policy.model_dump(mode="python", by_alias=True)
    text = json.dumps([said, policy], sort_keys=True, default=described)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
