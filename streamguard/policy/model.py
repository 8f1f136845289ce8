"""`Policy`: what guards a call, what follows from a trip, and within which budgets. Frozen; equal from file and code.

This file is only the shape. The sections are the guards' own specs; files are read by `policyfile`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, SkipValidation, WrapValidator, field_validator

from streamguard.budgets.spec import BudgetSpec
from streamguard.errors import PolicyError, Problem
from streamguard.guards.base import Guard, Mode, Spec
from streamguard.guards.caps import Caps
from streamguard.guards.checks.custom import CustomCheck
from streamguard.guards.checks.spec import Check
from streamguard.guards.completion import Completion
from streamguard.guards.content import Content
from streamguard.guards.document.grounding_beside import GroundingBeside, ungrounded
from streamguard.guards.document.guard import JsonDocument
from streamguard.guards.knobs import Items
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import Timeouts
from streamguard.models.model import OutputType
from streamguard.pace.hedge import HedgeSpec
from streamguard.pace.spec import PaceSpec
from streamguard.pricing.price import Prices
from streamguard.retry.breaker import BreakerSpec
from streamguard.retry.rules import UNGROUNDED, Retry

if TYPE_CHECKING:
    AnyCheck = Check | CustomCheck
else:  # a function is as it was made; a file has expressions alone

    def _as_given(value: Any, read: Callable[[Any], Check]) -> Any:
        return value if isinstance(value, CustomCheck) else read(value)

    AnyCheck = Annotated[Check, WrapValidator(_as_given), SerializeAsAny()]

Deliver = Literal["committed", "live", "restarting"]
"""When output reaches the consumer: after the attempt stands; at once, without silent restarts; or at once, with a
`Restarted` event before a new attempt's."""


@lru_cache(maxsize=256)
def _with_output(policy: Policy, output: OutputType) -> Policy:
    section = policy.json_document or JsonDocument()
    if section.schema_ == output:
        return policy
    if section.schema_ not in (None, "request"):
        problem = "output= and json.schema both say what the document is: leave one of them out"
        raise PolicyError(Problem(pointer="/json/schema", problem=problem))
    if section.schema_file is not None:
        problem = "output= and json.schema_file both say what the document is: leave one of them out"
        raise PolicyError(Problem(pointer="/json/schema_file", problem=problem))
    return policy.replace(json=section.replace(schema=output))


class Policy(Spec):
    """A reviewed bundle of guards, rules and budgets. A section that is absent is off, but for `completion` and the
    default clocks of `timeouts`.

    ```python
    policy = Policy(json=JsonDocument(fence="strip"), retry=Retry(attempts=3, rules=[Rule(when="json.*")]))
    ```
    """

    version: Literal[1] = 1
    mode: Mode = "enforce"
    """For every guard without a mode of its own."""
    deliver: Deliver | None = None
    """Left out: as each door does by itself, which is `committed`, but at once for a stream that the caller opened."""
    timeouts: Timeouts = Timeouts()
    caps: Caps | None = None
    json_document: Annotated[JsonDocument | None, Field(alias="json")] = None
    checks: Items[AnyCheck] = ()
    """Conditions on finished values of the document: expressions, and in code functions (`@check`), too."""
    completion: Completion = Completion()
    content: Items[Content] = ()
    repetition: Repetition | None = None
    guards: Items[SkipValidation[Any]] = ()
    """Guards of your own (`@guard`); in a file as `module:name`, if the caller allows imports."""
    retry: Retry = Retry()
    budgets: Items[BudgetSpec] = ()
    pace: PaceSpec | None = PaceSpec()
    """How fast requests are sent. `null`: as fast as calls come, and jobs eight at a time."""
    breaker: BreakerSpec | None = BreakerSpec()
    """When an endpoint counts as down. `null`: every call finds that out by itself."""
    warm_up: bool = True
    """Whether one row of a job goes first, of those that share a prefix with `cache_control`: the others read it from
    the provider's cache instead of writing it again."""
    hedge: HedgeSpec | None = None
    """A second request for calls whose output is late. Off by default: it is paid for."""
    prices: Prices = Prices()
    """Own prices by model, before the shipped snapshot."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            version: Literal[1] = 1,
            mode: Mode = "enforce",
            deliver: Deliver | None = None,
            timeouts: Timeouts = ...,
            caps: Caps | None = None,
            json: JsonDocument | None = None,
            checks: Sequence[Check | CustomCheck] = (),
            completion: Completion = ...,
            content: Sequence[Content] = (),
            repetition: Repetition | None = None,
            guards: Sequence[Any] = (),
            retry: Retry = ...,
            budgets: Sequence[BudgetSpec] = (),
            pace: PaceSpec | None = ...,
            breaker: BreakerSpec | None = ...,
            warm_up: bool = True,
            hedge: HedgeSpec | None = None,
            prices: Mapping[str, Any] = ...,
        ) -> None: ...

    @field_validator("guards")
    @classmethod
    def _are_guards(cls, guards: tuple[Any, ...]) -> tuple[Any, ...]:
        for item in guards:
            if not callable(getattr(item, "watch", None)):
                raise ValueError(  # noqa: TRY004  what pydantic reports as a mistake in the policy
                    f"{item!r} is no guard: it has no watch(ctx, now); wrap a function with @streamguard.guard"
                )
        return guards

    def with_output(self, output: Any) -> Policy:
        """Return the policy whose document must be a type, or satisfy the policy's own schema if that is the same
        type.

        :param output: a type that Pydantic validates, such as a model class.
        :raises PolicyError: the policy already says otherwise what the document is.
        """
        try:
            return _with_output(self, OutputType.of(output))
        except ValueError as mistake:
            raise PolicyError(f"output {mistake}") from None

    @property
    def connect_limit(self) -> float | None:
        """Seconds that a source may take to connect; `None` for no limit, or where the clocks only look on."""
        return None if (self.timeouts.mode or self.mode) == "observe" else self.timeouts.connect

    @property
    def grounds(self) -> bool:
        """Whether values are held against a source, so that each call needs one."""
        return self.json_document is not None and bool(self.json_document.grounded)

    @property
    def _documents(self) -> tuple[Guard, ...]:
        """The section `json`, and its grounded values where their trip need not end the answer."""
        section = self.json_document
        if section is None or not section.grounded:
            return () if section is None else (section,)
        modes = {entry.mode for entry in section.grounded}
        beside = tuple(GroundingBeside(section, observed) for observed in (False, True))
        observing = beside[1:] if "observe" in modes else ()
        if None not in modes or not self.retry.may_mark(UNGROUNDED):
            return (section, *observing)
        return (ungrounded(section), beside[0], *observing)

    @property
    def panel_guards(self) -> tuple[Guard, ...]:
        """Every guard, in the order in which they speak when several fire on the same event."""
        sections = (
            self.completion,
            *self._documents,
            *self.checks,
            *self.content,
            self.repetition,
            self.caps,
            *self.guards,
            self.timeouts,
        )
        return tuple(section for section in sections if section is not None)
