"""The section `pace` of a policy: how fast requests are sent, and with whom the provider's limits are shared.

In charge of the shape alone; `pace.pace` says what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from streamguard.files.frozen_json import FrozenJson, JsonObject
from streamguard.guards.base import Spec
from streamguard.guards.knobs import Ceiling, SecondsOrZero
from streamguard.pace.state import BURST, MARGIN, RAMP, SHARED_MARGIN, SHARED_STEEP, STEEP, Knobs

PerMinute = Ceiling
"""Units a minute; `None` for what the provider says."""


class OwnLimits(Spec):
    """Limits of your own, a minute: where the provider states none, or less than it states."""

    requests: PerMinute = None
    input_tokens: PerMinute = None
    output_tokens: PerMinute = None


class PaceSpec(Spec):
    """How fast requests are sent: as fast as the provider's limits allow, as its answers state them, and no faster.

    A provider that states no limits is asked by more and more calls at a time, until its first tokens come late.
    """

    first: Annotated[int, Field(ge=1, le=1000)] = 8
    """Calls of a job at a time, until an answer states the limits. Where none does, this is the beginning."""
    most: Annotated[int, Field(ge=1, le=1000)] = 512
    """Calls at a time, whatever the limits are: each has a connection of its own."""
    use: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """The share of every limit to use. 0.5 leaves half of it to others."""
    ramp: SecondsOrZero = RAMP
    """Seconds from the first answer to the full rate. Providers refuse a sharp increase."""
    output: Literal["expected", "max_tokens"] = "expected"
    """What an answer counts as before it is complete: the mean of the answers so far, or all of `max_tokens`. The
    second is for providers that reserve so much, as OpenAI's do."""
    limits: OwnLimits | None = None
    """Limits of your own, a minute: where the provider states none, or less than it states."""
    shared: Annotated[str, Field(max_length=500)] | None = None
    """Where the pace is kept with everybody of the same account: `sqlite:PATH` for one machine, or
    `redis://HOST:PORT/DB`. By default each program has its own, which holds for some thirty programs."""
    account: Annotated[str, Field(min_length=1, max_length=100)] = "default"
    """A name for all that share the provider's limits. Never a key."""
    pools: JsonObject = cast("JsonObject", FrozenJson({}))
    """Models that share one limit: a pattern of models, and the name of their pool. By default each model has its
    own."""

    @field_validator("shared")
    @classmethod
    def _known_store(cls, shared: str | None) -> str | None:
        scheme, _, rest = (shared or "sqlite:-").partition(":")
        if scheme not in ("sqlite", "redis", "rediss", "unix") or not rest:
            raise ValueError("must be sqlite:PATH or redis://HOST:PORT/DB: a pace in memory is shared with nobody")
        return shared

    @field_validator("pools")
    @classmethod
    def _names(cls, pools: Mapping[str, Any]) -> Mapping[str, Any]:
        for pattern, pool in pools.items():
            if not isinstance(pool, str) or not pool:
                raise ValueError(f"a pool needs a name, and {pattern!r} has {pool!r}")
        return pools

    @model_validator(mode="after")
    def _begins_within(self) -> PaceSpec:
        if "first" in self.model_fields_set and self.first > self.most:
            raise ValueError(f"first is {self.first} and most is {self.most}: begin with no more than the most")
        return self

    def pool(self, model: str | None) -> str:
        """Return the name of the limit that a model has: its pool's, by the first pattern that fits, or its own."""
        for pattern, pool in self.pools.items():
            if fnmatchcase(model or "", pattern):
                return str(pool)
        return model or ""

    def knobs(self, *, shared: bool = False) -> Knobs:
        """Return the numbers that a pace works with.

        :param shared: whether all who use the limits share the pace, so that nobody unseen has to be left room.
        """
        own = self.limits or OwnLimits()
        return Knobs(
            first=float(min(self.first, self.most)),
            most=float(self.most),
            margin=SHARED_MARGIN if shared else MARGIN,
            steep=SHARED_STEEP if shared else STEEP,
            burst=BURST,
            ramp=self.ramp,
            use=self.use,
            reserves=self.output == "max_tokens",
            own=tuple((limit or 0) / 60 for limit in (own.requests, own.input_tokens, own.output_tokens, None)),
        )
