"""What a proxy is: where it listens, whom it asks, who may ask it, and which policy guards what. Frozen.

The shape, and the rules that hold between its parts. Files are read by `configfile`; nothing here opens anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from streamguard.adapters.sse.decoder import MAX_EVENT_BYTES
from streamguard.files.frozen_json import FrozenJson
from streamguard.guards.base import Settings
from streamguard.http.limits import Limits

OFF = "off"
"""The policy of a route without guards: bytes pass as they come, in both directions."""

ENV_PREFIXES = ("ANTHROPIC_", "STREAMGUARD_", "AWS_BEARER_TOKEN_")
"""How names of environment variables that a configuration may read begin: a file must not choose freely which of a
process's secrets goes upstream."""

RESERVED_HEADERS = frozenset(
    {
        *("authorization", "proxy-authorization", "x-api-key", "cookie", "host", "content-length", "content-type"),
        *("content-encoding", "transfer-encoding", "te", "trailer", "connection", "keep-alive", "upgrade", "expect"),
        *("accept-encoding", "proxy-connection", "forwarded", "via", "x-forwarded-for", "x-forwarded-host"),
    }
)
"""Headers that no configuration can pass on."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}")
_API_PATH = re.compile(r"(/v1)?/messages$|/v1$")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} must be up to 64 letters, digits, '.', '_' and '-'")
    return value


def _env(value: str) -> str:
    if not value.startswith(ENV_PREFIXES) or not re.fullmatch(r"[A-Z0-9_]{1,100}", value):
        raise ValueError(
            f"{value!r} must be an environment variable whose name begins with {' or '.join(ENV_PREFIXES)}"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
Env = Annotated[str, AfterValidator(_env)]


class Listen(Settings):
    """A TCP address."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8787

    @classmethod
    def parse(cls, text: str) -> Listen:
        """`HOST:PORT`, `[V6]:PORT` or `HOST`.

        :raises ValueError: it is none of these.
        """
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", text)
        if found is None or int(found[3] or 0) > 65_535:
            raise ValueError(f"{text!r} must be like 127.0.0.1:8787 or [::1]:8787")
        return cls(host=found[1] or found[2], **({} if found[3] is None else {"port": int(found[3])}))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Client(Settings):
    """Somebody who may ask, known by a token."""

    name: Name
    """What budgets, logs and metrics call it."""
    token_env: Env
    """The environment variable with its token."""
    operator: bool = False
    """Whether it may see `/metrics` and `/_streamguard/`, where all clients' calls are."""


class Route(Settings):
    """Which requests a policy is for: by path prefix, by model, or both."""

    policy: Name
    path: str | None = None
    """Clients of this route have this prefix in their base URL: `/extraction` for `/extraction/v1/messages`."""
    model: str | None = None
    """A model's name, or a glob (`claude-haiku-*`)."""

    @field_validator("path")
    @classmethod
    def _plain_path(cls, path: str | None) -> str | None:
        if path is not None and (not _PATH.fullmatch(path) or path.startswith(("/v1", "/_streamguard", "/healthz"))):
            raise ValueError(f"{path!r} must be like /extraction, and not begin with /v1 or /_streamguard")
        return path

    @model_validator(mode="after")
    def _chooses(self) -> Route:
        if self.path is None and self.model is None:
            raise ValueError("a route needs a path, a model or both; the policy for everything else is `policy`")
        return self

    def matches(self, prefix: str, model: str | None) -> bool:
        """Whether a request belongs here."""
        if self.path is not None and self.path != prefix:
            return False
        return self.model is None or (model is not None and fnmatchcase(model, self.model))


class KeepAlive(Settings):
    """After how many quiet seconds a client is sent something that means nothing, so that no hop's idle timer fires."""

    stream: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 15.0
    """An SSE comment; the provider's own pings come every 15 to 30 s."""
    json_body: Annotated[float | None, Field(gt=0, le=3600, allow_inf_nan=False, alias="json")] = 45.0
    """A space before the JSON; `null` for never. Once one is sent, the status is 200, and a failure can only break the
    body off."""


PassSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class PassThrough(Settings):
    """How long answers may take that no policy guards, in seconds: those of routes with the policy `off`, counts of
    tokens and lists of models. An upstream that is silent is not waited for."""

    first_byte: PassSeconds = 120.0
    """Until the head of a stream. Some servers send it with the first token."""
    first_byte_json: PassSeconds = 600.0
    """Until the head of an answer in one piece, which is sent when all of it is there: the SDKs' own default."""
    idle: PassSeconds = 120.0
    """Between two pieces of a body; the provider pings every 15 to 30 s."""
    total: PassSeconds = 3600.0
    """For all of it."""
    small: PassSeconds = 30.0
    """For all of an answer to `count_tokens` or `models`."""


class ProxyConfig(Settings):
    """A proxy's configuration."""

    version: Literal[1] = 1
    listen: Listen = Listen()
    upstream: str = "https://api.anthropic.com"
    """Where every request goes: scheme, host, port and perhaps a path. Nothing in a request can change it."""
    upstream_api: Literal["messages", "bedrock"] = "messages"
    """What the upstream speaks: the Messages API, or Bedrock's form of it."""
    aws_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{4,40}$")] | None = None
    """With `upstream_api: bedrock`: requests are signed for this region (SigV4), with credentials from where AWS's own
    tools find theirs. Without it a bearer key is sent."""
    upstream_addresses: Literal["any", "public"] = "any"
    """`public`: refuse to connect where the upstream's name leads to a private or loopback address."""
    key_env: Env | None = None
    """The environment variable with the provider's key. None: each client brings its own, in `x-api-key` or
    `authorization`, which goes to the upstream and nowhere else."""
    clients: Annotated[tuple[Client, ...], Field(strict=False)] = ()
    """Who may ask. None: everybody who can connect, which must then be this machine only."""
    hosts: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names under which the proxy is reached, besides the one it listens on."""
    origins: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Web origins whose pages may ask, such as `https://app.example.com`."""
    policy: str = "streamguard:interactive_chat"
    """For all requests that no route takes: a file, `streamguard:NAME`, a name from `policies`, or `off`."""
    policies: Annotated[Mapping[Name, str], AfterValidator(FrozenJson)] = FrozenJson({})
    """Name → a file or `streamguard:NAME`."""
    routes: Annotated[tuple[Route, ...], Field(strict=False)] = ()
    """The first that matches decides."""
    by_header: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Policies that a request may choose itself, by the header `x-streamguard-policy`."""
    forward_headers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Request headers to pass on, besides `anthropic-version`, `anthropic-beta` and `user-agent`."""
    max_event_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = MAX_EVENT_BYTES
    """The most bytes of one event of the upstream's. A larger one ends the attempt (`transport.event_too_large`)."""
    view: bool = True
    """Whether the live view is served at `/_streamguard/`: to this machine, or to operators."""
    keep_alive: KeepAlive = KeepAlive()
    pass_through: PassThrough = PassThrough()
    limits: Limits = Limits()
    final_status: Annotated[int, Field(ge=400, le=499)] | None = 422
    """The status of a failure that asking again will not mend, where clients would ask again after its own (408, 409,
    425, 429, 500 and above). `null`: its own all the same."""
    drain: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """Seconds that running answers get to end after the first signal."""

    @field_validator("upstream")
    @classmethod
    def _plain_upstream(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise ValueError("must be like https://api.example.com")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must have no user and no password: they would end up in logs")
        if not re.fullmatch(r"[A-Za-z0-9._/~-]*", parts.path) or ".." in parts.path:
            raise ValueError("must have a plain path, or none")
        plain = url.rstrip("/")
        if found := _API_PATH.search(plain):
            path, without = found[0], plain[: found.start()]
            raise ValueError(f"must not end in {path}, which the proxy adds itself: leave {path} out ({without})")
        return plain

    @field_validator("origins")
    @classmethod
    def _plain_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d{1,5})?", origin):
                raise ValueError(f"{origin!r} must be like https://app.example.com")
        return origins

    @field_validator("hosts")
    @classmethod
    def _plain_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host):
                raise ValueError(f"{host!r} must be a host's name in lower case, without a port")
        return hosts

    @field_validator("forward_headers")
    @classmethod
    def _harmless_headers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} must be a header's name in lower case")
            if name in RESERVED_HEADERS or name.startswith("x-streamguard"):
                raise ValueError(f"{name} is never passed on as it is")
        return names

    @model_validator(mode="after")
    def _safe(self) -> ProxyConfig:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        names = [client.name for client in self.clients]
        yield from (f"two clients are called {name!r}" for name in names if names.count(name) > 1)
        if not self.listen.loopback and not self.clients:
            yield (
                f"listening on {self.listen} lets others in: name at least one client with a token (clients, or "
                "--token-env), or listen on 127.0.0.1"
            )
        upstream = urlsplit(self.upstream)
        host = upstream.hostname or ""
        if upstream.scheme == "http" and not is_loopback(host) and not _private(host):
            yield f"upstream {self.upstream} would carry the key in plain text over the network: use https"
        if is_loopback(host) and self.listen.loopback and upstream.port == self.listen.port:
            yield f"upstream {self.upstream} is this proxy itself"
        yield from self._bedrock_problems()
        known = {*self.policies, OFF}
        yield from (
            f"policy {name!r} is not in `policies`, which has {', '.join(self.policies) or 'none'}"
            for name in (*(route.policy for route in self.routes), *self.by_header)
            if name not in known
        )

    def _bedrock_problems(self) -> Iterator[str]:
        if self.upstream_api != "bedrock":
            if self.aws_region is not None:
                yield "aws_region is for upstream_api: bedrock only"
            return
        if self.upstream == ProxyConfig.model_fields["upstream"].default:
            yield "upstream_api: bedrock needs its upstream: https://bedrock-runtime.REGION.amazonaws.com"
        if self.aws_region is not None and self.key_env is not None:
            yield "requests are signed (aws_region) or bear a key (key_env), not both"
        chosen = (self.policy, *self.policies.values(), *(route.policy for route in self.routes), *self.by_header)
        if OFF in chosen:
            yield "policy off passes bytes as they come, which Bedrock does not take: leave it out"

    @property
    def open_to_all(self) -> bool:
        """Whether nobody needs a token."""
        return not self.clients


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _private(host: str) -> bool:
    """Whether a host is an address of a private network: a sidecar's, a cluster's."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        # One label is no name of the public internet: `ollama`, `gateway`.
        return "." not in host or host.endswith((".internal", ".local", ".svc"))
