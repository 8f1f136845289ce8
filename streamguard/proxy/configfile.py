"""Proxy configuration files: YAML → `ProxyConfig` and its policies, with every mistake at once and its place.

In charge of reading: the file, the policies it names, and the environment variables with key and tokens. Values of
environment variables never stand in a message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from streamguard.adapters.aws.signing import Signer
from streamguard.errors import ConfigError, PolicyError, Problem
from streamguard.files.json_pointer import pointer
from streamguard.files.mistakes import Mistake, mistakes
from streamguard.files.yaml import Loaded, Positions, load
from streamguard.policy.file import SHIPPED, read_policy
from streamguard.policy.model import Policy
from streamguard.proxy.config import OFF, ProxyConfig
from streamguard.source import NO_CONTINUING

LABELS = frozenset({"client", "policy"})
"""What a budget's `per` may name in braces: the proxy itself gives these to every call."""

SHORTEST_TOKEN = 16
"""Characters of a client token. 16 random letters and digits are 95 bits: nobody guesses them over a network."""

DEFAULT = "default"
"""The name of the policy for requests that no route takes, where it has none of its own."""

TOTAL = "a proxy needs a limit on the time of each call, retries included: set timeouts.total, in seconds"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration with everything it names, read and checked."""

    config: ProxyConfig
    policies: Mapping[str, Policy | None]
    """Name → policy; `None` is `off`."""
    default: str
    """The name of the policy for requests that no route takes."""
    key: str | None
    """The provider's key; `None`: clients bring theirs."""
    tokens: Mapping[str, str]
    """Client's name → token."""
    warnings: tuple[Problem, ...] = ()
    signer: Signer | None = None
    """Signs requests to AWS."""

    @property
    def has_key(self) -> bool:
        """Whether requests go upstream with credentials of the proxy's own."""
        return self.key is not None or self.signer is not None

    def __repr__(self) -> str:
        return f"Setup(policies={sorted(self.policies)}, clients={sorted(self.tokens)})"


class ProxyConfigError(ConfigError):
    """A proxy's configuration that cannot be used."""


OWN_KEYS = frozenset({"listen", "upstream", "routes", "clients", "policies", "policy", "key_env", "by_header"})
"""Keys that only a proxy's configuration has at its top: neither a policy nor, beside `input`, a job."""


def is_config(path: Path) -> bool:
    """Return whether a YAML file looks like a proxy's configuration, not like a policy."""
    try:
        return not OWN_KEYS.isdisjoint(load(path.read_bytes(), str(path), error=ProxyConfigError).data)
    except (ProxyConfigError, OSError):
        return False


def read_config(path: str | None, overrides: Mapping[str, Any]) -> tuple[ProxyConfig, Path]:
    """A configuration, from a file or from nothing, with `overrides` on top; and the folder its paths start from.

    :param overrides: top-level keys as a file would have them.
    :raises ProxyConfigError: every mistake at once, in order of position.
    """
    loaded = Loaded({}, {})
    folder = Path()
    if path is not None:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ProxyConfigError(Problem(file=path, problem=f"cannot be read: {error.strerror or error}")) from None
        loaded, folder = load(text, path, error=ProxyConfigError), Path(path).parent
    data = {**loaded.data, **overrides}
    listen = data.get("listen")
    if isinstance(listen, str):
        from streamguard.proxy.config import Listen

        try:
            data["listen"] = Listen.parse(listen)
        except ValueError as error:
            raise ProxyConfigError(_placed(Mistake(("listen",), str(error)), loaded.positions)) from None
    try:
        return ProxyConfig.model_validate(data), folder
    except ValidationError as error:
        found = mistakes(error.errors(include_url=False), data, ProxyConfig.model_json_schema(by_alias=True))
        placed = [_placed(one, loaded.positions) for one in found]
        raise ProxyConfigError(sorted(placed, key=lambda one: (one.line or 0, one.column or 0))) from None


def read_setup(
    config: ProxyConfig,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    allow_imports: bool = False,
) -> Setup:
    """Everything that a configuration names.

    :param folder: what relative paths of policies are relative to.
    :raises ConfigError: every mistake at once.
    """
    environment = os.environ if environment is None else environment
    problems: list[Problem] = []
    warnings: list[Problem] = []
    named = dict(config.policies)
    default = config.policy
    if default not in named and default != OFF:
        default = default.removeprefix(SHIPPED) if default.startswith(SHIPPED) else DEFAULT
        if default in named:
            default = DEFAULT
        named[default] = config.policy
    policies: dict[str, Policy | None] = {OFF: None}
    for name, where in named.items():
        if where == OFF:
            policies[name] = None
            continue
        try:
            file = read_policy(where if where.startswith(SHIPPED) else str(folder / where), allow_imports=allow_imports)
        except PolicyError as error:
            problems += error.problems
            continue
        warnings += file.warnings
        problems += (
            Problem(file=one.file or where, pointer=one.pointer, problem=one.problem) for one in _unfit(file.policy)
        )
        policies[name] = file.policy
    signer = None
    if config.aws_region is not None:
        try:
            signer = Signer(config.aws_region)
        except ConfigError as error:
            problems += error.problems
    key = _secret(config.key_env, environment, problems, 1) if config.key_env is not None else None
    tokens = {
        client.name: _secret(client.token_env, environment, problems, SHORTEST_TOKEN) or "" for client in config.clients
    }
    if len(set(tokens.values())) < len(tokens):
        problems.append(Problem(pointer="/clients", problem="two clients have the same token"))
    if problems:
        raise ProxyConfigError(problems)
    return Setup(
        config=config,
        policies=policies,
        default=default,
        key=key,
        tokens=tokens,
        warnings=tuple(warnings),
        signer=signer,
    )


def _unfit(policy: Policy) -> list[Problem]:
    """What a policy says and a proxy cannot do."""
    found = []
    if policy.timeouts.total is None:
        found.append(Problem(pointer="/timeouts/total", problem=TOTAL))
    if policy.deliver == "restarting":
        what = "restarting needs a client that can take answers back: say committed or live"
        found.append(Problem(pointer="/deliver", problem=what))
    for index, rule in enumerate(policy.retry.rules):
        if rule.base_url is not None:
            what = "a proxy asks its one upstream only, with the one key it is for: leave base_url out"
            found.append(Problem(pointer=f"/retry/rules/{index}/base_url", problem=what))
        if rule.resume == "continue":
            found.append(Problem(pointer=f"/retry/rules/{index}/resume", problem=NO_CONTINUING))
    for index, budget in enumerate(policy.budgets):
        try:
            budget.scopes(labels=dict.fromkeys(LABELS, "x"))
        except ValueError as error:
            what = f"{error}; a proxy's calls have {', '.join(sorted(LABELS))}"
            found.append(Problem(pointer=f"/budgets/{index}/per", problem=what))
    if policy.json_document is not None and policy.json_document.enough_when:
        what = "a proxy hands on the text, which enough_when leaves unfinished: leave it out, or say trailing: cut"
        found.append(Problem(pointer="/json/enough_when", problem=what))
    for index, entry in enumerate(policy.json_document.grounded if policy.json_document is not None else ()):
        if entry.in_ not in (None, "request"):
            what = f"{entry.in_} is a field of a job's row, and a proxy has only requests: say in: request"
            found.append(Problem(pointer=f"/json/grounded/{index}/in", problem=what))
    try:
        if policy.json_document is not None and (schema := policy.json_document.own_schema()) is not None:
            policy.json_document.plan(schema)
    except ConfigError as error:
        found += error.problems
    return found


def _secret(name: str, environment: Mapping[str, str], problems: list[Problem], shortest: int) -> str | None:
    value = environment.get(name, "").strip()
    if not value:
        problems.append(Problem(problem=f"the environment variable {name} is not set"))
    elif len(value) < shortest:
        problems.append(Problem(problem=f"the token in {name} is shorter than {shortest} characters"))
    elif not value.isascii() or not value.isprintable() or " " in value:
        problems.append(Problem(problem=f"the value of {name} has characters that no header can carry"))
    else:
        return value
    return None


def _placed(mistake: Mistake, positions: Positions) -> Problem:
    """A mistake with the nearest place that is known; options of the command line have none."""
    path = mistake.path
    while path and path not in positions:
        path = path[:-1]
    span = positions.get(path)
    if span is None:
        return Problem(problem=mistake.problem, pointer=pointer(mistake.path) or None)
    at = span.key if mistake.at_key else span.value
    return Problem(
        problem=mistake.problem, file=at.file, line=at.line, column=at.column, pointer=pointer(mistake.path) or None
    )
