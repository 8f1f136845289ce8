"""Ceilings for one attempt: tokens, characters, events, tool calls, cost.

In charge of saying, while an answer is being written, that it is surely longer or dearer than allowed. It knows no
other attempt and no budget. Characters, events and tool calls are counted; tokens and cost are *estimates* until the
provider counts, and then judged by that count exactly.

Which estimate: the **lower** end of the model's scale (`TokenScale.low`), times the weight of what was seen. An abort
throws an answer away that was paid for, and pays for another one, so a cap speaks only when it is all but certain: no
answer that the provider would have counted within the cap may be lost to a bad guess. The price of that is lateness, by
the width of the scale: a cap of 2000 tokens trips when between 2000 and 2000 x mid / low have truly been written, which
is 3300 for a model nobody has seen and about 2700 once its answers have been. A ceiling that must never be passed is
another thing and exists already: the request's own `max_tokens`, and a strict budget.

Hidden thinking is not seen, so it counts only at the end. What a cap costs: text is weighed in batches of `BATCH`
characters, so a verdict comes at most that much later than the delta that brought it about.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from pydantic import BeforeValidator, ValidationInfo

from streamguard.errors import PolicyError
from streamguard.events import BlockStarted, Delta, Event, Metered, Started, Usage
from streamguard.guards.base import AttemptContext, BaseWatch, Mode, Spec
from streamguard.guards.knobs import Ceiling
from streamguard.pricing.price import MICRO, Price, Usd, cost, micro_usd, usd
from streamguard.pricing.tokens import weigh
from streamguard.verdict import Trip, Where

BATCH: Final = 64
"""Characters that are weighed at once."""


def _quoted(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f'{info.field_name} is money, and a number loses digits: quote it, as in "{value}"')  # noqa: TRY004
    return value


class Caps(Spec):
    """Ceilings for one attempt; `None` is no ceiling. Equal to the ceiling is within it.

    ```python
    Caps(output_tokens=4000, cost_usd="0.04")
    ```
    """

    output_tokens: Ceiling = None
    """All output, visible thinking included; an estimate until the end."""
    thinking_tokens: Ceiling = None
    """The thinking in it; an estimate, of what is shown of it, until the end."""
    characters: Ceiling = None
    """Of all output, thinking included; Unicode code points."""
    tool_calls: Ceiling = None
    """Calls of the caller's own tools."""
    events: Ceiling = None
    """All events, pings included."""
    cost_usd: Annotated[Usd, BeforeValidator(_quoted)] | None = None
    """The attempt's input and output; an estimate until the end. Needs the model's price. Input counts as the provider
    says at the start, or as estimated where it does not."""
    mode: Mode | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            output_tokens: int | None = None,
            thinking_tokens: int | None = None,
            characters: int | None = None,
            tool_calls: int | None = None,
            events: int | None = None,
            cost_usd: str | Decimal | None = None,
            mode: Mode | None = None,
        ) -> None: ...

    @property
    def name(self) -> str:
        return "caps"

    def watch(self, ctx: AttemptContext, now: float) -> CapsWatch:
        """Return the state for one attempt.

        :param ctx: what is known of the attempt: its request and model.
        :param now: seconds on the running loop\'s clock.
        """
        return CapsWatch(self, ctx)


class CapsWatch(BaseWatch):
    """What one attempt has used of its ceilings.

    :raises PolicyError: a ceiling for the cost, and no price.
    """

    def __init__(self, spec: Caps, ctx: AttemptContext) -> None:
        self._spec = spec
        self._scale = ctx.scale
        self._characters_left = spec.characters
        self._events_left = spec.events
        self._tool_calls = 0
        self._weighs = any(cap is not None for cap in (spec.output_tokens, spec.thinking_tokens, spec.cost_usd))
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._unweighed = 0
        """Characters of both."""
        self._weight = 0.0
        self._thinking_weight = 0.0
        self._usage = Usage()
        self._money = None if spec.cost_usd is None else _Money(spec.cost_usd, ctx)
        wants: tuple[type, ...] = (Delta, BlockStarted, Started, Metered)
        self.wants = None if spec.events is not None else wants

    def feed(self, event: Event, now: float) -> Trip | None:
        if self._events_left is not None:
            self._events_left -= 1
            if self._events_left < 0:
                return self._counted("events", "events")
        if type(event) is Delta:
            size = len(event.text)
            if self._characters_left is not None:
                self._characters_left -= size
                if self._characters_left < 0:
                    return self._counted("characters", "characters")
            if self._weighs and size:
                (self._thinking if event.kind == "thinking" else self._text).append(event.text)
                self._unweighed += size
                if self._unweighed >= BATCH:
                    return self._estimated()
            return None
        if type(event) is BlockStarted:
            if event.kind == "tool_input":
                self._tool_calls += 1
                if self._spec.tool_calls is not None and self._tool_calls > self._spec.tool_calls:
                    return self._counted("tool_calls", "tool calls", where=Where(block=event.index))
            return None
        if type(event) is Metered or type(event) is Started:
            return self._metered(event.usage)
        return None

    def _counted(self, knob: str, what: str, where: Where | None = None) -> Trip:
        limit: int = getattr(self._spec, knob)
        observed = {
            "events": limit - (self._events_left or 0),
            "characters": limit - (self._characters_left or 0),
            "tool_calls": self._tool_calls,
        }[knob]
        return Trip(
            reason=f"cap.{knob}",
            message=f"{observed} {what} (caps.{knob} is {limit})",
            knob=f"caps.{knob}",
            limit=limit,
            observed=observed,
            where=where,
            guard="caps",
        )

    def _estimated(self) -> Trip | None:
        """Weigh the batch and judge by the lower end of the estimate, on top of the provider's last count."""
        thinking = weigh("".join(self._thinking)) if self._thinking else 0.0
        self._weight += (weigh("".join(self._text)) if self._text else 0.0) + thinking
        self._thinking_weight += thinking
        self._text.clear()
        self._thinking.clear()
        self._unweighed = 0
        trip = self._tokens("output_tokens", "output", self._weight, self._usage.output_tokens or 0)
        if trip is None and thinking:
            trip = self._tokens("thinking_tokens", "thinking", self._thinking_weight, self._usage.thinking_tokens or 0)
        if trip is None and self._money is not None:
            trip = self._money.estimated((self._usage.output_tokens or 0) + self._weight * self._scale.low)
        return trip

    def _tokens(self, knob: str, what: str, weight: float, counted: int) -> Trip | None:
        limit: int | None = getattr(self._spec, knob)
        least = counted + weight * self._scale.low
        if limit is None or least <= limit:
            return None
        likely = round(counted + weight * self._scale.mid)
        return Trip(
            reason=f"cap.{knob}",
            message=f"at least {math.ceil(least)} {what} tokens, likely {likely}, estimated from the text"
            f" (caps.{knob} is {limit})",
            knob=f"caps.{knob}",
            limit=limit,
            observed=math.ceil(least),
            estimated=True,
            guard="caps",
        )

    def _metered(self, usage: Usage) -> Trip | None:
        """The provider's own count: it replaces the estimate, and is judged as it is."""
        self._usage = self._usage.updated(usage)
        if usage.output_tokens is not None:
            self._weight = 0.0
            self._text.clear()
        if usage.output_tokens is not None or usage.thinking_tokens is not None:
            self._thinking_weight = 0.0
            self._thinking.clear()
        self._unweighed = sum(map(len, self._text)) + sum(map(len, self._thinking))
        for knob, what in (("output_tokens", "output"), ("thinking_tokens", "thinking")):
            limit, count = getattr(self._spec, knob), getattr(usage, knob)
            if limit is not None and count is not None and count > limit:
                return Trip(
                    reason=f"cap.{knob}",
                    message=f"{count} {what} tokens by the provider's count (caps.{knob} is {limit})",
                    knob=f"caps.{knob}",
                    limit=limit,
                    observed=count,
                    guard="caps",
                )
        return None if self._money is None else self._money.metered(self._usage)


class _Money:
    """A ceiling in USD, as the output tokens it leaves room for."""

    def __init__(self, limit: Decimal, ctx: AttemptContext) -> None:
        if ctx.price is None:
            model = ctx.request.model if ctx.request is not None else None
            raise PolicyError(
                f"caps.cost_usd needs a price, and that of model {model!r} is unknown: add it under prices"
            )
        self._limit = limit
        self._micro = micro_usd(limit)
        self._price: Price = ctx.price
        self._input = Usage(input_tokens=ctx.input_tokens or 0, output_tokens=0)
        self._plan()

    def _plan(self) -> None:
        """From the input, what one more output token costs and how many there is room for."""
        spent = cost(self._price, self._input)
        self._spent = 0 if spent is None else spent
        tokens = (self._input.input_tokens or 0) + (self._input.cache_read_tokens or 0)
        self._rate = self._price.at(tokens + (self._input.cache_write_tokens or 0)).output
        room = Decimal(self._micro - self._spent)
        self._room = float((room / self._rate).to_integral_value(ROUND_FLOOR)) if self._rate else math.inf

    def estimated(self, least_tokens: float) -> Trip | None:
        """Judge by output tokens at the lower end of their estimate."""
        if least_tokens <= self._room or self._room == math.inf:
            return None
        micro = self._spent + math.ceil(Decimal(least_tokens) * self._rate)
        return self._trip(max(micro, self._micro + 1), estimated=True)

    def metered(self, usage: Usage) -> Trip | None:
        """Judge by the provider's count, as far as it goes."""
        if usage.input_tokens is not None:
            self._input = msgspec.structs.replace(usage, output_tokens=0, thinking_tokens=0)
            self._plan()
        exact = cost(self._price, usage)
        if exact is not None:
            return self._trip(exact, estimated=False) if exact > self._micro else None
        return self.estimated(float(usage.output_tokens or 0))

    def _trip(self, micro: int, *, estimated: bool) -> Trip:
        how = "at least {} so far, estimated" if estimated else "{} by the provider's count"
        return Trip(
            reason="cap.cost",
            message=f"{how.format(usd(micro))} (caps.cost_usd is {usd(self._micro)})",
            knob="caps.cost_usd",
            limit=self._limit,
            observed=Decimal(micro) / MICRO,
            estimated=estimated,
            guard="caps",
        )
